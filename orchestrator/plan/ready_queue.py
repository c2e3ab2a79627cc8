"""Orders the trials that can start by the longest remaining chain, and knows which trials are in flight."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

from orchestrator.plan.failures import RepeatedErrors
from orchestrator.plan.state import PlanState, TrialEntry
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.states import TrialSnapshot, TrialState

Entry = tuple[float, int, int, int, str]
"""Minus the remaining seconds; then the spec's order: number of the group, position; last, a serial number and the
key."""


class Queue:
    """Trials by priority. Taking the first one costs O(log n), however many wait and however few fit."""

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
        """Removes a trial if it is queued; its heap entry is dropped when it reaches the top."""
        self._entries.pop(key, None)

    def next(self, fits: Callable[[PlannedTrial], bool]) -> PlannedTrial | None:
        """Removes and returns the first trial that fits. `fits` is called for the first trial of each kind of
        resources."""
        heads = [heap for heap in self._heaps.values() if self._clean(heap)]
        for heap in sorted(heads, key=lambda heap: heap[0]):
            planned = self._entries[heap[0][-1]][1]
            if fits(planned):
                heapq.heappop(heap)
                del self._entries[planned.key]
                return planned
        return None

    def _clean(self, heap: list[Entry]) -> bool:
        """Drops entries of trials that were removed or moved. True if any entry is left."""
        while heap and self._entries.get(heap[0][-1], (None,))[0] != heap[0]:
            heapq.heappop(heap)
        return bool(heap)


class ReadyTrials:
    """The queue of trials that can start, kept in step with the plan's state."""

    def __init__(self, state: PlanState) -> None:
        self._state = state
        self._queue = Queue()
        self._in_flight: set[str] = set()
        self.errors = RepeatedErrors()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """True if nothing runs and nothing can start."""
        return not self._queue and not self._in_flight

    def next(self, fits: Callable[[PlannedTrial], bool]) -> PlannedTrial | None:
        """Dispatches the first trial that fits."""
        planned = self._queue.next(fits)
        if planned is None:
            return None
        trial = self._state.trials[planned.key]
        trial.dispatched, trial.weights_requested = True, planned.keep_weights or trial.snapshot.pinned
        self.refresh([planned.key])
        return planned

    def requeue(self, trial: TrialEntry) -> None:
        """Makes the queue place a trial anew, after its priority has changed."""
        self._queue.remove(trial.planned.key)

    def on_change(self, trial: TrialEntry, before: TrialSnapshot) -> None:
        """Updates the queue after the trial's snapshot has changed from `before`."""
        for stage in self.errors.record(trial, before):
            self.refresh(key for group in self._state.by_stage[stage] for key in group.trials)
        key = trial.planned.key
        self.refresh([key, *self._state.children.get(key, ()), *trial.planned.needs])

    def refresh(self, keys: Iterable[str]) -> None:
        """Updates the queue for these trials; keys of other jobs' trials are ignored."""
        for key in keys:
            trial = self._state.trials.get(key)
            if trial is None:
                continue
            if trial.dispatched or (trial.in_flight and trial.wanted):
                self._in_flight.add(key)
            else:
                self._in_flight.discard(key)
            paused = any(self.errors.paused(group.stage.name) for group in trial.groups)
            if paused or not self._state.can_start(trial):
                self._queue.remove(key)
            elif key not in self._queue:
                self._queue.put(trial.planned, trial.groups[0].number)
            if trial.snapshot.state is TrialState.done and trial.snapshot.weights is None:
                self.refresh(trial.planned.needs)  # they rerun if this trial does
