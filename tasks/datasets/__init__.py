"""The only place that says which classification data sets are known: sizes, metric, where they lie, how to get them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

Metric = Literal["top1", "mean_per_class"]


@dataclass(frozen=True)
class Card:
    """What is known of a data set before it is opened. Counts are expectations: the loaders check them on disk."""

    name: str
    title: str
    """As the paper's tables head the column."""
    classes: int
    metric: Metric
    """Which accuracy the paper reports (appendix, K12): top-1, or the mean of the accuracies of each class."""
    train: int
    val: int
    """`train + val` is the official training set. Without an official val these two are the published cut (tables
    of Kornblith et al. and BYOL); ours holds out `Classify.val_fraction` of the sum instead."""
    test: int
    source: Literal["wheel", "folder"]
    """`wheel`: the images ship inside a Python package that we depend on. `folder`: files under the data root."""
    official_val: bool
    how_to_get: str
    licence: str
    folder: str = ""
    """Under the data root."""
    needs: tuple[str, ...] = ()
    """Files and folders, under the data root, that must be there; a quick look, not a count."""

    @property
    def trainval(self) -> int:
        return self.train + self.val


_SKLEARN = "Ships with scikit-learn (sklearn.datasets.load_digits)."
_WHEELS = (
    Card(
        name="digits", title="Digits", classes=10, metric="top1", train=300, val=299, test=300,
        source="wheel", official_val=True, how_to_get=_SKLEARN, licence="CC BY 4.0 (UCI)",
    ),
    Card(
        name="digits-pretrain", title="Digits, other half", classes=10, metric="top1", train=748, val=150, test=0,
        source="wheel", official_val=True, how_to_get=_SKLEARN, licence="CC BY 4.0 (UCI)",
    ),
    Card(
        name="faces", title="Faces", classes=2, metric="mean_per_class", train=80, val=60, test=60,
        source="wheel", official_val=True, how_to_get="Ships with scikit-image (skimage.data.lfw_subset).",
        licence="see scikit-image's data folder",
    ),
)  # fmt: skip

CARDS: dict[str, Card] = {card.name: card for card in _WHEELS}


def find(name: str) -> Card:
    """The card of a data set. Raises ValueError naming the nearest and all known names."""
    if name in CARDS:
        return CARDS[name]
    near = difflib.get_close_matches(name, CARDS, n=1, cutoff=0.0)
    raise ValueError(f"unknown data set {name!r}; nearest: {near[0]!r}; known: {', '.join(sorted(CARDS))}")
