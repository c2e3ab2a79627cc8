"""All labelled data sets by name."""

from __future__ import annotations

from tasks.datasets.labelled.bundled import SMALL
from tasks.datasets.labelled.card import LabelledDataset
from tasks.datasets.labelled.imagenet import LARGE
from tasks.datasets.labelled.kornblith12 import K12
from tasks.spelling import nearest

CARDS: dict[str, LabelledDataset] = {card.name: card for card in (*SMALL, *K12, *LARGE)}


def find(name: str) -> LabelledDataset:
    """The card of a data set. Raises ValueError naming the nearest and all known names."""
    if name in CARDS:
        return CARDS[name]
    near = "".join(f"nearest: {other!r}; " for other in nearest(name, CARDS))
    raise ValueError(f"unknown data set {name!r}; {near}known: {', '.join(sorted(CARDS))}")
