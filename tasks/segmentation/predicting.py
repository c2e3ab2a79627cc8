"""Predicts the class of every pixel of an image of any size: from squares that slide over it, or all at once."""

from __future__ import annotations

from collections.abc import Callable
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
        scores are brought to, bilinear, before the class with the highest one is taken."""
        scores = self._slid(model, images) if self.mode == "slide" else self._whole(model, images)
        if scores.shape[-2:] != size:
            scores = functional.interpolate(scores, size, mode="bilinear", align_corners=False)
        return scores.argmax(1)

    def _whole(self, model: Model, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        right, below = -width % self.multiple, -height % self.multiple
        return model(functional.pad(images, (0, right, 0, below)))[..., :height, :width]

    def _slid(self, model: Model, images: Tensor) -> Tensor:
        """The mean, at every pixel, of the scores of all squares that cover it."""
        count, _, height, width = images.shape
        images = functional.pad(images, (0, max(0, self.side - width), 0, max(0, self.side - height)))
        places = [
            (top, left)
            for top in starts(images.shape[-2], self.side, self.stride)
            for left in starts(images.shape[-1], self.side, self.stride)
        ]
        squares = torch.cat([images[..., top : top + self.side, left : left + self.side] for top, left in places])
        total: Tensor | None = None
        covering = images.new_zeros(images.shape[-2:])
        scored = (each for part in torch.split(squares, AT_ONCE) for each in model(part))
        for top, left in places:
            rows, columns = slice(top, top + self.side), slice(left, left + self.side)
            covering[rows, columns] += 1
            for row in range(count):
                scores = next(scored)
                if total is None:
                    total = scores.new_zeros(count, len(scores), *images.shape[-2:])
                total[row, :, rows, columns] += scores
        assert total is not None  # there is a square
        return (total / covering)[..., :height, :width]


def starts(length: int, side: int, stride: int) -> list[int]:
    """First pixels of squares along a side of an image of `length` pixels: `stride` apart, the last one moved back so
    that it ends where the image ends, as in mmsegmentation."""
    count = max(0, length - side + stride - 1) // stride + 1
    return [max(0, min(place * stride, length - side)) for place in range(count)]
