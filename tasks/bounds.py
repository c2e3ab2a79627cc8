"""The bounds of the texts that a spec may hold: how long they are, and which characters they have."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

_NOT_SHOWN = r"\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
"""DEL, C1, and the marks that separate lines or turn the direction of writing."""
ONE_LINE = rf"^[^\x00-\x1f{_NOT_SHOWN}]*$"
SEVERAL_LINES = rf"^[^\x00-\x09\x0b-\x1f{_NOT_SHOWN}]*$"

MAX_LABEL = 200
Label = Annotated[str, Field(max_length=MAX_LABEL, pattern=ONE_LINE)]
"""A name or a title: one line."""
GroupName = Annotated[str, Field(max_length=4000, pattern=ONE_LINE)]
"""The values that form a group, one after the other."""
FilePath = Annotated[str, Field(min_length=1, max_length=1000, pattern=ONE_LINE)]
"""A path or a URI."""
Prose = Annotated[str, Field(max_length=4000, pattern=SEVERAL_LINES)]
"""A caption, or where published values come from: lines of text."""

MAX_SEED = 2**63 - 1
"""Of a trial: stores and torch count to it."""
MAX_NUMPY_SEED = 2**32 - 1
"""Of numpy's RandomState, which draws splits, and of samplers."""

_CONTROL = re.compile(rf"[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff{_NOT_SHOWN}]")


def control_character(text: str) -> int | None:
    """The position of the first character that acts on a terminal, or cannot be written in UTF-8, instead of being
    shown: control characters but line feed and tab, marks of direction, lone surrogates. None: there is none."""
    found = _CONTROL.search(text)
    return found.start() if found else None
