"""Changes an image and its class map together: scaled, cut to a square, mirrored, colours of the image changed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from tasks.datasets.class_maps.types import IGNORED, Pixels
from tasks.segmentation.options import SegmentationAugment

cv2.setNumThreads(0)  # worker processes are parallel already
TRIES = 10
"""Squares drawn at most besides the first, as in mmsegmentation."""


def scaled_size(height: int, width: int, short: float, long: float) -> tuple[int, int]:
    """(height, width) of an image whose shorter side becomes `short` pixels, or whose longer side becomes `long` if
    that makes it smaller; rounded as in mmcv."""
    factor = min(long / max(height, width), short / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resized(image: Pixels, size: tuple[int, int]) -> Pixels:
    """(height, width, 3), bilinear as in mmcv: between pixels of the old image, without smoothing."""
    if image.shape[:2] == size:
        return image
    made: Pixels = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return made


def resized_map(classes: Pixels, size: tuple[int, int]) -> Pixels:
    """(height, width): every pixel one of the old ones."""
    if classes.shape == size:
        return classes
    made: Pixels = cv2.resize(classes, size[::-1], interpolation=cv2.INTER_NEAREST)  # type: ignore[assignment]
    return made


@dataclass(frozen=True)
class Cut:
    """A square of an image, as large as the model's input."""

    image: Pixels
    """(side, side, 3); beyond the image 0."""
    classes: Pixels
    """(side, side); beyond the image IGNORED."""
    size: tuple[int, int]
    """Height and width of what shows the image, at the top left."""


def augmented(
    image: Pixels,
    classes: Pixels,
    short: int,
    long: int,
    side: int,
    options: SegmentationAugment,
    rng: np.random.Generator,
) -> Cut:
    """`image` (h, w, 3) and `classes` (h, w). `short`, `long`: see `scaled_size`, at a factor of 1. `side`: of the
    square."""
    factor = _factor(options, rng)
    size = scaled_size(classes.shape[0], classes.shape[1], short * factor, long * factor)
    image, classes = resized(image, size), resized_map(classes, size)
    top, left = _place(classes, side, options.most_of_one_class, rng)
    rows, columns = slice(top, top + side), slice(left, left + side)
    image, classes = image[rows, columns], classes[rows, columns]
    if rng.random() < options.flip:
        image, classes = image[:, ::-1], classes[:, ::-1]
    image = recoloured(image, options, rng)
    height, width = classes.shape
    square, labels = np.zeros((side, side, 3), np.uint8), np.full((side, side), IGNORED, np.uint8)
    square[:height, :width], labels[:height, :width] = image, classes
    return Cut(square, labels, (height, width))


def _factor(options: SegmentationAugment, rng: np.random.Generator) -> float:
    low, high = options.scale
    if not options.scale_step:
        return float(rng.uniform(low, high))
    return low + options.scale_step * int(rng.integers(int((high - low) / options.scale_step + 1e-6) + 1))


def _place(classes: Pixels, side: int, most: float, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of the square."""
    height, width = classes.shape
    top = left = 0
    for _ in range(1 + TRIES):
        top = int(rng.integers(max(height - side, 0) + 1))
        left = int(rng.integers(max(width - side, 0) + 1))
        if most == 1:
            break
        counts = np.bincount(classes[top : top + side, left : left + side].ravel(), minlength=256)
        counts = counts[:IGNORED]
        if np.count_nonzero(counts) > 1 and counts.max() < most * counts.sum():
            break
    return top, left


def recoloured(image: Pixels, options: SegmentationAugment, rng: np.random.Generator) -> Pixels:
    """(h, w, 3) in 8 bits: brightness, contrast, saturation and hue, each perhaps, as mmsegmentation's
    PhotoMetricDistortion (that of SSD without exchanged channels): contrast comes before or after the last two."""
    if not options.colours:
        return image
    wanted = rng.random(4) < options.colours
    if wanted[0]:
        image = _linear(image, 1, rng.uniform(-options.brightness, options.brightness))
    first, contrast = rng.random() < 0.5, rng.uniform(*options.contrast)
    if wanted[1] and first:
        image = _linear(image, contrast, 0)
    if wanted[2] or wanted[3]:
        hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV)
        if wanted[2]:
            hsv[..., 1] = _linear(hsv[..., 1], rng.uniform(*options.saturation), 0)  # type: ignore[arg-type]
        if wanted[3]:
            hue = hsv[..., 0].astype(np.int64) + rng.integers(-options.hue, options.hue + 1)
            hsv[..., 0] = hue % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)  # type: ignore[assignment]
    if wanted[1] and not first:
        image = _linear(image, contrast, 0)
    return image


def _linear(pixels: Pixels, factor: float, added: float) -> Pixels:
    """Cut off at 0 and 255, rounded down."""
    table = np.clip(np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(added), 0, 255).astype(np.uint8)
    changed: Pixels = table[pixels]
    return changed
