"""Predicts the depth of a wide image as the mean over square windows along its width, each also mirrored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SlidingPrediction:
    """Depth of every pixel, and what was not predicted."""

    depth: Tensor
    """(n, 1, height, width) in metres."""
    uncovered: int
    """Columns that no window covers: their depth is not predicted but set to the shortest one. Of KITTI's 1216 columns
    these are 9 at the right edge, outside of Garg's and Eigen's window."""


def window_starts(height: int, width: int, windows: int) -> list[int]:
    """First columns of the windows (height x height) in an image of this size, from the left edge on.

    Appendix E: 2 windows for NYUv2 (480 x 640, a step of 160), 16 for KITTI (352 x 1216, a step of 57).

    As in the paper's code the step is rounded down, so that the last window may end before the right edge: by less than
    `windows` columns. One window alone lies at the left. Raises ValueError for an image that is taller than wide.
    """
    if windows < 1 or width < height:
        raise ValueError(f"{windows} square windows along the width of an image of {height} x {width} (height x width)")
    step = (width - height) // (windows - 1) if windows > 1 else 0
    return [step * place for place in range(windows)]


def uncovered_columns(height: int, width: int, windows: int) -> list[int]:
    """Columns that no window covers. Raises ValueError as `window_starts`."""
    starts = window_starts(height, width, windows)
    covered = {column for start in starts for column in range(start, start + height)}
    return [column for column in range(width) if column not in covered]


def sliding_prediction(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    windows: int,
    *,
    flip: bool = True,
    shortest: float = 1e-3,
    at_once: int | None = None,
) -> SlidingPrediction:
    """The mean, at every pixel, of the predictions of all windows that cover it.

    `model`: images (n, 3, s, s) -> depth (n, 1, s, s), in eval mode. `images`: (n, 3, height, width). `flip`: each
    window's prediction is the mean of that and of its mirror image's. `shortest`: the depth of uncovered columns, in
    metres. `at_once`: crops in one forward pass (none: all, that is n * windows, twice as many with `flip`).

    Raises ValueError as `window_starts`.
    """
    count, _, height, width = images.shape
    starts = window_starts(height, width, windows)
    crops = torch.cat([images[..., start : start + height] for start in starts])
    if flip:
        crops = torch.cat([crops, crops.flip(-1)])
    predicted = torch.cat([model(part) for part in torch.split(crops, at_once or len(crops))])
    if flip:
        plain, mirrored = predicted.chunk(2)
        predicted = (plain + mirrored.flip(-1)) / 2
    total = predicted.new_zeros(count, 1, height, width)
    covering = predicted.new_zeros(width)
    for start, part in zip(starts, torch.split(predicted, count), strict=True):
        total[..., start : start + height] += part
        covering[start : start + height] += 1
    uncovered = covering == 0
    depth = torch.where(uncovered, shortest, total / covering.clamp(min=1))
    return SlidingPrediction(depth, int(uncovered.sum()))
