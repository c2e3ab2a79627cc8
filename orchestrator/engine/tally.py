"""The counts of what a driver has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Tally:
    """What a driver has done, for the last lines of `submit` and for tests."""

    started: int = 0
    finished: int = 0
    adopted: int = 0
    """Running trials that it took over from drivers that died."""
    already_done: int = 0
    """Trials that had ended before the driver started."""
    progress: int = 0
    """Reports and results so far."""
