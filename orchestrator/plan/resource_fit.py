"""Computes how many workers of a trial fit on the nodes of a cluster, and on which."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.spec.job import Resources

Amounts = Mapping[str, float]
"""Name of a Ray resource -> amount: {"CPU": 1, "GPU": 0.5}."""

UNLIMITED = 1_000_000
"""Workers that fit on a node if they need nothing of it."""

ROUNDING = 1e-9
"""Three thirds of a GPU fit on one GPU."""


@dataclass(frozen=True)
class Node:
    """The resources of one machine."""

    cpus: float
    gpus: float = 0.0
    custom: Mapping[str, float] = field(default_factory=dict)

    @property
    def amounts(self) -> dict[str, float]:
        return {"CPU": self.cpus, "GPU": self.gpus, **self.custom}


def worker_needs(resources: Resources) -> dict[str, float]:
    """The amounts that one worker of a trial takes from its node, those above 0."""
    amounts = {"CPU": resources.cpus, "GPU": resources.gpus, **resources.custom}
    return {name: amount for name, amount in amounts.items() if amount > 0}


def worker_slots(nodes: Iterable[Amounts], need: Amounts) -> int:
    """How many workers with this need fit on the nodes together, each worker on one node."""
    return sum(_slots_on(free, need) for free in nodes)


def _slots_on(free: Amounts, need: Amounts) -> int:
    ratios = ((free.get(name, 0.0) + ROUNDING) / amount for name, amount in need.items())
    return math.floor(min(ratios, default=UNLIMITED))


def fits(nodes: Iterable[Amounts], resources: Resources) -> bool:
    """True if all workers of a trial find room on the nodes. They may lie on different nodes."""
    return worker_slots(nodes, worker_needs(resources)) >= resources.workers


def amounts_text(amounts: Amounts) -> str:
    """ "CPU 1, GPU 0.5" """
    return ", ".join(f"{name} {amount:g}" for name, amount in amounts.items()) or "nothing"


class FreeResources:
    """The free resources of each node while trials start and end."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._free = [node.amounts for node in nodes]
        self._held: dict[str, tuple[list[int], dict[str, float]]] = {}

    def fits(self, resources: Resources) -> bool:
        return fits(self._free, resources)

    def take(self, key: str, resources: Resources) -> None:
        """Places the workers of trial `key`, each on the first node that has room. The trial must fit."""
        need, seats, missing = worker_needs(resources), list[int](), resources.workers
        for number, free in enumerate(self._free):
            count = min(missing, _slots_on(free, need))
            seats += [number] * count
            missing -= count
        assert not missing, "only a trial that fits is placed"
        self._held[key] = (seats, need)
        self._change(seats, need, -1)

    def release(self, key: str) -> None:
        """Frees what trial `key` holds."""
        seats, need = self._held.pop(key)
        self._change(seats, need, 1)

    def _change(self, seats: Iterable[int], need: Amounts, sign: int) -> None:
        for number in seats:
            free = self._free[number]
            for name, amount in need.items():
                free[name] = round(free.get(name, 0.0) + sign * amount, 9)
