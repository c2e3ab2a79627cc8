"""Errors in data and names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DataError(Exception):
    """Data missing, unreadable, of the wrong count, or asked for out of turn. The message names set, place, remedy."""


def nearest(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """Up to `count` of the known names that are similar to a wrong one, best first."""
    return difflib.get_close_matches(name, sorted(known), n=count, cutoff=0.5)
