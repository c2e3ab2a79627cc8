"""The only place that says how much of a cluster a job may use while others run on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SlotDemand:
    """What one driver wants of the cluster."""

    id: str
    priority: int
    demand: int
    """Trials it could run now (those that run included)."""
    slots: int
    """Trials of its kind that the empty cluster holds."""


def allocate_slots(wishes: Sequence[SlotDemand]) -> dict[str, int]:
    """Trials that each driver may have running: higher priority first, equal ones max-min fair.

    Fractions of the cluster are shared (one driver's trial may take a GPU where another's takes a CPU). Whoever is
    left a part, however small, may run one trial: Ray then decides who waits. Nothing is taken from a running trial.
    """
    left = 1.0
    granted: dict[str, float] = {}
    for priority in sorted({wish.priority for wish in wishes}, reverse=True):
        same = [wish for wish in wishes if wish.priority == priority]
        part = _max_min(left, {w.id: min(1.0, w.demand / w.slots) if w.slots else 0.0 for w in same})
        granted |= part
        left = max(0.0, left - sum(part.values()))
    return {w.id: max(1, math.floor(granted[w.id] * w.slots + 1e-6)) if granted[w.id] > 1e-9 else 0 for w in wishes}


def _max_min(left: float, demands: dict[str, float]) -> dict[str, float]:
    """Nobody gets more than asked; what the modest leave is shared among the others."""
    granted = {}
    waiting = sorted(demands.items(), key=lambda item: item[1])
    for number, (name, demand) in enumerate(waiting):
        granted[name] = min(demand, left / (len(waiting) - number))
        left -= granted[name]
    return granted
