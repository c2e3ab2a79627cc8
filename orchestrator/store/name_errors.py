"""Words the errors for a name or an id prefix that matches no row, or more than one."""

from __future__ import annotations

from difflib import get_close_matches

from orchestrator.errors import Conflict, NotFound


def ambiguous(kind: str, prefix: str, candidates: list[str]) -> Conflict:
    """`kind`: job or trial. `candidates`: how each match is shown; the message lists at most five of them."""
    shown = ", ".join(candidates[:5]) + (", ..." if len(candidates) > 5 else "")
    return Conflict(f"{kind} {prefix!r} is ambiguous: {shown}; write more letters")


def unknown(kind: str, prefix: str, names: list[str]) -> NotFound:
    """`names`: every name and id that would have matched; the message suggests those most like `prefix`."""
    near = get_close_matches(prefix, dict.fromkeys(names), n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return NotFound(f"no {kind} has the name {prefix!r} or an id that starts so{hint}")
