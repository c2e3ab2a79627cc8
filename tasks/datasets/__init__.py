"""The only place that says which classification data sets are known."""

from __future__ import annotations

import difflib

from tasks.datasets.labelled.bundled import SMALL
from tasks.datasets.labelled.card import DIGEST, Card, Cut, held_out_images
from tasks.datasets.labelled.imagenet import LARGE
from tasks.datasets.labelled.kornblith12 import K12

__all__ = ["CARDS", "DIGEST", "Card", "Cut", "find", "held_out_images"]

CARDS: dict[str, Card] = {card.name: card for card in (*SMALL, *K12, *LARGE)}


def find(name: str) -> Card:
    """The card of a data set. Raises ValueError naming the nearest and all known names."""
    if name in CARDS:
        return CARDS[name]
    near = difflib.get_close_matches(name, CARDS, n=1, cutoff=0.0)
    raise ValueError(f"unknown data set {name!r}; nearest: {near[0]!r}; known: {', '.join(sorted(CARDS))}")
