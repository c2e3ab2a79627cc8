"""Times two sides in turns, in processor time or by the clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def in_turns(
    sides: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.process_time
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each side in each of `rounds` turns after one that warms up, and what each gave last."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    given: dict[str, Any] = {}
    for turn in range(rounds + 1):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            start = clock()
            given[name] = sides[name]()
            if turn:
                seconds[name].append(clock() - start)
    return seconds, given


def row(part: str, what: str, seconds: Mapping[str, list[float]], samples: int | None, aim: str) -> dict[str, Any]:
    """Of the sides `ours` and the other one: samples/s (None: seconds), medians, and the ratio of each turn."""
    (_, ours), (peer, other) = seconds.items()
    if samples is None:
        values = [statistics.median(ours), statistics.median(other)]
        ratios = [one / two for one, two in zip(ours, other, strict=True)]
    else:
        values = [samples / statistics.median(ours), samples / statistics.median(other)]
        ratios = [two / one for one, two in zip(ours, other, strict=True)]
    return {
        "part": part, "what": what, "peer": peer, "ours": values[0], "other": values[1],
        "ratio": statistics.median(ratios), "ratios": ratios, "aim": aim, "clock": "processor time",
    }  # fmt: skip
