"""The only place where tests make a process die at a named point: real code paths, and the kill is SIGKILL."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

_reached: Counter[str] = Counter()


def fault_point(point: str, where: str = "") -> None:
    """Kills this process when ORCHESTRATOR_CRASH_AT has `point` or `point:n` and it is reached for the n-th time.

    Several points are separated by commas. ORCHESTRATOR_CRASH_ONCE names a folder: who dies leaves a file there, named
    after the point and saying `where` it died, and no process dies at that point after it.
    Without the first variable it does nothing.
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
    """Whether no process has died at this point before; of two at once, one."""
    once = os.environ.get("ORCHESTRATOR_CRASH_ONCE")
    if not once:
        return True
    try:
        with (Path(once) / point).open("x") as file:
            file.write(where)
    except FileExistsError:
        return False
    return True
