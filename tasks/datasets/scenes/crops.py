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
RADIUS = (17.0, 27.0)
SHIFT, TURN = 6.0, 0.35
"""How far cut-outs lie from the middle, in pixels across and down, and how far they are turned, in radians, at most."""
FILLED, BEHIND = (0.25, 0.7), (0.4, 1.0)
"""Least and greatest part of the photographs' contrast that cut-outs and backgrounds keep."""
CONTRAST = 60
"""Least difference of mean brightness between a cut-out and what it covers, in levels of 256."""
LIGHTER = 0.85
"""Share of cut-outs that are lighter than what they cover. With as many darker ones the mean image of every class is the
same grey, and a small model finds nothing to begin with: 6,400 samples taught it nothing."""


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
    below = textures.view(random, SIDE, SIDE, (0.7, 4), BEHIND)
    above = textures.view(random, SIDE, SIDE, (0.7, 4), FILLED)
    middle = (SIDE - 1) / 2
    place = Placement(
        x=middle + random.uniform(-SHIFT, SHIFT),
        y=middle + random.uniform(-SHIFT, SHIFT),
        radius=random.uniform(*RADIUS),
        angle=random.uniform(-TURN, TURN),
        stretch=float(np.exp(random.uniform(-0.25, 0.25))),
    )
    cover = drawn(CLASSES[label_of(index)], place, SIDE, SIDE)
    above, below = parted(above, below, cover > 127, lighter=bool(random.random() < LIGHTER))
    return Crop(blended(below, above, cover), cover, label_of(index))


def parted(above: Pixels, below: Pixels, mask: NDArray[np.bool_], lighter: bool) -> tuple[Pixels, Pixels]:
    """A cut-out and what it lies on, moved apart in brightness until the first is CONTRAST lighter or darker."""
    if not mask.any():
        return above, below
    sign = 1 if lighter else -1
    lacks = CONTRAST - sign * (float(above[mask].mean()) - float(below[mask].mean()))
    if lacks <= 0:
        return above, below
    return _shifted(above, sign * round(lacks / 2)), _shifted(below, -sign * round(lacks / 2))


def _shifted(pixels: Pixels, levels: int) -> Pixels:
    return np.clip(pixels.astype(np.int32) + levels, 0, 255).astype(np.uint8)


def write(folder: Path) -> None:
    """Writes FILE. Raises OSError and DataError."""
    whole = [(part, index) for part, (_, count) in COUNTS.items() for index in range(count)]
    images = np.empty((len(whole), SIDE, SIDE, 3), np.uint8)
    for row, (part, index) in enumerate(whole):
        images[row] = crop(part, index).pixels
    np.save(folder / FILE, images)
