"""Which seeds the trials of each stage of a job run with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.spec.job import JobSpec, Stage
from orchestrator.spec.replicates import Replicates
from orchestrator.spec.sweep import Grid, Search, axis_values
from tasks.backbones.spec import FieldPath

SEED = "seed"
"""Path of a trial's seed."""


def given_first(stage: Stage) -> int | None:
    """The first seed that the stage writes itself."""
    return stage.replicates.first if isinstance(stage.replicates, Replicates) else None


def given_count(stage: Stage) -> int | None:
    """How many replicates the stage asks for; None: its trials run once each, with the seed of their setting."""
    return stage.replicates.n if isinstance(stage.replicates, Replicates) else stage.replicates


def seed_axis(stage: Stage) -> list[Any]:
    """The seeds that an axis of the stage's sweep holds, over all its grids; of a range, its ends are not told."""
    if isinstance(stage.sweep, Grid):
        return [value for axes in stage.sweep.grid if SEED in axes for value in axis_values(axes[SEED])]
    if isinstance(stage.sweep, Search):
        return axis_values(stage.sweep.each[SEED]) if SEED in stage.sweep.each else []
    return []


class StageSeeds:
    """The seeds of every stage of a job."""

    def __init__(self, job: JobSpec) -> None:
        self.of: dict[str, tuple[int, ...]] = {}
        """Stage -> the seeds with which each of its settings runs, in the order of the replicates. Without replicates:
        the seed of its trials, or those of its axis."""
        self.chosen_with: dict[str, frozenset[int]] = {}
        """Stage with `from` -> all seeds of the stages that lead to its winner."""
        base = _number(job.trial.get(SEED, 0))
        for stage in job.stages:
            sources = [name for name in stage.from_ if name in self.of]
            before = frozenset(seed for name in sources for seed in {*self.of[name], *self.chosen_with[name]})
            own = self.of[sources[0]] if sources else (base,)
            self.of.setdefault(stage.name, _seeds(stage, own, before))
            self.chosen_with.setdefault(stage.name, before)

    def replicates(self, stage: Stage) -> tuple[int, ...] | None:
        """The seeds of each of the stage's settings; None: the stage has no replicates."""
        return None if stage.replicates is None else self.of[stage.name]

    def several(self, name: str) -> bool:
        """True if the settings of the stage run with several seeds."""
        return len(self.of.get(name, ())) > 1


def _seeds(stage: Stage, own: tuple[int, ...], before: frozenset[int]) -> tuple[int, ...]:
    """`own`: those of the stages that the stage takes winners from, or of the base trial. `before`: all by which its
    setting was chosen."""
    count = given_count(stage)
    if count is None:
        if SEED in stage.override:
            return (_number(stage.override[SEED]),)
        axis = tuple(dict.fromkeys(map(_number, seed_axis(stage))))
        # Without an axis: those of a neighbourhood's centre are compared with its points; a winner is its first trial.
        return axis or own[:1]
    first = given_first(stage)
    if first is None:
        reruns = bool(stage.from_) and stage.neighbourhood is None
        first = max(before, default=-1) + 1 if reruns else own[0]
    return tuple(range(first, first + count))


def _number(value: Any) -> int:
    """A seed as it is written; 0 for anything else, which is reported elsewhere."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0


def sets_weights(stage: Stage, steps: FieldPath) -> bool:
    """True if the stage itself sets the source of weights at these steps of a trial, so that it is not a winner's."""
    own = [*stage.override, *(path for axes in _axes(stage) for path in axes)]
    at = ".".join(map(str, steps)) + "."
    return any(at.startswith(path + ".") for path in own)


def _axes(stage: Stage) -> list[Mapping[str, Any]]:
    if isinstance(stage.sweep, Grid):
        return list(stage.sweep.grid)
    return [stage.sweep.each, stage.sweep.search] if isinstance(stage.sweep, Search) else []


def seeds_text(seeds: Iterable[int]) -> str:
    """Seeds as text: "0", "0 to 4", or "0, 2"."""
    ordered = sorted(seeds)
    if len(ordered) > 1 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered[:8])) + (", .." if len(ordered) > 8 else "")
