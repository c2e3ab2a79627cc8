"""Cuts template and search region out of frames, and maps boxes to them and back.

Pixels are areas: a frame's left and upper edges are at 0, as in the boxes of the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.datasets.sequences.types import Pixels

Floats = NDArray[np.float64]
Colour = tuple[int, int, int]
"""Red, green, blue."""
TEMPLATE_FACTOR, SEARCH_FACTOR = 2.0, 4.0
"""Size of the two crops over that of the object; see `region`. Source: SwinTrack's public configuration."""


@dataclass(frozen=True)
class Region:
    """A part of a frame, which may reach beyond it."""

    centre: tuple[float, float]
    """x, y in pixels of the frame."""
    sides: tuple[float, float]
    """Width and height in pixels of the frame."""

    def inside(self, boxes: Floats) -> Floats:
        """Boxes (.., 4) of the frame (left, top, right, bottom) as parts of the region's sides."""
        parts: Floats = (boxes - np.tile(self._corner, 2)) / np.tile(self.sides, 2)
        return parts

    def outside(self, boxes: Floats) -> Floats:
        """The inverse of `inside`."""
        whole: Floats = boxes * np.tile(self.sides, 2) + np.tile(self._corner, 2)
        return whole

    @property
    def _corner(self) -> Floats:
        return np.asarray(self.centre) - np.asarray(self.sides) / 2


def region(box: Floats, factor: float) -> Region:
    """The square around a box (left, top, right, bottom) with the area (w + c) (h + c), c = (factor - 1) (w + h) / 2.
    Source: SiamFC, whose context has factor 2, and SwinTrack."""
    width, height = box[2:] - box[:2]
    context = (factor - 1) * (width + height) / 2
    side = math.sqrt((width + context) * (height + context))
    return Region((float(box[0] + width / 2), float(box[1] + height / 2)), (side, side))


def with_least_size(box: Floats, least: float) -> Floats:
    """The box around the same centre, at least so wide and high."""
    centre, half = (box[:2] + box[2:]) / 2, np.maximum(box[2:] - box[:2], least) / 2
    return np.concatenate([centre - half, centre + half])


def clipped(box: Floats, width: float, height: float) -> Floats:
    """The part of a box that lies in a frame of this size; without area when none does."""
    return np.clip(box, 0, [width, height, width, height])


def has_area(box: Floats) -> bool:
    return bool(box[2] > box[0] and box[3] > box[1])


def corners(box: Floats) -> Floats:
    """x, y, width, height -> left, top, right, bottom; of one box or many (.., 4)."""
    return np.concatenate([box[..., :2], box[..., :2] + box[..., 2:]], -1)


def sized(box: Floats) -> Floats:
    """The inverse of `corners`."""
    return np.concatenate([box[..., :2], box[..., 2:] - box[..., :2]], -1)


def mean_colour(frame: Pixels) -> Colour:
    """Red, green and blue of the whole frame."""
    pixel: Any = Image.fromarray(frame).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    red, green, blue = pixel
    return red, green, blue


def cut(frame: Pixels, part: Region, side: int, colour: Colour | None = None) -> Image.Image:
    """The region as a square image of `side` pixels, bilinear and smoothed first. What lies beyond the frame has
    `colour`, by default the frame's mean."""
    height, width = frame.shape[:2]
    across = _Axis.of(part.centre[0], part.sides[0], width, side)
    down = _Axis.of(part.centre[1], part.sides[1], height, side)
    if across is None or down is None:
        return Image.new("RGB", (side, side), colour or mean_colour(frame))
    whole = (across.out, down.out) == ((0, side), (0, side))
    if whole and across.within(width) and down.within(height):
        return _resized(frame, across, down)
    colour = colour or mean_colour(frame)
    canvas = np.empty((down.last - down.first, across.last - across.first, 3), np.uint8)
    canvas[:] = colour
    rows, columns = down.known(height), across.known(width)
    canvas[
        rows.start - down.first : rows.stop - down.first, columns.start - across.first : columns.stop - across.first
    ] = frame[rows, columns]
    resized = _resized(canvas, across.moved(), down.moved())
    if whole:
        return resized
    out = Image.new("RGB", (side, side), colour)
    out.paste(resized, (across.out[0], down.out[0]))
    return out


def _resized(pixels: Pixels, across: _Axis, down: _Axis) -> Image.Image:
    """The part of the pixels that the axes take; only the pixels around it are handed to Pillow."""
    taken = np.ascontiguousarray(pixels[down.first : down.last, across.first : across.last])
    box = (across.low - across.first, down.low - down.first, across.high - across.first, down.high - down.first)
    size = (across.out[1] - across.out[0], down.out[1] - down.out[0])
    return Image.fromarray(taken).resize(size, Image.Resampling.BILINEAR, box=box)


@dataclass(frozen=True)
class _Axis:
    """Along one axis: which pixels of the crop show the frame, and what of the frame they show."""

    out: tuple[int, int]
    """First pixel of the crop, and the one after the last."""
    low: float
    high: float
    """What these show, in pixels of the frame; up to one pixel of the crop beyond it."""
    first: int
    last: int
    """The same in whole pixels."""

    @classmethod
    def of(cls, centre: float, length: float, size: int, side: int) -> _Axis | None:
        """None when no pixel of the crop shows the frame of `size` pixels."""
        start, step = centre - length / 2, length / side
        begin, end = max(0, math.floor(-start / step)), min(side, math.ceil((size - start) / step))
        if begin >= end:
            return None
        low, high = start + begin * step, start + end * step
        return cls((begin, end), low, high, math.floor(low), math.ceil(high))

    def within(self, size: int) -> bool:
        return self.first >= 0 and self.last <= size

    def known(self, size: int) -> slice:
        return slice(max(0, self.first), min(size, self.last))

    def moved(self) -> _Axis:
        """The same on a canvas that begins at `first`."""
        return _Axis(self.out, self.low - self.first, self.high - self.first, 0, self.last - self.first)
