"""Estimates what a job costs before it runs: trials, hours, makespan, lower bound, disk."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.plan.durations import DurationModel
from orchestrator.plan.resource_fit import FreeResources, Node, amounts_text, fits, worker_needs, worker_slots
from orchestrator.plan.search_forecast import History
from orchestrator.plan.simulation import ModelSizes, Simulation, Snapshots
from orchestrator.plan.trials import PlannedTrial
from orchestrator.spec.job import JobSpec, Resources
from orchestrator.spec.seeds import given_count
from workers.checkpoint import KEPT
from workers.trial import TrialSpec

BYTES_PER_PARAMETER = 4
"""Weights and optimizer state are kept in fp32."""

CHECKPOINT_COPIES = 3 * (KEPT + 1)
"""Copies of the parameters in a running trial's folder: weights and AdamW's two moments, in each checkpoint that is
kept and in the next one, which is written beside them."""


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage."""

    name: str
    groups: int
    trials: int
    """Trials of the stage. One that an earlier stage runs counts here too, but its hours do not."""
    done: int
    gpu_hours: float
    """Of the trials that are still to run, as `cpu_hours`."""
    cpu_hours: float
    forecast: bool
    """True if some of its trials depend on winners that are not known yet."""
    seeds: int = 1
    """Replicates of each of its settings, all of them among `trials`."""


@dataclass(frozen=True)
class Cost:
    """The cost of the rest of a job. Hours are estimates; `basis` gives their sources."""

    stages: list[StageCost]
    trials: int
    """Different trials over all stages."""
    done: int
    gpu_hours: float
    cpu_hours: float
    makespan_hours: float | None
    """With the longest remaining chain first on the given cluster; None if some trial fits on no node."""
    lower_bound_hours: float | None
    """max(work / slots, longest chain): no order of the trials is faster. None if the cluster lacks a resource."""
    longest_chain_hours: float
    disk_bytes: int | None
    """Weights that are kept, and checkpoints of the trials that run at the same time; without data, logs and store.
    None if parameter counts are missing or some trial fits on no node."""
    measured: int
    """Trials still to run whose time comes from recorded step times; the time of the others is a guess."""
    basis: list[str]
    """A line on the source of each number."""
    problems: list[str]
    """A line on each kind of trial that fits on no node."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def cost(
    job: JobSpec,
    snapshots: Snapshots,
    durations: DurationModel,
    nodes: Sequence[Node],
    parameters: Callable[[TrialSpec], int | None] | None = None,
    history: History | None = None,
) -> Cost:
    """Estimates what is left of `job` on a cluster of `nodes`.

    Where trials depend on a winner that is not known, the first trial of the group stands for it. Where a search has
    not asked for a point, the middle of its ranges stands for it, run in full. Failed and cancelled trials count as
    still to run, running and stopped ones with the rounds that they have left. A trial with `min_workers` gets as many
    workers as the empty cluster has room for.
    `parameters`: counts those of the model of a trial, where no trial with that model has recorded them.
    """
    job, fewer_workers = _with_fitting_workers(job, nodes)
    sizes = ModelSizes(durations, parameters)
    ideal = Simulation(job, snapshots, durations, None, sizes, history or {})
    problems = _too_large(ideal.ran, nodes)
    real = ideal if problems else Simulation(job, snapshots, durations, FreeResources(nodes), sizes, history or {})
    measured = sum(planned.measured for planned in ideal.ran)
    kept = {planned.key: planned for planned in ideal.planner.placed if planned.keep_weights}
    disk = BYTES_PER_PARAMETER * (sum(map(sizes.of, kept.values())) + CHECKPOINT_COPIES * real.peak)
    bound = _lower_bound(ideal, nodes)
    return Cost(
        stages=_stages(job, ideal),
        trials=len({*ideal.seconds, *ideal.done}),
        done=len(ideal.done),
        gpu_hours=sum(_hours(planned, ideal.seconds, "GPU") for planned in ideal.ran),
        cpu_hours=sum(_hours(planned, ideal.seconds, "CPU") for planned in ideal.ran),
        makespan_hours=None if problems else real.end / 3600,
        lower_bound_hours=None if bound is None else bound / 3600,
        longest_chain_hours=ideal.end / 3600,
        disk_bytes=disk if sizes.complete and not problems else None,
        measured=measured,
        basis=[*_basis(ideal, measured, sizes.complete), *fewer_workers],
        problems=problems,
    )


def _with_fitting_workers(job: JobSpec, nodes: Sequence[Node]) -> tuple[JobSpec, list[str]]:
    """The job with as many workers per trial as fit on the empty cluster, at least `min_workers`; and a line if these
    are fewer than it asks for."""
    lines: dict[str, None] = {}
    empty = [node.amounts for node in nodes]

    def fitting(resources: Resources) -> Resources:
        options = resources.fitting()
        chosen = next((option for option in options if fits(empty, option)), None)
        if chosen is None:
            return options[-1]  # `_too_large` reports that even these do not fit
        if chosen.workers < resources.workers:
            lines[f"{chosen.workers} of {resources.workers} workers a trial have room here (min_workers)"] = None
        return chosen

    stages = [
        stage.model_copy(update={"resources": fitting(stage.resources)}) if stage.resources else stage
        for stage in job.stages
    ]
    return job.model_copy(update={"resources": fitting(job.resources), "stages": stages}), list(lines)


def _hours(planned: PlannedTrial, seconds: Mapping[str, float], name: str) -> float:
    """GPU-hours or CPU-hours of a trial."""
    return seconds[planned.key] * worker_needs(planned.resources).get(name, 0.0) * planned.resources.workers / 3600


def _too_large(ran: Sequence[PlannedTrial], nodes: Sequence[Node]) -> list[str]:
    """A line for each kind of trial that does not fit on the empty cluster."""
    stages: dict[str, dict[str, None]] = {}
    empty = [node.amounts for node in nodes]
    for planned in {(planned.stage, planned.resources.model_dump_json()): planned for planned in ran}.values():
        if not fits(empty, planned.resources):
            need = f"{planned.resources.workers} x {amounts_text(worker_needs(planned.resources))}"
            stages.setdefault(need, {})[planned.stage] = None
    return [
        f"stage{'s' if len(names) > 1 else ''} {', '.join(names)}: a trial needs {need}, which does not "
        "fit on the cluster"
        for need, names in stages.items()
    ]


def _lower_bound(ideal: Simulation, nodes: Sequence[Node]) -> float | None:
    """Seconds that no order of the trials beats: the longest chain, the work over the amount of the scarcest resource,
    or the work of one kind of trials over how many of them fit at the same time."""
    work: dict[str, float] = defaultdict(float)
    kinds: dict[str, tuple[Resources, float]] = {}
    for planned in ideal.ran:
        resources, seconds = planned.resources, ideal.seconds[planned.key]
        for name, amount in worker_needs(resources).items():
            work[name] += seconds * amount * resources.workers
        kind = resources.model_dump_json()
        kinds[kind] = (resources, kinds.get(kind, (resources, 0.0))[1] + seconds)
    available = {name: sum(node.amounts.get(name, 0.0) for node in nodes) for name in work}
    if any(amount <= 0 for amount in available.values()):
        return None
    at_once = [(seconds, _at_once(resources, nodes)) for resources, seconds in kinds.values()]
    return max([
        ideal.end,
        *(work[name] / available[name] for name in work),
        *(seconds / count for seconds, count in at_once if count),
    ])  # fmt: skip


def _at_once(resources: Resources, nodes: Sequence[Node]) -> int:
    """How many trials of one kind fit on the empty cluster; 0 if none fits, or if they need nothing."""
    need = worker_needs(resources)
    return worker_slots([node.amounts for node in nodes], need) // resources.workers if need else 0


def _stages(job: JobSpec, ideal: Simulation) -> list[StageCost]:
    first = {planned.key: planned for planned in ideal.ran}
    rows = []
    for stage in job.stages:
        placed = [planned for planned in ideal.planner.placed if planned.stage == stage.name]
        own = [first[p.key] for p in placed if p.key in first and first[p.key].stage == stage.name]
        groups = {planned.group for planned in placed}
        rows.append(
            StageCost(
                name=stage.name,
                groups=len(groups),
                trials=len(placed),
                done=sum(planned.key in ideal.done for planned in placed),
                gpu_hours=sum(_hours(planned, ideal.seconds, "GPU") for planned in own),
                cpu_hours=sum(_hours(planned, ideal.seconds, "CPU") for planned in own),
                forecast=any((stage.name, group) not in ideal.known_groups for group in groups),
                seeds=given_count(stage) or 1,
            )
        )
    return rows


def _basis(ideal: Simulation, measured: int, sized: bool) -> list[str]:
    lines = []
    if measured:
        lines.append(f"time of {measured} trials: recorded step times of the same backbone, image size and batch")
    guessed = [planned for planned in ideal.ran if not planned.measured]
    if guessed:
        speeds = sorted({planned.resources.images_per_second for planned in guessed})
        speeds_text = ", ".join(f"{speed:g}" for speed in speeds)
        lines.append(
            f"time of {len(guessed)} trials: guessed, {speeds_text} images/s a worker (resources.images_per_second)"
        )
    protocols = Counter(planned.spec.task.protocol for planned in ideal.ran)
    lines += [f"{count} trials: {words}" for words, count in sorted(protocols.items()) if words]
    if ideal.forecast_points:
        many = f"{ideal.forecast_points} trials of searches: forecast in the middle of their ranges and in full"
        lines.append(f"{many}; savings from early stopping are not counted")
    lines.append("makespan: simulated, longest remaining chain first; start of workers not counted")
    lines.append(
        "disk: parameters of the models in fp32; data, logs and the store not counted"
        if sized
        else "disk: unknown (no parameter counts, or trials that do not fit)"
    )
    return lines
