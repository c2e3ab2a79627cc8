"""The error for data that are missing, unreadable or wrong."""

from __future__ import annotations


class DataError(Exception):
    """Data missing, unreadable, of the wrong count, or asked for out of turn. The message names set, place, remedy.

    Names in it come from lists, archives and folders of others: `str(error)` can be printed on every terminal.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """The text with control characters, and bytes that are no UTF-8, as escapes (backslash and code)."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
