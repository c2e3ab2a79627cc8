"""The only place that opens the real images which ship inside packages we depend on: digits and faces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tasks.base import DataError
from tasks.datasets import Card
from tasks.datasets.splits import Indices, stratified

SPLIT_SEED = 0
"""Of the fixed cuts below; part of what these data sets are, so no option."""


@dataclass(frozen=True)
class Part:
    """Images of one data set, with the cut that is fixed for it."""

    images: NDArray[np.uint8]
    """(n, height, width), grey."""
    labels: NDArray[np.int64]
    train: Indices
    val: Indices
    test: Indices


def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """1,797 digits of 8 x 8 pixels; the 17 grey levels are spread over 0..255."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.rint(data.images * (255 / 16)).astype(np.uint8), data.target.astype(np.int64)


def _faces() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """100 faces (label 1), then 100 crops without a face (label 0), of 25 x 25 pixels."""
    from skimage.data import lfw_subset

    images = np.rint(lfw_subset() * 255).astype(np.uint8)
    return images, np.repeat(np.array([1, 0], dtype=np.int64), 100)


def _half_of_digits(second: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels = _digits()
    half = stratified(labels, [899, 898], SPLIT_SEED)[int(second)]
    return images[half], labels[half]


@cache
def load(card: Card) -> Part:
    """Opens a data set of source `wheel`; kept in memory, for the next trial of this process.

    Raises DataError when the package holds other counts than the card expects.
    """
    images, labels = {
        "digits": lambda: _half_of_digits(second=False),
        "digits-pretrain": lambda: _half_of_digits(second=True),
        "faces": _faces,
    }[card.name]()
    expected = card.trainval + card.test
    if len(labels) != expected or len(np.unique(labels)) != card.classes:
        raise DataError(
            f"{card.name}: {len(labels)} images of {len(np.unique(labels))} classes in the installed package, "
            f"expected {expected} of {card.classes}; install the versions that pyproject.toml asks for"
        )
    train, val, test = stratified(labels, [card.train, card.val, card.test], SPLIT_SEED)
    return Part(images, labels, train, val, test)
