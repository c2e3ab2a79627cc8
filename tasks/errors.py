"""The errors for data that are missing, unreadable or wrong, and for plugins that cannot be used."""

from __future__ import annotations


class DataError(Exception):
    """Data missing, unreadable, of the wrong count, or asked for out of turn. The message names set, place, remedy.

    Names in it come from lists, archives and folders of others: `str(error)` can be printed on every terminal.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class PluginError(Exception):
    """A plugin cannot be found, imported or used. The message is one line: file, what is wrong, remedy."""

    def __init__(self, module: str, what: str) -> None:
        super().__init__(module, what)
        self.module = module
        self.what = printable(what)

    def __str__(self) -> str:
        return f"plugin {printable(self.module)}: {self.what}"


def printable(text: str) -> str:
    """The text with control characters, and bytes that are no UTF-8, as escapes (backslash and code)."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
