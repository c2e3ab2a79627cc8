"""The only place where tests make a process die at a named point: the points are real code paths, the kill is SIGKILL."""

from __future__ import annotations

import os
import signal
from collections import Counter

_reached: Counter[str] = Counter()


def reach(point: str) -> None:
    """Kills this process when ORCHESTRATOR_CRASH_AT is `point` or `point:n` and it is reached for the n-th time.

    ORCHESTRATOR_CRASH_ONCE names a file: the first process to die makes it, and no process dies after that.
    Without the first variable it does nothing.
    """
    wanted = os.environ.get("ORCHESTRATOR_CRASH_AT")
    if not wanted:
        return
    name, _, count = wanted.partition(":")
    if name != point:
        return
    _reached[point] += 1
    if _reached[point] != int(count or 1):
        return
    once = os.environ.get("ORCHESTRATOR_CRASH_ONCE")
    if once:
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
    os.kill(os.getpid(), signal.SIGKILL)
