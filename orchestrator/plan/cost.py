"""The only place that says what a job would cost before it runs: trials, hours, makespan, lower bound, disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.plan.durations import DurationModel
from orchestrator.plan.search_forecast import History
from orchestrator.plan.simulation import BYTES, CHECKPOINT, Lookup, Slots, _needs, _offers, _Room, _Simulation, _Sizes
from orchestrator.plan.trials import PlannedTrial
from orchestrator.spec.job import JobSpec, Resources
from tasks.backbones.spec import BackboneSpec


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
    speed: DurationModel,
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


def _hours(planned: PlannedTrial, seconds: Mapping[str, float], name: str) -> float:
    return seconds[planned.key] * _needs(planned.resources).get(name, 0.0) * planned.resources.workers / 3600


def _too_large(ran: Sequence[PlannedTrial], slots: Slots) -> list[str]:
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
