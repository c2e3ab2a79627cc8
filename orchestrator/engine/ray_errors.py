"""Says in one line, or in plain text, what an error of Ray means."""

from __future__ import annotations

import re

from ray.exceptions import RayTaskError


def last_line(error: BaseException) -> str:
    """The exception itself, below the traceback that came from another process."""
    return plain_lines(error)[-1]


def first_line(error: BaseException) -> str:
    """What happened; of an exception in a call, which begins with the name of the object, the exception itself."""
    return plain_lines(error)[-1 if isinstance(error, RayTaskError) else 0]


def plain_lines(error: BaseException) -> list[str]:
    """The lines of the message, without the colours that Ray puts into it."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", str(error)).strip()
    return (text or type(error).__name__).splitlines()
