"""Crops of one cut-out each, of ten classes of silhouettes: photographs' texture over photographs, for pre-training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.photographs import PhotoPart
from tasks.datasets.scenes.shapes import CLASSES, Placement, drawn
from tasks.datasets.scenes.textures import Pixels, Textures, blended

NAME = "scene-crops"
FILE = "images.npy"
"""In the folder of the set: (n, SIDE, SIDE, 3), uint8, train first."""
SIDE = 64
SEED = 12
COUNTS: dict[str, tuple[PhotoPart, int]] = {"train": ("pretrain", 8000), "val": ("val", 1000)}
"""Part -> the photographs that its crops are made of, and the number of crops. Val shows photographs that training
never saw."""
RADIUS = (11.0, 25.0)
CONTRAST = 30
"""Least difference of mean brightness between a cut-out and what it covers, in levels of 256."""


@dataclass(frozen=True)
class Crop:
    """One crop with its ground truth."""

    pixels: Pixels
    """(SIDE, SIDE, 3)"""
    cover: Pixels
    """(SIDE, SIDE): how much of each pixel is the cut-out, 0..255."""
    label: int


def label_of(index: int) -> int:
    """The class of a crop: classes in turn."""
    return index % len(CLASSES)


def crop(part: str, index: int) -> Crop:
    """A crop, the same on every call: it depends on its part and index alone. Raises DataError."""
    random = np.random.default_rng([SEED, list(COUNTS).index(part), index])
    textures = Textures(COUNTS[part][0], NAME)
    below = textures.view(random, SIDE, SIDE, (0.7, 4))
    above = textures.view(random, SIDE, SIDE, (0.7, 4))
    radius = random.uniform(*RADIUS)
    margin = 0.8 * radius
    place = Placement(
        x=random.uniform(margin, SIDE - 1 - margin),
        y=random.uniform(margin, SIDE - 1 - margin),
        radius=radius,
        angle=random.uniform(-np.pi, np.pi),
        stretch=float(np.exp(random.uniform(-0.35, 0.35))),
    )
    cover = drawn(CLASSES[label_of(index)], place, SIDE, SIDE)
    return Crop(blended(below, contrasted(above, below, cover > 127), cover), cover, label_of(index))


def contrasted(above: Pixels, below: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    """The cut-out made lighter or darker where it is as bright as what it covers: it can be seen."""
    if not mask.any():
        return above
    mine, other = (float(pixels[mask].mean()) for pixels in (above, below))
    sign = (1 if mine >= other else -1) if 60 < other < 195 else (1 if other < 128 else -1)
    lacks = CONTRAST - sign * (mine - other)
    if lacks <= 0:
        return above
    return np.clip(above.astype(np.int32) + sign * round(lacks), 0, 255).astype(np.uint8)


def write(folder: Path) -> None:
    """Writes FILE. Raises OSError and DataError."""
    whole = [(part, index) for part, (_, count) in COUNTS.items() for index in range(count)]
    images = np.empty((len(whole), SIDE, SIDE, 3), np.uint8)
    for row, (part, index) in enumerate(whole):
        images[row] = crop(part, index).pixels
    np.save(folder / FILE, images)
