"""Splits data into parts: stratified, seeded, disjoint, exhaustive, and the same in every version."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def stratified(labels: Sequence[int] | NDArray[np.int64], counts: Sequence[int], seed: int) -> list[Indices]:
    """Splits `range(len(labels))` into len(counts) parts of exactly these sizes, each class shared in proportion.

    Each part is in ascending order. Every class gives each part its exact share to within one image. The order within a
    class is drawn by numpy's RandomState, whose stream is guaranteed never to change. Raises ValueError when the counts
    do not add up to the number of labels.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if sum(counts) != len(labels) or min(counts) < 0:
        raise ValueError(f"parts of {list(counts)} images do not add up to the {len(labels)} there are")
    # Shuffle within classes, then deal: position (j + 1/2) / n of an image within its class orders all classes along
    # one line, and cutting that line at the counts takes nearly the same share of every class.
    random = np.random.RandomState(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    line = np.lexsort((labels, place))
    return [np.sort(part) for part in np.split(line, np.cumsum(counts)[:-1])]
