"""The scale-invariant logarithmic loss (SILog)."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.depth.metrics import LAMBDA


def silog(predicted: Tensor, depth: Tensor) -> Tensor:
    """sqrt(mean d^2 - 0.5 mean(d)^2) with d = log depth - log predicted, over all pixels that have a depth (> 0).

    `predicted`, `depth`: metres, of one shape, predictions above 0. One scalar over the whole batch, no mean of values
    per image: that is why the task's loss is over the batch. In float32 whatever the precision of the inputs.

    For a batch without a single depth, and for predictions without a single error, the gradient is 0, where the formula
    has none, and the loss is 0 (to 19 decimals). Raises ValueError when the shapes differ.
    """
    if predicted.shape != depth.shape:  # they would broadcast, to a wrong number
        raise ValueError(f"predictions of shape {tuple(predicted.shape)} for depths of shape {tuple(depth.shape)}")
    known = depth > 0
    one = torch.ones((), device=depth.device)
    difference = torch.where(known, depth, one).float().log() - torch.where(known, predicted, one).float().log()
    pixels = known.sum().clamp(min=1)
    squares, mean = difference.square().sum() / pixels, difference.sum() / pixels
    # below the smallest normal number the square root has no finite gradient
    return (squares - LAMBDA * mean.square()).clamp(min=torch.finfo(torch.float32).tiny).sqrt()
