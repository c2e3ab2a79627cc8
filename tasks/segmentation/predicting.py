"""Predicts the class of every pixel of an image of any size: from squares that slide over it, or all at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Model = Callable[[Tensor], Tensor]
"""(n, 3, h, w) -> a score for each class (n, classes, h, w)."""
AT_ONCE = 8
"""Squares of one forward pass."""


@dataclass(frozen=True)
class Predicting:
    """How images are given to the model; see TestOptions."""

    mode: Literal["slide", "whole"]
    side: int
    """Of a square, in pixels."""
    stride: int
    multiple: int

    def classes(self, model: Model, images: Tensor, size: tuple[int, int]) -> Tensor:
        """(n, *size) int64: the class of each pixel. `images` (n, 3, h, w), normalised; `size`: height and width that
        scores are brought to, bilinear, before the class with the highest one is taken.

        Holds the scores of AT_ONCE squares, or of as many pixels, and those of one image.
        """
        scores = self._slid(model, images) if self.mode == "slide" else self._whole(model, images)
        return torch.stack([_highest(each, size) for each in scores])

    def _whole(self, model: Model, images: Tensor) -> Iterator[Tensor]:
        height, width = images.shape[-2:]
        padded = functional.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        fit = max(1, AT_ONCE * self.side**2 // (padded.shape[-2] * padded.shape[-1]))
        for part in torch.split(padded, fit):
            for scores in model(part):
                yield scores[:, :height, :width]

    def _slid(self, model: Model, images: Tensor) -> Iterator[Tensor]:
        """The mean, at every pixel, of the scores of all squares that cover it."""
        height, width = images.shape[-2:]
        images = functional.pad(images, (0, max(0, self.side - width), 0, max(0, self.side - height)))
        places = [
            (slice(top, top + self.side), slice(left, left + self.side))
            for top in starts(images.shape[-2], self.side, self.stride)
            for left in starts(images.shape[-1], self.side, self.stride)
        ]
        covering = images.new_zeros(images.shape[-2:])
        for rows, columns in places:
            covering[rows, columns] += 1
        squares = torch.stack([image[:, rows, columns] for image in images for rows, columns in places])
        scored = (each for part in torch.split(squares, AT_ONCE) for each in model(part))
        for _ in images:
            total: Tensor | None = None
            for (rows, columns), scores in zip(places, itertools.islice(scored, len(places)), strict=True):
                total = scores.new_zeros(len(scores), *covering.shape) if total is None else total
                total[:, rows, columns] += scores
            assert total is not None  # there is a square
            yield (total / covering)[:, :height, :width]


def _highest(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """`scores` (classes, h, w) -> the class with the highest one, of every pixel of an image of `size`."""
    if scores.shape[-2:] != size:
        scores = functional.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
    return scores.argmax(0)


def starts(length: int, side: int, stride: int) -> list[int]:
    """First pixels of squares along a side of an image of `length` pixels: `stride` apart, the last one moved back so
    that it ends where the image ends, as in mmsegmentation."""
    count = max(0, length - side + stride - 1) // stride + 1
    return [max(0, min(place * stride, length - side)) for place in range(count)]
