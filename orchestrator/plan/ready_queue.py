"""The only place that keeps trials in the order in which they should start: longest remaining chain first."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from orchestrator.plan.trials import PlannedTrial

Entry = tuple[float, int, int, int, str]
"""Minus the remaining seconds; then the spec's order: number of the stage's group, position; last, a serial and key."""


class Queue:
    """Ready trials. Taking the best one costs O(log n), however many wait and however few fit."""

    def __init__(self) -> None:
        self._heaps: dict[str, list[Entry]] = {}
        self._entries: dict[str, tuple[Entry, PlannedTrial]] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def put(self, planned: PlannedTrial, group: int) -> None:
        """Adds a trial, or moves it to its new place; `group` is its group's number in the spec's order."""
        self._serial += 1
        entry = (-planned.remaining, group, planned.position, self._serial, planned.key)
        self._entries[planned.key] = (entry, planned)
        heap = self._heaps.setdefault(planned.resources.model_dump_json(), [])
        heapq.heappush(heap, entry)

    def remove(self, key: str) -> None:
        """Takes a trial out, if it is there; its entry in the heap is dropped when it comes up."""
        self._entries.pop(key, None)

    def next(self, fits: Callable[[PlannedTrial], bool]) -> PlannedTrial | None:
        """Takes out and returns the first trial that fits. `fits` is asked for the first of each kind of resources."""
        heads = [heap for heap in self._heaps.values() if self._clean(heap)]
        for heap in sorted(heads, key=lambda heap: heap[0]):
            planned = self._entries[heap[0][-1]][1]
            if fits(planned):
                heapq.heappop(heap)
                del self._entries[planned.key]
                return planned
        return None

    def _clean(self, heap: list[Entry]) -> bool:
        """Drops entries that were removed or moved; whether any is left."""
        while heap and self._entries.get(heap[0][-1], (None,))[0] != heap[0]:
            heapq.heappop(heap)
        return bool(heap)
