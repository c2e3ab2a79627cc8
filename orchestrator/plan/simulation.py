"""Simulates how trials fill a cluster, to predict when a job ends."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.plan.durations import DurationModel, architecture
from orchestrator.plan.planner import Planner
from orchestrator.plan.search_forecast import Forecast, History
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.spec.job import JobSpec, Resources
from tasks.backbones.spec import BackboneSpec
from workers.checkpoint import KEPT

Lookup = Callable[[list[str]], Mapping[str, TrialSnapshot]]
"""Returns snapshots by key, as `store.trials.snapshots` does; unknown keys are left out."""

BYTES = 4
"""Of a parameter: weights and optimizer state are kept in fp32."""

CHECKPOINT = 3 * (KEPT + 1)
"""Copies of the parameters in a running trial's folder: weights and AdamW's two moments, in each checkpoint that is
kept and in the next one, which is written beside them."""


@dataclass(frozen=True)
class Node:
    """What one machine offers."""

    cpus: float
    gpus: float = 0.0
    custom: Mapping[str, float] = field(default_factory=dict)


Slots = Sequence[Node]
"""The cluster."""


class _Sizes:
    """Number of parameters of trials: as recorded, else as computed, each backbone once."""

    def __init__(self, speed: DurationModel, parameters: Callable[[BackboneSpec], int] | None) -> None:
        self._speed = speed
        self._parameters = parameters
        self._known: dict[str, int] = {}
        self.complete = True
        """Whether every size that was asked for is known."""

    def of(self, planned: PlannedTrial) -> int:
        """0 where it is not known."""
        recorded = self._speed.parameters(planned.spec)
        if recorded is not None:
            return recorded
        if self._parameters is None:
            self.complete = False
            return 0
        name = architecture(planned.spec.backbone)
        if name not in self._known:
            self._known[name] = self._parameters(planned.spec.backbone)
        return self._known[name]


class _Room:
    """What is free on each node. Workers of a trial may lie on different nodes; one worker lies on one node."""

    def __init__(self, slots: Slots) -> None:
        self._free = [_offers(node) for node in slots]
        self._held: dict[str, list[tuple[int, dict[str, float]]]] = {}

    def fits(self, planned: PlannedTrial) -> bool:
        return self.seats(planned.resources) is not None

    def take(self, planned: PlannedTrial) -> None:
        seats = self.seats(planned.resources)
        assert seats is not None, "asked only for what fits"
        need = _needs(planned.resources)
        self._held[planned.key] = [(node, need) for node in seats]
        for node in seats:
            self._change(node, need, -1)

    def release(self, key: str) -> None:
        for node, need in self._held.pop(key):
            self._change(node, need, 1)

    def _change(self, node: int, need: dict[str, float], sign: int) -> None:
        free = self._free[node]
        for name, amount in need.items():
            free[name] = round(free.get(name, 0.0) + sign * amount, 9)  # thirds of a GPU add up to one

    def seats(self, resources: Resources) -> list[int] | None:
        """The node of each worker, the first that has room; None when some worker finds none."""
        need, seats = _needs(resources), []
        taken: dict[int, int] = defaultdict(int)
        for _ in range(resources.workers):
            for node, free in enumerate(self._free):
                times = taken[node] + 1
                if all(free.get(name, 0.0) >= round(times * amount, 9) for name, amount in need.items()):
                    taken[node] += 1
                    seats.append(node)
                    break
            else:
                return None
        return seats


def left(known: TrialSnapshot, first_epoch: int) -> float:
    """The part of a begun trial's own epochs (from `first_epoch` on) that is still to run, 0 to 1."""
    return (known.epochs - max(known.epoch, first_epoch)) / (known.epochs - first_epoch)


class _Simulation:
    """A job run against a clock by the planner itself; without `room`, on a cluster without limits."""

    def __init__(
        self, job: JobSpec, known: Lookup, speed: DurationModel, room: _Room | None, sizes: _Sizes, history: History
    ) -> None:
        self.planner = Planner(job, speed)
        self._searches = Forecast(job, self.planner, history)
        self.done: set[str] = set()
        self.left: dict[str, float] = {}
        """Part of a running trial that is still to run."""
        self.ran: list[PlannedTrial] = []
        self.seconds: dict[str, float] = {}
        self.end = 0.0
        self.peak = 0
        """Parameters of the trials that ran at once, at the worst moment."""
        self._tell(known)
        self.known_groups = {(planned.stage, planned.group) for planned in self.planner.placed}
        self.known_groups -= set(self.planner.searching())
        self._run(room, sizes)

    @property
    def forecast_points(self) -> int:
        return self._searches.forecast

    def _tell(self, known: Lookup) -> None:
        """Teaches the planner what is recorded, and what is recorded of the trials that follow from that."""
        told = 0
        self._searches.follow()
        while told < len(self.planner.placed):
            new = {planned.key: planned.spec for planned in self.planner.placed[told:]}
            told = len(self.planner.placed)
            outside = set(self.planner.outside())
            for key, state in known(sorted({*new, *outside})).items():
                if state.state in (TrialState.done, TrialState.diverged):
                    self.done |= {key} - outside
                    self.planner.update(key, state)
                    self._searches.ended(key)
                elif state.state in (TrialState.running, TrialState.stopped) and state.epochs:
                    self.left[key] = left(state, new[key].first_epoch if key in new else 0)
            self._searches.follow()

    def _run(self, room: _Room | None, sizes: _Sizes) -> None:
        together = 0
        running: dict[str, PlannedTrial] = {}
        ends: list[tuple[float, int, str]] = []
        while True:
            self._searches.suggest()
            while planned := self.planner.next(room.fits if room else _anything):
                if room:
                    room.take(planned)
                seconds = planned.seconds * self.left.get(planned.key, 1.0)
                self.ran.append(planned)
                self.seconds[planned.key] = seconds
                running[planned.key] = planned
                together += sizes.of(planned)
                heapq.heappush(ends, (self.end + seconds, len(self.ran), planned.key))
            if not ends:
                return
            self.peak = max(self.peak, together)
            self.end, _, key = heapq.heappop(ends)
            ended = running.pop(key)
            together -= sizes.of(ended)
            self.planner.update(key, _as_forecast(ended))
            self._searches.ended(key)
            if room:
                room.release(key)


def _anything(planned: PlannedTrial) -> bool:
    return True


def _as_forecast(planned: PlannedTrial) -> TrialSnapshot:
    """A result worse than any recorded one, the better the earlier the trial stands in its group."""
    worst = 1e12 + planned.position
    figure = -worst if planned.spec.task.mode == "max" else worst
    return TrialSnapshot(TrialState.done, figures={planned.spec.task.metric: figure}, weights=("forecast", ""))


def _offers(node: Node) -> dict[str, float]:
    return {"cpus": node.cpus, "gpus": node.gpus, **node.custom}


def _needs(resources: Resources) -> dict[str, float]:
    """Of one worker."""
    amounts = {"cpus": resources.cpus, "gpus": resources.gpus, **resources.custom}
    return {name: amount for name, amount in amounts.items() if amount > 0}
