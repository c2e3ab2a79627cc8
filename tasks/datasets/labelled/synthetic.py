"""Draws synthetic images: signs to pre-train on, and five levels of signs that are less and less like them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SIDE = 16
POINTS = 6
CLASSES = 10
_PROTOTYPES = 7
"""Seed of the shapes of the classes; images of level n are drawn by seed 100 + n."""


def signs(level: int, per_class: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`per_class` images of each of ten signs, the classes in turn; 16 x 16 pixels, grey.

    A sign is a line through six points, drawn shakily, rotated, shifted and with noise. Level 0 is for pre-training
    ("seen" in ImageNet-CoG). In a sign of level n (1 to 5), n of the six points of a seen sign lie elsewhere: an
    artificial counterpart of CoG's growing semantic distance.
    """
    shapes = _shapes(level)
    random = np.random.RandomState(100 + level)
    labels = np.tile(np.arange(CLASSES), per_class)
    images = np.stack([_drawn(shapes[label], random) for label in labels])
    return images, labels.astype(np.int64)


def _shapes(level: int) -> NDArray[np.float64]:
    """(classes, points, 2) in -1..1."""
    seen = 2 * np.random.RandomState(_PROTOTYPES).random_sample((CLASSES, POINTS, 2)) - 1
    if level == 0:
        return seen
    random = np.random.RandomState(_PROTOTYPES + 1)
    for shape in seen:  # level n + 1 moves the points that level n moves, and one more
        elsewhere, order = 2 * random.random_sample((POINTS, 2)) - 1, random.permutation(POINTS)
        shape[order[:level]] = elsewhere[order[:level]]
    return seen


def _drawn(shape: NDArray[np.float64], random: np.random.RandomState) -> NDArray[np.uint8]:
    def between(low: float, high: float, *size: int) -> NDArray[np.float64]:
        return low + (high - low) * random.random_sample(size)

    angle, scale = between(-0.25, 0.25, 1)[0], between(4.5, 6.0, 1)[0]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (shape + between(-0.12, 0.12, POINTS, 2)) @ turn * scale + (SIDE - 1) / 2 + between(-1.2, 1.2, 2)
    y, x = np.mgrid[:SIDE, :SIDE]
    pixels = np.stack([x, y], axis=-1).astype(float)
    ink = np.zeros((SIDE, SIDE))
    for start, end in pairwise(points):
        along = end - start
        part = ((pixels - start) * along).sum(-1) / max((along * along).sum(), 1e-6)
        nearest = start + np.clip(part, 0, 1)[..., None] * along
        distance = np.sqrt(((pixels - nearest) ** 2).sum(-1))
        ink = np.maximum(ink, np.clip(1.4 - distance, 0, 1))
    noisy = 255 * ink + between(-60, 60, SIDE, SIDE)
    return np.rint(np.clip(noisy, 0, 255)).astype(np.uint8)
