"""Estimates when a job ends: plays what is left of its groups through on a number of slots."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.plan.state import RETRIABLE, GroupState, PlanState
from orchestrator.plan.trials import GroupId

_Trial = tuple[float, str]
"""Seconds that a trial takes, and its key; the key is empty for one that is forecast."""


@dataclass
class _Left:
    """What is left of a group."""

    ready: list[_Trial] = field(default_factory=list)
    """Trials that have not begun, forecast ones included."""
    tail: float = 0.0
    """Seconds of the longest chain that follows the group."""
    at_once: float = math.inf
    """How many of its trials may run at the same time: a search asks for a few at a time."""
    unfinished: int = 0
    running: int = 0
    waits_for: set[GroupId] = field(default_factory=set)
    fails: bool = False
    """True if a trial of it has failed, or none has a figure: what needs its winner does not run."""


def seconds_left(
    state: PlanState, slots: int, pace: Callable[[str], float], begun: Mapping[str, float], start_s: float = 0.0
) -> float:
    """Seconds until the last trial ends, on `slots` slots, with the longest chain first and winners that are not known
    yet forecast.

    `pace`: name of a stage -> seconds that its trials take for each estimated second. `begun`: key of a trial that
    runs, or stopped at a checkpoint -> seconds that it still takes. `start_s`: of every other trial, besides. Trials
    that have failed, and what waits for them, do not count. It differs from the simulation of `plan` in two ways, for
    speed: slots are all alike, and a group whose trials are not known yet waits for whole groups.
    """
    return _Play(state, pace, begun, start_s).end(max(1, slots))


class _Play:
    """A play of what is left; seconds count from now."""

    def __init__(
        self, state: PlanState, pace: Callable[[str], float], begun: Mapping[str, float], start_s: float
    ) -> None:
        self._state, self._begun, self._start_s = state, begun, start_s
        self._left: dict[GroupId, _Left] = {}
        self._running: list[tuple[float, str, GroupId]] = []
        self._queue: list[tuple[float, float, str, GroupId]] = []
        self._held: dict[str, list[list[str]]] = defaultdict(list)
        """Key of a trial that is not done -> for each trial that needs its weights, the keys that it still waits for,
        its own last."""
        self._waiting: dict[str, tuple[GroupId, float]] = {}
        """Key of a trial that waits for weights -> its group and its seconds."""
        for group_id, group in state.groups.items():
            self._left[group_id] = self._of(group, pace(group.stage.name))
        self._followers: dict[GroupId, list[GroupId]] = defaultdict(list)
        for group_id, left in self._left.items():
            left.waits_for = {o for o in left.waits_for if self._left[o].unfinished or self._left[o].fails}
            for other in left.waits_for:
                self._followers[other].append(group_id)

    def end(self, slots: int) -> float:
        """When the last trial ends."""
        for group_id in self._left:
            self._feed(group_id)
        heapq.heapify(self._running)
        now = 0.0
        while True:
            while self._queue and len(self._running) < slots:
                _, seconds, key, group_id = heapq.heappop(self._queue)
                heapq.heappush(self._running, (now + seconds, key, group_id))
            if not self._running:
                return now
            now, key, group_id = heapq.heappop(self._running)
            self._ended(key, group_id)

    def _ended(self, key: str, group_id: GroupId) -> None:
        group = self._left[group_id]
        group.unfinished -= 1
        group.running -= 1
        for waits in self._held.pop(key, ()):
            waits.remove(key)
            if len(waits) == 1:
                its_group, seconds = self._waiting.pop(waits[0])
                self._left[its_group].ready.append((seconds, waits[0]))
                self._feed(its_group)
        self._feed(group_id)
        if not group.unfinished and not group.fails:
            for follower in self._followers[group_id]:
                self._left[follower].waits_for.discard(group_id)
                self._feed(follower)

    def _feed(self, group_id: GroupId) -> None:
        """Queues as many trials of a group as may run at once."""
        group = self._left[group_id]
        while not group.waits_for and group.ready and group.running < group.at_once:
            seconds, key = group.ready.pop()
            group.running += 1
            heapq.heappush(self._queue, (-(seconds + group.tail), seconds, key, group_id))

    def _of(self, group: GroupState, pace: float) -> _Left:
        """What is left of a group. A trial of several groups counts in the first of them."""
        state, left = self._state, _Left(tail=group.tail * pace, waits_for=_waits_for(self._state, group))
        if group.rounds > 1:
            left.at_once = math.ceil(group.expected / group.rounds)
        for key, planned in group.trials.items():
            trial = state.trials[key]
            left.fails |= trial.snapshot.state in RETRIABLE
            if trial.groups[0] is not group:
                continue
            seconds = self._begun.get(key, planned.seconds * pace + self._start_s)
            if trial.in_flight:
                self._running.append((seconds, key, group.full_id))
                left.running += 1
            elif not (trial.unfinished or state.must_rerun(trial)):
                continue
            elif missing := [parent for parent in planned.needs if not state.has_weights(parent)]:
                waits = [*missing, key]
                self._waiting[key] = (group.full_id, seconds)
                for parent in missing:
                    self._held[parent].append(waits)
            else:
                left.ready.append((seconds, key))
            left.unfinished += 1
        left.fails |= group.complete and not any(map(state.has_result, group.trials))
        forecast = max(0, group.expected - len(group.trials))
        left.ready += [(group.longest * pace + self._start_s, "")] * forecast
        left.unfinished += forecast
        return left


def _waits_for(state: PlanState, group: GroupState) -> set[GroupId]:
    """The groups that must end before this one's trials can be placed; none if they are."""
    if group.waiting is not None and not group.waiting and (group.search is None or group.trials):
        return set()
    waits = set() if group.waiting is not None else {other.full_id for other in state.sources(group.stage, group.id)}
    for name in list(state.by_stage):
        if group.stage.name in state.stages.weight_consumers(name):
            waits |= {other.full_id for other in state.by_stage[name]}
    return waits - {group.full_id}
