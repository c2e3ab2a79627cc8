"""Estimates when a job ends: plays what is left of its groups through on a number of slots."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.plan.state import RETRIABLE, GroupState, PlanState
from orchestrator.plan.trials import GroupId


@dataclass
class _Left:
    """What is left of a group."""

    ready: list[float] = field(default_factory=list)
    """Seconds of each trial that has not begun, forecast ones included."""
    tail: float = 0.0
    """Seconds of the longest chain that follows the group."""
    at_once: float = math.inf
    """How many of its trials may run at the same time: a search asks for a few at a time."""
    unfinished: int = 0
    waits_for: set[GroupId] = field(default_factory=set)
    fails: bool = False
    """True if a trial of it has failed: what needs its winner does not run."""


def seconds_left(state: PlanState, slots: int, pace: Callable[[str], float], begun: Mapping[str, float]) -> float:
    """Seconds until the last trial ends, on `slots` slots, with the longest chain first and winners that are not known
    yet forecast.

    `pace`: name of a stage -> seconds that its trials take for each estimated second. `begun`: key of a trial that
    runs, or stopped at a checkpoint -> seconds that it still takes. Trials that have failed, and what waits for them,
    do not count. It differs from the simulation of `plan` in two ways, for speed: slots are all alike, and a group
    waits for whole groups.
    """
    left, running = _left(state, pace, begun)
    followers: dict[GroupId, list[GroupId]] = defaultdict(list)
    for group_id, group in left.items():
        group.waits_for = {other for other in group.waits_for if left[other].unfinished or left[other].fails}
        for other in group.waits_for:
            followers[other].append(group_id)
    queue: list[tuple[float, float, GroupId]] = []
    inside: dict[GroupId, int] = defaultdict(int)

    def feed(group_id: GroupId) -> None:
        """Queues as many trials of a group as may run at once."""
        group = left[group_id]
        while not group.waits_for and group.ready and inside[group_id] < group.at_once:
            seconds = group.ready.pop()
            inside[group_id] += 1
            heapq.heappush(queue, (-(seconds + group.tail), seconds, group_id))

    for _, group_id in running:
        inside[group_id] += 1
    for group_id in left:
        feed(group_id)
    now = 0.0
    heapq.heapify(running)
    while True:
        while queue and len(running) < max(1, slots):
            _, seconds, group_id = heapq.heappop(queue)
            heapq.heappush(running, (now + seconds, group_id))
        if not running:
            return now
        now, group_id = heapq.heappop(running)
        left[group_id].unfinished -= 1
        inside[group_id] -= 1
        feed(group_id)
        if not left[group_id].unfinished and not left[group_id].fails:
            for follower in followers[group_id]:
                left[follower].waits_for.discard(group_id)
                feed(follower)


def _left(
    state: PlanState, pace: Callable[[str], float], begun: Mapping[str, float]
) -> tuple[dict[GroupId, _Left], list[tuple[float, GroupId]]]:
    """What is left of each group; and (seconds, group) of the trials that run. A trial of several groups counts in the
    first of them."""
    left: dict[GroupId, _Left] = {}
    running: list[tuple[float, GroupId]] = []
    for group_id, group in state.groups.items():
        stage_pace = pace(group.stage.name)
        each = left[group_id] = _Left(tail=group.tail * stage_pace, waits_for=_waits_for(state, group))
        if group.search is not None or group.rounds > 1:
            each.at_once = math.ceil(group.expected / max(1, group.rounds))
        for key, planned in group.trials.items():
            trial = state.trials[key]
            each.fails |= trial.snapshot.state in RETRIABLE
            if trial.groups[0] is not group:
                continue
            if trial.in_flight:
                running.append((begun.get(key, planned.seconds * stage_pace), group_id))
                each.unfinished += 1
            elif trial.unfinished or state.must_rerun(trial):
                each.ready.append(begun.get(key, planned.seconds * stage_pace))
        each.ready += [group.longest * stage_pace] * max(0, group.expected - len(group.trials))
        each.unfinished += len(each.ready)
    return left, running


def _waits_for(state: PlanState, group: GroupState) -> set[GroupId]:
    """The groups that must end before this one's trials can be placed; none if they are."""
    if group.waiting is not None and not group.waiting and (group.search is None or group.trials):
        return set()
    waits = set() if group.waiting is not None else {other.full_id for other in state.sources(group.stage, group.id)}
    for name in state.by_stage:
        if group.stage.name in state.stages.weight_consumers(name):
            waits |= {other.full_id for other in state.by_stage[name]}
    return waits - {group.full_id}
