"""Lets tests kill a process (SIGKILL) at a named point of the real code."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

_reached: Counter[str] = Counter()


def fault_point(point: str, where: str = "") -> None:
    """Kills this process when ORCHESTRATOR_CRASH_AT has `point` or `point:n` and it is reached for the n-th time.

    Several points are separated by commas. ORCHESTRATOR_CRASH_ONCE names a folder: the first process to die writes a
    file there, named after the point and with `where` as its content, and no other process dies at that point.
    Without the first variable this does nothing.
    """
    wanted = os.environ.get("ORCHESTRATOR_CRASH_AT")
    if not wanted:
        return
    for name, _, count in (entry.partition(":") for entry in wanted.split(",")):
        if name != point:
            continue
        _reached[point] += 1
        if _reached[point] == int(count or 1) and _first(point, where):
            os.kill(os.getpid(), signal.SIGKILL)


def _first(point: str, where: str) -> bool:
    """True if no process has died at this point before; of two at once, for one of them."""
    once = os.environ.get("ORCHESTRATOR_CRASH_ONCE")
    if not once:
        return True
    try:
        with (Path(once) / point).open("x") as file:
            file.write(where)
    except FileExistsError:
        return False
    return True
