"""Planned trials, and trials that still wait for a winner or for weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from orchestrator.errors import SpecError
from orchestrator.spec.job import Resources
from orchestrator.spec.trial_fields import group_of, short
from tasks.backbones.spec import FromStage, FromTrial
from workers.trial import TrialSpec

T = TypeVar("T")


@dataclass(frozen=True)
class PlannedTrial:
    """A trial in its place: what runs, for which stage and group, and what the engine must know to run it."""

    key: str
    spec: TrialSpec
    stage: str
    group: str
    group_values: dict[str, Any]
    settings: dict[str, Any]
    """Dotted path -> JSON value of what sweeps set or ties read; initial weights by their label."""
    name: str
    """stage/group/lr=..,layer_decay=.."""
    position: int
    """In its stage's group, from 0."""
    needs: tuple[str, ...]
    """Keys of trials whose weights it starts from."""
    resources: Resources
    keep_weights: bool
    seconds: float
    """Estimated, of this trial."""
    measured: bool
    """Whether `seconds` comes from recorded step times."""
    remaining: float
    """Estimated seconds of the longest chain from the start of this trial to the end of what follows from it."""


@dataclass(frozen=True)
class WaitingTrial:
    """A trial before its initial weights are known: `spec.backbone.init` may still name a stage."""

    position: int
    spec: TrialSpec


@dataclass(frozen=True)
class WeightSource:
    """A group of a stage whose weights trials start from; `group` None: the stage has one group."""

    stage: str
    group: str | None = None

    def __str__(self) -> str:
        return self.stage if self.group is None else f"{self.stage} {self.group}"


def source_of_weights(spec: TrialSpec) -> WeightSource | None:
    """Where the trial's initial weights come from in this job, while that is not yet resolved to a trial."""
    init = spec.backbone.init
    if isinstance(init, FromStage) and init.job is not None:
        what = f"initial weights {init.name}: stage {init.stage} of job {init.job} was not looked up"
        raise SpecError([f"{what}; write backbone.init as a whole, not by its fields"])
    return WeightSource(init.stage, init.group) if isinstance(init, FromStage) else None


def started_from(spec: TrialSpec, key: str) -> TrialSpec:
    """The trial with its initial weights resolved: those that trial `key` ended with."""
    init = FromTrial(name=spec.backbone.init.name, trial=key)
    return spec.model_copy(update={"backbone": spec.backbone.model_copy(update={"init": init})})


def trial_name(stage: str, group: str, settings: Mapping[str, Any], paths: Iterable[str]) -> str:
    """stage/group/lr=0.001,layer_decay=0.75 over those of `paths` that the settings have."""
    shown = [f"{path.rpartition('.')[2]}={short(settings[path])}" for path in paths if path in settings]
    return "/".join([stage, group, *([",".join(shown)] if shown else [])])


def _once(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def each_group(
    drafts: Iterable[WaitingTrial], per: list[str]
) -> Iterator[tuple[str, dict[str, Any], list[WaitingTrial]]]:
    """Drafts by group, groups in the order they first appear: id, values, drafts (positions counted anew)."""
    groups: dict[str, tuple[dict[str, Any], list[WaitingTrial]]] = {}
    for draft in drafts:
        identity, values = group_of(draft.spec, per)
        members = groups.setdefault(identity, (values, []))[1]
        members.append(WaitingTrial(len(members), draft.spec))
    for identity, (values, members) in groups.items():
        yield identity, values, members
