"""Finds the valid names that are spelt most like a wrong one, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, allowed: Iterable[str], count: int = 1, cutoff: float = 0.5) -> list[str]:
    """At most `count` of the allowed names, the most similar first; none below `cutoff` (difflib's ratio, 0 to 1)."""
    return get_close_matches(word, list(dict.fromkeys(allowed)), n=count, cutoff=cutoff)
