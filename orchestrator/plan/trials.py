"""Planned trials, and trials whose initial weights are not known yet; how they are named and grouped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.records.rows import MetricRow
from orchestrator.spec.job import Resources
from orchestrator.spec.trial_fields import group_of, short
from tasks.backbones.spec import FieldPath, FromStage, FromTrial, Init, inits, with_inits
from workers.trial import TrialSpec

GroupId = tuple[str, str]
"""(stage, group id)"""
Sources = Mapping[FieldPath, Init]
"""Sources of weights by the steps to them in a trial."""


@dataclass(frozen=True)
class PlannedTrial:
    """A trial in its place: what runs, for which stage and group, and what the engine must know to run it."""

    key: str
    spec: TrialSpec
    stage: str
    group: str
    group_values: dict[str, Any]
    settings: dict[str, Any]
    """Dotted path -> JSON value of the fields that sweeps set or ties read; initial weights by their name."""
    name: str
    """stage/group/lr=..,layer_decay=.."""
    position: int
    """In its stage's group, from 0."""
    needs: tuple[str, ...]
    """Keys of trials whose weights it starts from or reads."""
    resources: Resources
    keep_weights: bool
    seconds: float
    """Estimated duration of this trial."""
    measured: bool
    """True if `seconds` comes from recorded step times."""
    remaining: float
    """Estimated seconds of the longest chain from the start of this trial to the end of all that depends on it."""
    sources: Sources = field(default_factory=dict)
    """The steps to weights that a stage made -> that stage as the spec names it, also where the setting comes from a
    winner: replicates of this trial start from other replicates of it."""


@dataclass(frozen=True)
class WaitingTrial:
    """A trial that is not placed: its sources of weights may still name stages."""

    position: int
    spec: TrialSpec
    replicate: int = 0
    """Which of the seeds of its setting it has, from 0."""
    sources: Sources = field(default_factory=dict)
    """Those of the winner that it follows (see `PlannedTrial`)."""


@dataclass(frozen=True)
class WeightSource:
    """The stage and group from whose weights trials start; `group` None: the stage has one group."""

    stage: str
    group: str | None = None

    def __str__(self) -> str:
        return self.stage if self.group is None else f"{self.stage} {self.group}"


BACKBONE: FieldPath = ("backbone", "init")
"""The steps to the weights that a trial's backbone starts from."""


def sources_of_weights(spec: TrialSpec) -> dict[FieldPath, WeightSource]:
    """The sources in this job of the weights that are not resolved to a trial yet, by the steps to the field.

    Raises SpecError if some come from another job, whose trial must be resolved before planning.
    """
    sources: dict[FieldPath, WeightSource] = {}
    for steps, init in inits(spec):
        if not isinstance(init, FromStage):
            continue
        if init.job is not None:
            what = f"initial weights {init.name}: stage {init.stage} of job {init.job} was not looked up"
            raise SpecError([f"{what}; write {'.'.join(map(str, steps))} as a whole, not by its fields"])
        sources[steps] = WeightSource(init.stage, init.group)
    return sources


def made_by_stages(spec: TrialSpec) -> Sources:
    """The sources of a trial's weights that name a stage, of this or another job, by the steps to the field."""
    return {steps: init for steps, init in inits(spec)
            if isinstance(init, FromStage) or (isinstance(init, FromTrial) and init.replicates)}  # fmt: skip


def with_weights_of(spec: TrialSpec, keys: Mapping[FieldPath, str]) -> TrialSpec:
    """The trial with the final weights of other trials (by their keys) at these sources of weights."""
    labels = {steps: init.name for steps, init in inits(spec) if steps in keys}
    return with_inits(spec, {steps: FromTrial(name=labels[steps], trial=key) for steps, key in keys.items()})


def metric_rows(spec: TrialSpec) -> tuple[MetricRow, ...]:
    """The metrics of the trial, as they are recorded; trials are chosen by the first."""
    return tuple(MetricRow(**asdict(metric)) for metric in spec.metrics)


def trial_name(stage: str, group: str, settings: Mapping[str, Any], paths: Iterable[str]) -> str:
    """stage/group/lr=0.001,layer_decay=0.75 over those of `paths` that the settings have."""
    shown = [f"{path.rpartition('.')[2]}={short(settings[path])}" for path in paths if path in settings]
    return "/".join([stage, group, *([",".join(shown)] if shown else [])])


def each_group(
    trials: Iterable[WaitingTrial], per: list[str]
) -> Iterator[tuple[str, dict[str, Any], list[WaitingTrial]]]:
    """Trials by group, groups in the order they first appear: group id, its values, its trials counted from 0."""
    groups: dict[str, tuple[dict[str, Any], list[WaitingTrial]]] = {}
    for trial in trials:
        group, values = group_of(trial.spec, per)
        members = groups.setdefault(group, (values, []))[1]
        members.append(replace(trial, position=len(members)))
    for group, (values, members) in groups.items():
        yield group, values, members
