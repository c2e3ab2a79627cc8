"""Makes text from others safe to show: error texts, file names, keys of checkpoints, words of the command line."""

from __future__ import annotations


def printable(text: object, limit: int | None = None, lines: bool = False) -> str:
    r"""`text` with whatever is not printable escaped as `repr` does: "\x1b[2J" for the sequence that clears a terminal.

    Escaped are control characters (C0, DEL, C1), marks that turn the direction of writing, unassigned characters and
    lone surrogates (bytes of a file name that are not UTF-8), so that the result can be encoded and looks like what it
    is. `lines`: line breaks and tabs stay, for a text of several lines. `limit`: the most characters of a result;
    longer ones end in "... (N characters)".

    The packages below orchestrator have their own for names and errors, `tasks.errors.printable`.
    """
    whole = str(text)
    cut = whole if limit is None else whole[:limit]  # first, so that no more than this is looked at
    parts = [cut] if cut.isprintable() else [_escaped(character, lines) for character in cut]
    if limit is None or (len(whole) <= limit and sum(map(len, parts)) <= limit):
        return "".join(parts)
    end = f"... ({len(whole)} characters)"
    room, kept = limit - len(end), []
    for part in cut if parts == [cut] else parts:
        room -= len(part)
        if room < 0:
            break
        kept.append(part)
    return "".join(kept) + end


def _escaped(character: str, lines: bool) -> str:
    if character.isprintable() or (lines and character in "\n\t"):
        return character
    return repr(character)[1:-1]
