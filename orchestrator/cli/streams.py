"""Keeps a command running when nobody reads what it prints: closed streams, and readers that go away."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


def secure() -> None:
    """Opens what the shell has closed (`2>&-`), and lets messages to standard error never end the command.

    A descriptor below 3 that stays closed would be given to the next file that is opened, for example the database, and
    messages would be written into it.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)))
    encoding = sys.stderr.encoding if sys.stderr is not None else "utf-8"
    raw: Any = _Unread(2, "w", closefd=False)
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=True)


class _Unread(io.FileIO):
    """A stream whose output is dropped once its reader has gone (`submit |& head`), or its terminal was closed."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            _drop(self.fileno())
            return len(data)


def _drop(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


@contextlib.contextmanager
def output_may_be_unread() -> Iterator[None]:
    """Drops the rest of standard output if its reader goes away while the block prints."""
    try:
        yield
        sys.stdout.flush()
    except OSError:
        _drop(1)
