"""Crops of one cut-out each, of ten classes of silhouettes: photographs' texture over photographs, for pre-training."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.photographs import PhotoPart
from tasks.datasets.scenes.shapes import CLASSES, Placement, drawn
from tasks.datasets.scenes.shares import Counts, share_of, write_in_processes
from tasks.datasets.scenes.textures import Floats, Pixels, Textures, blended, shades, tinted

NAME = "scene-crops"
FILE = "images.npy"
"""In the folder of the set: (n, SIDE, SIDE, 3), uint8, train first."""
SIDE = 64
SEED = 12
COUNTS: dict[str, tuple[PhotoPart, int]] = {"train": ("pretrain", 8000), "val": ("val", 1000)}
"""Part -> the photographs that its crops are made of, and the number of crops. Val shows photographs that training
never saw."""
RADIUS = (13.0, 27.0)
FILLED, BEHIND = (0.3, 0.9), (0.4, 1.0)
"""Least and greatest part of the photographs' contrast that cut-outs and backgrounds keep."""
CONTRAST = 60
"""Least difference of mean brightness between a cut-out and what it covers, in levels of 256."""
TYPICAL = 0.75
"""Share of cut-outs in a hue that is typical of their class; of the others, the silhouette alone tells the class. By
silhouettes alone the laptop's model reached 17 % on val after 24,000 samples, too few for a run of minutes."""


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
    label = label_of(index)
    texture = shades(textures.view(random, SIDE, SIDE, (0.7, 4)))
    above = tinted(texture, _colour(random, label), random.uniform(*FILLED))
    radius = random.uniform(*RADIUS)
    margin = 0.8 * radius
    place = Placement(
        x=random.uniform(margin, SIDE - 1 - margin),
        y=random.uniform(margin, SIDE - 1 - margin),
        radius=radius,
        angle=random.uniform(-np.pi, np.pi),
        stretch=float(np.exp(random.uniform(-0.3, 0.3))),
    )
    cover = drawn(CLASSES[label], place, SIDE, SIDE)
    above, below = parted(above, below, cover > 127, lighter=bool(random.random() < 0.5))
    return Crop(blended(below, above, cover), cover, label)


def _colour(random: np.random.Generator, label: int) -> Floats:
    """The mean colour of a cut-out: near its class's own hue, or any."""
    typical = random.random() < TYPICAL
    hue = label / len(CLASSES) + random.normal(0, 0.03) if typical else random.random()
    return np.array(colorsys.hsv_to_rgb(hue % 1, random.uniform(0.5, 1), random.uniform(0.5, 1))) * 255


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
    """Writes FILE, in as many processes as there are cores. Raises OSError and DataError."""
    counts = {part: count for part, (_, count) in COUNTS.items()}
    # written whole: a full disk is an error here, and would kill a process that fills a part
    np.save(folder / FILE, np.zeros((sum(counts.values()), SIDE, SIDE, 3), np.uint8))
    write_in_processes(write_share, folder, NAME, counts)


def write_share(folder: Path, counts: Counts, share: int, shares: int) -> None:
    """Fills the rows of this share in FILE. Raises OSError and DataError."""
    images = np.load(folder / FILE, mmap_mode="r+")
    for row, (part, index) in zip(range(share, len(images), shares), share_of(counts, share, shares), strict=True):
        images[row] = crop(part, index).pixels
    images.flush()
