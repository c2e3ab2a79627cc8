"""Does something as a user without the rights of the one who runs the tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def as_ordinary_user(work: Callable[[], Any]) -> str:
    """The text of what `work` returns or raises, in a process that may not write everywhere: root becomes nobody."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            text = str(work())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text
