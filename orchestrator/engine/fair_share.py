"""Divides the slots of a cluster among the drivers that use it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ROUNDING = 1e-6
"""Three thirds of eight slots are eight slots."""


@dataclass(frozen=True)
class SlotDemand:
    """The slots that one driver asks for."""

    id: str
    priority: int
    demand: int
    """Trials it could run now, including those that it runs."""
    slots: int
    """How many trials of its kind the empty cluster holds."""


def allocate_slots(demands: Sequence[SlotDemand]) -> dict[str, int]:
    """How many trials each driver may run, by its id: higher priority first, max-min fair among equal priorities.

    Shares are fractions of the cluster, because a trial of one driver may need a GPU where that of another needs a CPU.
    A driver whose share is smaller than one trial may run one; Ray then decides which trial waits. Running trials are
    never stopped for this.
    """
    remaining = 1.0
    shares: dict[str, float] = {}
    for priority in sorted({driver.priority for driver in demands}, reverse=True):
        level = [driver for driver in demands if driver.priority == priority]
        wanted = {driver.id: min(1.0, driver.demand / driver.slots) if driver.slots else 0.0 for driver in level}
        granted = _max_min(remaining, wanted)
        shares |= granted
        remaining = max(0.0, remaining - sum(granted.values()))
    return {driver.id: _whole_slots(shares[driver.id], driver.slots) for driver in demands}


def _whole_slots(share: float, slots: int) -> int:
    if share <= 1e-9:
        return 0
    return max(1, math.floor(share * slots + ROUNDING))


def _max_min(available: float, demands: dict[str, float]) -> dict[str, float]:
    """Max-min fair shares: no driver gets more than it demands; what is not demanded is shared among the others."""
    granted = {}
    ascending = sorted(demands.items(), key=lambda item: item[1])
    for served, (name, demand) in enumerate(ascending):
        granted[name] = min(demand, available / (len(ascending) - served))
        available -= granted[name]
    return granted
