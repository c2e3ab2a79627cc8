"""Which tokens of the search region are positive."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.tracking.positions import Grid


def positives(boxes: Tensor, grid: Grid) -> Tensor:
    """(n, rows, columns) bool: the cells that a box touches, its edges included. A box without area has none.

    `boxes` (n, 4): left, top, right, bottom as parts of the search region's sides, within 0 and 1. Source: SwinTrack's
    public code, which takes the cells from floor(left) to floor(right), both included.
    """
    rows, columns = grid
    steps = torch.tensor([columns, rows, columns, rows], device=boxes.device)
    left, top, right, bottom = (boxes * steps).floor().long().unbind(-1)
    across, down = (torch.arange(length, device=boxes.device) for length in (columns, rows))
    inside_x = (across >= left[:, None]) & (across <= right[:, None])
    inside_y = (down >= top[:, None]) & (down <= bottom[:, None])
    there = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return inside_y[:, :, None] & inside_x[:, None, :] & there[:, None, None]
