"""Tells whether a process that was noted down, by its id and when it began, still runs."""

from __future__ import annotations

import functools
import os

CLOCK_S = 2.0
"""Start times are counted from the boot time, which moves a little when the clock is set; no id comes again so soon."""


def began(pid: int) -> float:
    """When the process with this id began, in seconds since 1970. Raises psutil.NoSuchProcess."""
    import psutil

    return float(psutil.Process(pid).create_time())


@functools.cache
def _own(pid: int) -> float:
    return began(pid)


def this_began() -> float:
    """When this process began."""
    return _own(os.getpid())  # a forked child is another process


def is_running(pid: int, began: float) -> bool:
    """True if the process that had this id and began then still runs, or may: if nothing can be learnt of it.

    A zombie has ended: its parent has not yet asked how.
    """
    if pid == os.getpid():
        return abs(this_began() - began) < CLOCK_S
    import psutil

    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - began) < CLOCK_S and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
