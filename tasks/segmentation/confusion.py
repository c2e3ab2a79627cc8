"""Figures of segmentation from one confusion matrix, whose whole numbers add up exactly over images and workers."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Counts = NDArray[np.int64]
"""(classes, classes): pixels by true class (row) and predicted class."""


def confusion(predicted: Tensor, truth: Tensor, classes: int) -> Counts:
    """(classes, classes): pixels by true class and predicted class. Pixels whose truth is no class
    (IGNORED) are left out. Both are integers of one shape, on one device; `predicted` is a class everywhere."""
    cells = torch.add(predicted.long(), truth, alpha=classes).flatten()
    # those of IGNORED are counted too, in rows that are cut off: ten times as fast as to select the others before
    counts = torch.bincount(cells, minlength=classes * classes)[: classes * classes]
    found: Counts = counts.view(classes, classes).cpu().numpy()
    return found


def ious(counts: Counts) -> NDArray[np.float64]:
    """(classes,): intersection over union of each class; NaN for one that is neither there nor predicted."""
    both = np.diag(counts).astype(np.float64)
    union = counts.sum(0) + counts.sum(1) - both
    shares: NDArray[np.float64] = np.divide(both, union, out=np.full(len(both), np.nan), where=union > 0)
    return shares


def figures(counts: Counts) -> dict[str, float]:
    """mIoU, mean accuracy of classes and accuracy of pixels, as fractions, as mmsegmentation has them: a class that is
    predicted and not there counts in mIoU (with 0); one without either counts nowhere. Without a labelled pixel, 0."""
    there, right = counts.sum(1), np.diag(counts)
    if not there.sum():
        return {"miou": 0.0, "macc": 0.0, "aacc": 0.0}
    known = there > 0
    return {
        "miou": float(np.nanmean(ious(counts))),
        "macc": float((right[known] / there[known]).mean()),
        "aacc": float(right.sum() / there.sum()),
    }


def added(parts: Iterable[Counts]) -> Counts:
    """The sum of matrices, of which there is one at least."""
    total: Counts = functools.reduce(np.add, parts)
    return total
