"""All labelled data sets by name."""

from __future__ import annotations

import difflib

from tasks.datasets.labelled.bundled import SMALL
from tasks.datasets.labelled.card import LabelledDataset
from tasks.datasets.labelled.imagenet import LARGE
from tasks.datasets.labelled.kornblith12 import K12

CARDS: dict[str, LabelledDataset] = {card.name: card for card in (*SMALL, *K12, *LARGE)}


def find(name: str) -> LabelledDataset:
    """The card of a data set. Raises ValueError naming the nearest and all known names."""
    if name in CARDS:
        return CARDS[name]
    near = difflib.get_close_matches(name, CARDS, n=1, cutoff=0.0)
    raise ValueError(f"unknown data set {name!r}; nearest: {near[0]!r}; known: {', '.join(sorted(CARDS))}")
