"""The only place that says what a job would cost before it runs: trials, hours, makespan, lower bound, disk."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.plan.durations import Speed, architecture
from orchestrator.plan.expansion import Planned
from orchestrator.plan.planner import Planner
from orchestrator.plan.search_forecast import Forecast, History
from orchestrator.records.states import Known, TrialState
from orchestrator.spec.job import JobSpec, Resources
from tasks.backbones.model import BackboneSpec
from workers.checkpoint import KEPT

Lookup = Callable[[list[str]], Mapping[str, Known]]
"""What is known of trials by their keys, absent ones left out: `Store.known`."""

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


@dataclass(frozen=True)
class StageCost:
    """A row of the table."""

    name: str
    groups: int
    trials: int
    """Places; a trial that an earlier stage places already is counted here too, but costs nothing here."""
    done: int
    gpu_hours: float
    """Of the trials that are still to run, as `cpu_hours`."""
    cpu_hours: float
    forecast: bool
    """Whether some of its trials depend on winners that are not known yet."""


@dataclass(frozen=True)
class Cost:
    """What a job would cost from here on. Hours are estimates; `basis` says of what."""

    stages: list[StageCost]
    trials: int
    """Different ones, over all stages."""
    done: int
    gpu_hours: float
    cpu_hours: float
    makespan_hours: float | None
    """With the longest remaining chain first on the given cluster; None when some trial fits on no node."""
    lower_bound_hours: float | None
    """max(work / slots, longest chain): no order of the trials is faster. None when the cluster lacks a resource."""
    longest_chain_hours: float
    disk_bytes: int | None
    """Weights that are kept, and checkpoints of the trials that run at once; data, logs and the store not counted.
    None without parameter counts."""
    measured: int
    """Trials still to run whose time comes from recorded step times; that of the others is guessed."""
    basis: list[str]
    """A line on where each number comes from."""
    problems: list[str]
    """A line on each kind of trial that fits on no node."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def cost(
    job: JobSpec,
    known: Lookup,
    speed: Speed,
    slots: Slots,
    parameters: Callable[[BackboneSpec], int] | None = None,
    history: History | None = None,
) -> Cost:
    """What is left of `job` on a cluster of `slots`.

    Stages whose trials depend on winners are forecast with the first trial of a group as its winner, unless better
    is known; points that a search has yet to ask for with the middle of its ranges, run in full. Failed and cancelled
    trials count as still to run; running and stopped ones with the epochs that they have left.
    Trials that may do with fewer workers (`min_workers`) have as many as the cluster has room for when it is empty.
    `parameters`: number of parameters of a backbone, asked where none was recorded.
    """
    job, fewer = _on(job, slots)
    sizes = _Sizes(speed, parameters)
    ideal = _Simulation(job, known, speed, None, sizes, history or {})
    problems = _too_large(ideal.ran, slots)
    real = ideal if problems else _Simulation(job, known, speed, _Room(slots), sizes, history or {})
    measured = sum(planned.measured for planned in ideal.ran)
    kept = {planned.key: planned for planned in ideal.planner.placed if planned.keep_weights}
    disk = BYTES * (sum(map(sizes.of, kept.values())) + CHECKPOINT * real.peak)
    bound = _bound(ideal, slots)
    return Cost(
        stages=_stages(job, ideal),
        trials=len({*ideal.seconds, *ideal.done}),
        done=len(ideal.done),
        gpu_hours=sum(_hours(planned, ideal.seconds, "gpus") for planned in ideal.ran),
        cpu_hours=sum(_hours(planned, ideal.seconds, "cpus") for planned in ideal.ran),
        makespan_hours=None if problems else real.end / 3600,
        lower_bound_hours=None if bound is None else bound / 3600,
        longest_chain_hours=ideal.end / 3600,
        disk_bytes=disk if sizes.complete and not problems else None,
        measured=measured,
        basis=[*_basis(ideal, measured, sizes.complete), *fewer],
        problems=problems,
    )


class _Sizes:
    """Number of parameters of trials: as recorded, else as computed, each backbone once."""

    def __init__(self, speed: Speed, parameters: Callable[[BackboneSpec], int] | None) -> None:
        self._speed = speed
        self._parameters = parameters
        self._known: dict[str, int] = {}
        self.complete = True
        """Whether every size that was asked for is known."""

    def of(self, planned: Planned) -> int:
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

    def fits(self, planned: Planned) -> bool:
        return self.seats(planned.resources) is not None

    def take(self, planned: Planned) -> None:
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


def left(known: Known, first_epoch: int) -> float:
    """The part of a begun trial's own epochs (from `first_epoch` on) that is still to run, 0 to 1."""
    return (known.epochs - max(known.epoch, first_epoch)) / (known.epochs - first_epoch)


class _Simulation:
    """A job run against a clock by the planner itself; without `room`, on a cluster without limits."""

    def __init__(
        self, job: JobSpec, known: Lookup, speed: Speed, room: _Room | None, sizes: _Sizes, history: History
    ) -> None:
        self.planner = Planner(job, speed)
        self._searches = Forecast(job, self.planner, history)
        self.done: set[str] = set()
        self.left: dict[str, float] = {}
        """Part of a running trial that is still to run."""
        self.ran: list[Planned] = []
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
                    self.planner.learn(key, state)
                    self._searches.ended(key)
                elif state.state in (TrialState.running, TrialState.stopped) and state.epochs:
                    self.left[key] = left(state, new[key].first_epoch if key in new else 0)
            self._searches.follow()

    def _run(self, room: _Room | None, sizes: _Sizes) -> None:
        together = 0
        running: dict[str, Planned] = {}
        ends: list[tuple[float, int, str]] = []
        while True:
            self._searches.ask()
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
            self.planner.learn(key, _as_forecast(ended))
            self._searches.ended(key)
            if room:
                room.release(key)


def _anything(planned: Planned) -> bool:
    return True


def _as_forecast(planned: Planned) -> Known:
    """A result worse than any recorded one, the better the earlier the trial stands in its group."""
    worst = 1e12 + planned.position
    figure = -worst if planned.spec.task.mode == "max" else worst
    return Known(TrialState.done, figures={planned.spec.task.metric: figure}, weights=("forecast", ""))


def _offers(node: Node) -> dict[str, float]:
    return {"cpus": node.cpus, "gpus": node.gpus, **node.custom}


def _on(job: JobSpec, slots: Slots) -> tuple[JobSpec, list[str]]:
    """The job with as many workers per trial as fit on the empty cluster, at least `min_workers`; a line where these
    are fewer than it asks for."""
    lines: dict[str, None] = {}

    def fit(resources: Resources) -> Resources:
        room = _Room(slots)
        found = next((some for some in resources.fitting() if room.seats(some) is not None), None)
        if found is None:
            return resources.fitting()[-1]  # `_too_large` says that even these find no room
        if found.workers < resources.workers:
            lines[f"{found.workers} of {resources.workers} workers a trial have room here (min_workers)"] = None
        return found

    stages = [
        stage.model_copy(update={"resources": fit(stage.resources)}) if stage.resources else stage
        for stage in job.stages
    ]
    return job.model_copy(update={"resources": fit(job.resources), "stages": stages}), list(lines)


def _needs(resources: Resources) -> dict[str, float]:
    """Of one worker."""
    amounts = {"cpus": resources.cpus, "gpus": resources.gpus, **resources.custom}
    return {name: amount for name, amount in amounts.items() if amount > 0}


def _hours(planned: Planned, seconds: Mapping[str, float], name: str) -> float:
    return seconds[planned.key] * _needs(planned.resources).get(name, 0.0) * planned.resources.workers / 3600


def _too_large(ran: Sequence[Planned], slots: Slots) -> list[str]:
    """A line for each kind of trial that would not fit even on the empty cluster."""
    lines: dict[str, None] = {}
    for planned in {planned.resources.model_dump_json(): planned for planned in ran}.values():
        if not _Room(slots).fits(planned):
            need = ", ".join(f"{amount:g} {name}" for name, amount in _needs(planned.resources).items())
            workers = f"{planned.resources.workers} workers of " if planned.resources.workers > 1 else ""
            lines[f"stage {planned.stage}: a trial needs {workers}{need}, which fits on no node of the cluster"] = None
    return list(lines)


def _bound(ideal: _Simulation, slots: Slots) -> float | None:
    """Seconds: the longest chain; the work over what there is of the scarcest resource; or that of one kind of trials
    over how many of them have room at once."""
    work: dict[str, float] = defaultdict(float)
    kinds: dict[str, tuple[Resources, float]] = {}
    for planned in ideal.ran:
        resources, seconds = planned.resources, ideal.seconds[planned.key]
        for name, amount in _needs(resources).items():
            work[name] += seconds * amount * resources.workers
        kind = resources.model_dump_json()
        kinds[kind] = (resources, kinds.get(kind, (resources, 0.0))[1] + seconds)
    there = {name: sum(_offers(node).get(name, 0.0) for node in slots) for name in work}
    if any(amount <= 0 for amount in there.values()):
        return None
    at_once = [(seconds, _at_once(resources, slots)) for resources, seconds in kinds.values()]
    return max([
        ideal.end,
        *(work[name] / there[name] for name in work),
        *(seconds / count for seconds, count in at_once if count),
    ])  # fmt: skip


def _at_once(resources: Resources, slots: Slots) -> int:
    """How many trials of one kind have room on the empty cluster; 0 when none has, or when they need nothing."""
    need = _needs(resources)
    if not need:
        return 0
    seats = sum(min(int(_offers(node).get(name, 0.0) / need[name] + 1e-9) for name in need) for node in slots)
    return seats // resources.workers


def _stages(job: JobSpec, ideal: _Simulation) -> list[StageCost]:
    first = {planned.key: planned for planned in ideal.ran}
    rows = []
    for stage in job.stages:
        placed = [planned for planned in ideal.planner.placed if planned.stage == stage.name]
        mine = [first[p.key] for p in placed if p.key in first and first[p.key].stage == stage.name]
        groups = {planned.group for planned in placed}
        rows.append(
            StageCost(
                name=stage.name,
                groups=len(groups),
                trials=len(placed),
                done=sum(planned.key in ideal.done for planned in placed),
                gpu_hours=sum(_hours(planned, ideal.seconds, "gpus") for planned in mine),
                cpu_hours=sum(_hours(planned, ideal.seconds, "cpus") for planned in mine),
                forecast=any((stage.name, group) not in ideal.known_groups for group in groups),
            )
        )
    return rows


def _basis(ideal: _Simulation, measured: int, sized: bool) -> list[str]:
    lines = []
    if measured:
        lines.append(f"time of {measured} trials: recorded step times of the same backbone, image size and batch")
    guessed = [planned for planned in ideal.ran if not planned.measured]
    if guessed:
        speeds = sorted({planned.resources.images_per_second for planned in guessed})
        told = ", ".join(f"{speed:g}" for speed in speeds)
        lines.append(f"time of {len(guessed)} trials: guessed, {told} images/s a worker (resources.images_per_second)")
    if ideal.forecast_points:
        many = f"{ideal.forecast_points} trials of searches: forecast in the middle of their ranges and in full"
        lines.append(f"{many}; what early stopping would save is not counted")
    lines.append("makespan: simulated, longest remaining chain first; start of workers not counted")
    lines.append(
        "disk: parameters of the backbones in fp32; data, logs and the store not counted"
        if sized
        else "disk: not known (no parameter counts, or trials that fit nowhere)"
    )
    return lines
