"""Average precision of PASCAL VOC 2007: interpolated at eleven recalls."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RECALLS = 11
"""0, 0.1, ..., 1 (development kit of VOC 2007; from 2010 on VOC takes the area under all points instead)."""


def average_precision(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> float:
    """The mean, over eleven recalls, of the largest precision at that recall or a higher one, for one class.

    (n,) scores, and labels 1 (there), 0 (not there), -1 (ignored: all its objects are difficult). Images of equal score
    keep their order. Returns NaN when no image shows the class.
    """
    scores, labels = scores[labels >= 0], labels[labels >= 0]
    hits = labels[np.argsort(-scores, kind="stable")] == 1
    if not hits.any():
        return float("nan")
    recalled = np.cumsum(hits)
    precision = recalled / np.arange(1, len(hits) + 1)
    # Recalls are compared in whole numbers: 3 of 10 reach 0.3 also where 3 * 0.1 is a little more.
    reached = [(RECALLS - 1) * recalled >= tenth * recalled[-1] for tenth in range(RECALLS)]
    return float(np.mean([precision[points].max() for points in reached]))
