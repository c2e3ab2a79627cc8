"""Large-scale jitter of an image with its objects: scale, crop, flip; and the same without anything random."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.datasets.instances.types import Floats, Instances, Integers, Pixels
from tasks.detection.options import DetectionAugment

cv2.setNumThreads(0)  # worker processes are parallel already; torch has one thread there too


@dataclass(frozen=True)
class Drawn:
    """What is done to one image."""

    height: int
    width: int
    """To which the whole image is scaled."""
    top: int
    left: int
    """Corner of the part that is kept, in the scaled image before it is flipped."""
    flip: bool

    def kept(self, side: int) -> tuple[int, int]:
        """Height and width of that part."""
        return min(self.height, side), min(self.width, side)


@dataclass(frozen=True)
class Shown:
    """An image in the upper left corner of a square, with what it shows of k objects."""

    image: Pixels
    """(3, side, side); black where the image does not reach."""
    size: tuple[int, int]
    """Height and width of the image within."""
    boxes: NDArray[np.float32]
    """(k, 4): left, top, right and lower edge in pixels of the square."""
    labels: Integers
    """(k,): the place of each class in the list of classes."""
    masks: Pixels
    """(k, side, side): 0 or 1."""


def scaled_size(height: int, width: int, side: int, factor: float = 1.0) -> tuple[int, int]:
    """Height and width of an image whose longer side becomes `side` times the factor, a pixel at least."""
    ratio = side / max(height, width) * factor
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def draw(augment: DetectionAugment, height: int, width: int, side: int, random: np.random.Generator) -> Drawn:
    """For an image of this size. Draws the same numbers whatever they come to."""
    factor, down, across, flip = random.random(4)
    low, high = augment.scale
    scaled = scaled_size(height, width, side, low + (high - low) * factor)
    top, left = (int(at * (max(0, length - side) + 1)) for at, length in zip((down, across), scaled, strict=True))
    return Drawn(*scaled, top, left, bool(flip < augment.flip))


def shown(image: Pixels, objects: Instances, drawn: Drawn, side: int, least_side: float) -> Shown:
    """The image and its objects to learn, as drawn.

    An object whose box the crop cuts gets the box of what is left of its mask, as in mmdetection's and Detectron2's
    configurations of large-scale jitter (there every object does); others keep theirs, scaled. Objects of which less
    than `least_side` pixels along a side, or no pixel of the mask, are left are dropped.
    """
    pixels, size = _cut(image, drawn, side)
    chosen = np.flatnonzero(objects.learnt)
    boxes, whole = _moved(objects.boxes[chosen], (objects.height, objects.width), drawn, size)
    sides = boxes[:, 2:] - boxes[:, :2]
    masks, kept = list[Pixels](), list[int]()
    for row in np.flatnonzero((sides >= least_side).all(1)).tolist():
        mask = _mask(objects, int(chosen[row]), drawn, size, side)
        filled = _tight(mask)
        if filled is None:
            continue
        if not whole[row]:
            boxes[row] = filled
            if min(filled[2] - filled[0], filled[3] - filled[1]) < least_side:
                continue
        masks.append(mask)
        kept.append(row)
    stacked = np.stack(masks) if masks else np.zeros((0, side, side), np.uint8)
    return Shown(pixels, size, boxes[kept].astype(np.float32), objects.labels[chosen[kept]], stacked)


def _cut(image: Pixels, drawn: Drawn, side: int) -> tuple[Pixels, tuple[int, int]]:
    """The scaled, cut and flipped image in a square, channels first; and its size there.

    Bilinear without smoothing before, as mmdetection scales images.
    """
    scaled = cv2.resize(image, (drawn.width, drawn.height), interpolation=cv2.INTER_LINEAR)
    height, width = drawn.kept(side)
    part = scaled[drawn.top : drawn.top + height, drawn.left : drawn.left + width]
    out = np.zeros((3, side, side), np.uint8)
    out[:, :height, :width] = (part[:, ::-1] if drawn.flip else part).transpose(2, 0, 1)
    return out, (height, width)


def _moved(
    boxes: Floats, size: tuple[int, int], drawn: Drawn, kept: tuple[int, int]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Boxes (k, 4) of an image of this size in the part that is kept, cut to it; and whether each is whole there."""
    across = np.array([drawn.width / size[1], drawn.height / size[0]] * 2)
    moved = boxes * across - np.array([drawn.left, drawn.top] * 2)
    limits = np.array([kept[1], kept[0]] * 2)
    cut = moved.clip(0, limits)
    whole = (np.abs(cut - moved) < 1e-6).all(1)
    if drawn.flip:
        cut[:, [0, 2]] = kept[1] - cut[:, [2, 0]]
    return cut, whole


def _mask(objects: Instances, index: int, drawn: Drawn, kept: tuple[int, int], side: int) -> Pixels:
    """(side, side): a mask in the part that is kept; every pixel is the nearest one of the image."""
    mask = objects.mask(index).view(np.uint8)
    rows, columns = (
        np.minimum(((np.arange(length) + start + 0.5) * (of / scaled)).astype(np.int64), of - 1)
        for length, start, of, scaled in zip(
            kept, (drawn.top, drawn.left), mask.shape, (drawn.height, drawn.width), strict=True
        )
    )
    if drawn.flip:
        columns = columns[::-1]
    out = np.zeros((side, side), np.uint8)
    inside = _tight(mask)
    if inside is None:
        return out
    left, top, right, bottom = inside
    # of the square only where the object may be: most are much smaller than the image
    down = np.flatnonzero((rows >= top) & (rows < bottom))
    across = np.flatnonzero((columns >= left) & (columns < right))
    if len(down) and len(across):
        out[down[0] : down[-1] + 1, across[0] : across[-1] + 1] = mask[rows[down]][:, columns[across]]
    return out


def _tight(mask: Pixels) -> tuple[int, int, int, int] | None:
    """Left, top, right and lower edge of what a mask covers; None: nothing."""
    x, y, width, height = cv2.boundingRect(mask)
    return (x, y, x + width, y + height) if width else None
