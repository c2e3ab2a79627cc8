"""The error for data that are missing, unreadable or wrong."""

from __future__ import annotations


class DataError(Exception):
    """Data missing, unreadable, of the wrong count, or asked for out of turn. The message names set, place, remedy."""
