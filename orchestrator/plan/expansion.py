"""The only place that turns a stage and its settings into trials: groups, names, neighbours, what may read test."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from orchestrator.errors import SpecError
from orchestrator.rules.selection import Range, read_tie, searched
from orchestrator.spec.job import JobSpec, Near, Neighbourhood, Resources, Stage, apply
from orchestrator.spec.search_space import middle
from orchestrator.spec.sweep import Grid, Search, groups_of, one_setting, points
from tasks.backbones.model import FromStage, FromTrial
from workers.trial import TrialSpec, plain_number

T = TypeVar("T")


@dataclass(frozen=True)
class Planned:
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
class Draft:
    """A trial before its initial weights are known: `spec.backbone.init` may still name a stage."""

    position: int
    spec: TrialSpec


class Stages:
    """What a job's stages say about each other; fixed at load."""

    def __init__(self, job: JobSpec) -> None:
        self.job = job
        self.by_name = {stage.name: stage for stage in job.stages}
        self.takers = {stage.name: [other for other in job.stages if stage.name in other.from_] for stage in job.stages}
        self.givers: set[str] = set()
        """Stages from whose weights another stage starts; complete once the sweeps are expanded."""
        self.watched = {stage.name: self._watched(stage) for stage in job.stages}
        """Paths that tell the stage's trials apart, form its groups, or are looked at by later choices: so all
        candidates of a choice state the same settings."""
        self.named_by = {
            stage.name: [path for path in self._moved(stage) if path not in self._per(stage)] for stage in job.stages
        }
        """Paths that tell the trials of one group apart: what a trial's name shows."""

    def may_test(self, stage: Stage) -> bool:
        """Only winners as they are, in one setting each, and only where nothing more is chosen or started from the
        result: of several settings that read test, somebody would take the best."""
        after = self.takers[stage.name] or stage.name in self.givers
        return bool(stage.from_) and stage.neighbourhood is None and one_setting(stage.sweep) and not after

    def resources(self, stage: Stage) -> Resources:
        return stage.resources or self.job.resources

    def keeps_weights(self, stage: Stage, spec: TrialSpec) -> bool:
        """What a later trial starts from is kept whatever the stage says; else as it says; else what read test."""
        if stage.name in self.givers:
            return True
        if stage.keep_weights is not None:
            return stage.keep_weights
        return self.may_test(stage) or spec.task.makes_weights

    def sources(self, stage: Stage) -> list[Stage]:
        return [self.by_name[name] for name in stage.from_]

    def axes(self, stage: Stage) -> list[str]:
        """Paths that the stage's own sweep sets, and, for one with `from`, those of the sweeps it goes back to."""
        own = [*stage.sweep.each, *stage.sweep.search] if isinstance(stage.sweep, Search) else self.grid_axes(stage)
        return _once([*(path for source in self.sources(stage) for path in self.axes(source)), *own])

    def grid_axes(self, stage: Stage) -> list[str]:
        """Paths that the stage's own grid sets."""
        return _once(path for axes in stage.sweep.grid for path in axes) if isinstance(stage.sweep, Grid) else []

    def ranges(self, names: Iterable[str]) -> tuple[dict[str, Range], dict[str, list[Any]]]:
        """Of those of these stages that search: ranges of numbers, and lists of choices."""
        sweeps = [sweep for name in names if isinstance(sweep := self.by_name[name].sweep, Search)]
        plain = [sweep.model_dump(mode="json", by_alias=True)["search"] for sweep in sweeps]
        return searched({path: one for search in plain for path, one in search.items()})

    def _moved(self, stage: Stage) -> list[str]:
        """Paths that tell the stage's trials apart: axes and neighbourhoods, its own and those it goes back to."""
        own = list(stage.neighbourhood.near) if stage.neighbourhood else []
        before = [path for source in self.sources(stage) for path in self._moved(source)]
        return _once([*before, *self.axes(stage), *own])

    def _watched(self, stage: Stage) -> list[str]:
        paths = [*self._moved(stage), *self._per(stage)]
        for taker in self.takers[stage.name]:
            paths += [tie.name for tie in map(read_tie, self.by_name[taker.from_[0]].ties) if not tie.figure]
            paths += [*(taker.neighbourhood.near if taker.neighbourhood else ()), *self._watched(taker)]
        return _once(paths)

    def _per(self, stage: Stage) -> list[str]:
        return self._per(self.by_name[stage.from_[0]]) if stage.from_ else stage.per

    def sweeps(self, stage: Stage) -> list[str]:
        """Names of the stages with a sweep of their own that `stage` goes back to, itself included."""
        if not stage.from_:
            return [stage.name]
        return _once(name for source in self.sources(stage) for name in self.sweeps(source))


def expand(job: JobSpec, stage: Stage) -> list[Draft]:
    """The trials of a stage with its own sweep, in the order of the spec. Raises pydantic's ValidationError."""
    base = apply(job.trial, stage.override)
    return [Draft(number, _trial(apply(base, point), False)) for number, point in enumerate(points(stage.sweep))]


@dataclass(frozen=True)
class Searched:
    """A group of a search, before anything is asked for in it."""

    group: str
    values: dict[str, Any]
    fields: dict[str, Any]
    """What all its trials share, as written."""
    middle: TrialSpec
    """The trial in the middle of all ranges."""


def searches(job: JobSpec, stage: Stage) -> list[Searched]:
    """The groups of a stage that searches, in the order of the spec. Raises pydantic's ValidationError."""
    assert isinstance(stage.sweep, Search)
    base, found = apply(job.trial, stage.override), []
    for values in groups_of(stage.sweep):
        fields = apply(base, values)
        centre = _trial(apply(fields, middle(stage.sweep.search)), False)
        found.append(Searched(*group_of(centre, stage.per), fields, centre))
    return found


def at_point(fields: Mapping[str, Any], point: Mapping[str, Any]) -> TrialSpec | None:
    """The trial of a search's group at a point; None where the values do not go together."""
    try:
        return _trial(apply(fields, point), False)
    except ValidationError:
        return None


def successors(winner: TrialSpec, stage: Stage, may_test: bool) -> list[TrialSpec]:
    """The winner with the stage's overrides, at every point of the stage's sweep (one point without)."""
    base = apply(winner.model_dump(mode="json"), stage.override)
    return [_trial(apply(base, point), may_test) for point in points(stage.sweep)]


def neighbours(centre: TrialSpec, around: Neighbourhood, winner: TrialSpec) -> tuple[list[TrialSpec], list[str]]:
    """Trials around the winner, and a line for each value that was left out.

    `centre` is the winner with the stage's overrides. `star` moves one field at a time; `box` takes every
    combination of each field's own and moved values. The centre itself is tried again only where `near` lists it
    (multiply 1 or add 0). A value outside [low, high], or one that the field refuses, is left out with a line.
    """
    values = centre.model_dump(mode="json")
    origin = winner.model_dump(mode="json")
    notes: list[str] = []
    own, tried = {}, {}
    for path, near in around.near.items():
        own[path] = _number(path, lookup(origin, path))
        tried[path] = [v for v in _near(own[path], near) if _allowed(values, path, v, near, notes)]
    moves: Iterable[dict[str, Any]]
    if around.shape == "star":
        moves = [{path: value} for path in tried for value in tried[path]]
    else:
        axes = [[(path, v) for v in _once([own[path], *tried[path]])] for path in tried]
        listed = any(own[path] in tried[path] for path in tried)
        corners = [dict(combination) for combination in itertools.product(*axes)]
        moves = corners if listed else [move for move in corners if move != own]
    trials = []
    for move in moves:
        try:
            trials.append(_trial(apply(values, move), False))
        except ValidationError as error:  # each value alone is fine: they do not go together
            notes.append(f"{move} left out: {error.errors()[0]['msg']}")
    return trials, notes


def _near(value: float, near: Near) -> list[float]:
    moved = [*(value * factor for factor in near.multiply), *(value + step for step in near.add)]
    return _once(plain_number(number) for number in moved)


def _allowed(values: dict[str, Any], path: str, value: float, near: Near, notes: list[str]) -> bool:
    if near.low is not None and value < near.low:
        notes.append(f"{path} {value:g} left out: below low {near.low:g}")
        return False
    if near.high is not None and value > near.high:
        notes.append(f"{path} {value:g} left out: above high {near.high:g}")
        return False
    try:
        _trial(apply(values, {path: value}), False)
    except ValidationError as error:
        notes.append(f"{path} {value:g} left out: {error.errors()[0]['msg']}")
        return False
    return True


def _number(path: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SpecError([f"neighbourhood: {path} of the winner is {value!r}, not a number"])
    return value


def _trial(values: Mapping[str, Any], may_test: bool) -> TrialSpec:
    """Validated. Permission to test is given only to a trial that asks for it, so that it changes no other's key."""
    spec = TrialSpec.model_validate({**values, "may_test": may_test})
    return spec if spec.task.reads_test else spec.model_copy(update={"may_test": False})


@dataclass(frozen=True)
class Giver:
    """A group of a stage whose weights trials start from; `group` None: the stage has one group."""

    stage: str
    group: str | None = None

    def __str__(self) -> str:
        return self.stage if self.group is None else f"{self.stage} {self.group}"


def source_of_weights(spec: TrialSpec) -> Giver | None:
    """Where the trial's initial weights come from in this job, while that is not yet resolved to a trial."""
    init = spec.backbone.init
    if isinstance(init, FromStage) and init.job is not None:
        what = f"initial weights {init.name}: stage {init.stage} of job {init.job} was not looked up"
        raise SpecError([f"{what}; write backbone.init as a whole, not by its fields"])
    return Giver(init.stage, init.group) if isinstance(init, FromStage) else None


def started_from(spec: TrialSpec, key: str) -> TrialSpec:
    """The trial with its initial weights resolved: those that trial `key` ended with."""
    init = FromTrial(name=spec.backbone.init.name, trial=key)
    return spec.model_copy(update={"backbone": spec.backbone.model_copy(update={"init": init})})


def group_of(spec: TrialSpec, per: list[str]) -> tuple[str, dict[str, Any]]:
    """Id of the trial's group ("digits/RAND"; "all" without `per`) and the values that form it."""
    values = spec.model_dump(mode="json")
    formed = {path: label(lookup(values, path)) for path in per}
    return "/".join(_show(value) for value in formed.values()) or "all", formed


def settings_of(spec: TrialSpec, paths: Iterable[str]) -> dict[str, Any]:
    """Values at `paths`, those that the trial has; initial weights by their label."""
    values = spec.model_dump(mode="json")
    found = ((path, lookup(values, path, _Missing)) for path in paths)
    return {path: label(value) for path, value in found if value is not _Missing}


def trial_name(stage: str, group: str, settings: Mapping[str, Any], paths: Iterable[str]) -> str:
    """stage/group/lr=0.001,layer_decay=0.75 over those of `paths` that the settings have."""
    shown = [f"{path.rpartition('.')[2]}={_show(settings[path])}" for path in paths if path in settings]
    return "/".join([stage, group, *([",".join(shown)] if shown else [])])


class _Missing:
    """Stands for a path that a trial does not have."""


def lookup(values: Mapping[str, Any], path: str, missing: Any = None) -> Any:
    """The value at a dotted path in nested mappings, or `missing`."""
    found: Any = values
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return missing
        found = found[part]
    return found


def label(value: Any) -> Any:
    """A mapping is shown by its name, where it has one."""
    return value["name"] if isinstance(value, Mapping) and "name" in value else value


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _once(values: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(values))


def each_group(drafts: Iterable[Draft], per: list[str]) -> Iterator[tuple[str, dict[str, Any], list[Draft]]]:
    """Drafts by group, groups in the order they first appear: id, values, drafts (positions counted anew)."""
    groups: dict[str, tuple[dict[str, Any], list[Draft]]] = {}
    for draft in drafts:
        identity, values = group_of(draft.spec, per)
        members = groups.setdefault(identity, (values, []))[1]
        members.append(Draft(len(members), draft.spec))
    for identity, (values, members) in groups.items():
        yield identity, values, members
