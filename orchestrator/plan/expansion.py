"""Expands a stage into trials: sweeps, searches, reruns of a winner, neighbours of a winner."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import SpecError
from orchestrator.plan.trials import Sources, WaitingTrial
from orchestrator.records.recorded_spec import lookup
from orchestrator.spec.job import JobSpec, Neighbourhood, Stage
from orchestrator.spec.search_space import middle
from orchestrator.spec.seeds import SEED
from orchestrator.spec.sweep import Search, groups_of, points
from orchestrator.spec.trial_fields import apply, group_of, nearby_values
from workers.trial import TrialSpec

Seeds = tuple[int, ...] | None
"""Those of a stage's replicates; None: it has none."""


def expand(job: JobSpec, stage: Stage, seeds: Seeds, may_test: bool) -> list[WaitingTrial]:
    """The trials of a stage with its own sweep, in the order of the spec, the replicates of a setting one after the
    other. Raises pydantic's ValidationError."""
    base, workers = apply(job.base, stage.override), job.resources_of(stage).workers
    trials = [_trial(apply(base, point), may_test, workers) for point in points(stage.sweep)]
    return replicated(trials, seeds)


def replicated(trials: Iterable[TrialSpec], seeds: Seeds, sources: Sources | None = None) -> list[WaitingTrial]:
    """Each setting with each of the seeds (None: as it is); `sources`: of their winner's weights."""
    each = [
        (0, spec) if seeds is None else (replicate, spec.model_copy(update={SEED: seeds[replicate]}))
        for spec in trials
        for replicate in range(1 if seeds is None else len(seeds))
    ]
    return [WaitingTrial(number, spec, replicate, sources or {}) for number, (replicate, spec) in enumerate(each)]


@dataclass(frozen=True)
class SearchGroup:
    """A group of a search, before any point of it is known."""

    group: str
    values: dict[str, Any]
    fields: dict[str, Any]
    """The fields that all its trials share, as written."""
    middle: TrialSpec
    """The trial in the middle of all ranges."""
    workers: int
    """Of each trial."""
    seeds: Seeds
    """With which each of its points runs."""


def searches(job: JobSpec, stage: Stage, seeds: Seeds) -> list[SearchGroup]:
    """The groups of a stage that searches, in the order of the spec. Raises pydantic's ValidationError."""
    assert isinstance(stage.sweep, Search)
    base, workers, groups = apply(job.base, stage.override), job.resources_of(stage).workers, []
    for values in groups_of(stage.sweep):
        fields = apply(base, values)
        centre = _trial(apply(fields, middle(stage.sweep.search)), False, workers)
        centre = replicated([centre], seeds)[0].spec
        groups.append(SearchGroup(*group_of(centre, stage.per), fields, centre, workers, seeds))
    return groups


def at_point(fields: Mapping[str, Any], point: Mapping[str, Any], workers: int) -> TrialSpec | None:
    """The trial of a search's group at a point; None if the values do not go together. `workers`: of each trial."""
    try:
        return _trial(apply(fields, point), False, workers)
    except ValidationError:
        return None


def successors(winner: TrialSpec, stage: Stage, may_test: bool, workers: int) -> list[TrialSpec]:
    """The winner with the stage's overrides, at every point of its sweep. `workers`: of each trial of the stage."""
    base = apply(winner.model_dump(mode="json"), stage.override)
    return [_trial(apply(base, point), may_test, workers) for point in points(stage.sweep)]


def neighbours(centre: TrialSpec, around: Neighbourhood, winner: TrialSpec) -> tuple[list[TrialSpec], list[str]]:
    """Trials around the winner, and a note on each value that was left out.

    `centre` is the winner with the stage's overrides. `star` moves one field at a time; `box` takes every
    combination of each field's own and moved values. The centre itself is tried again only where `near` lists it
    (multiply 1 or add 0). A value outside [low, high], or one that the field refuses, is left out.
    """
    values, workers = centre.model_dump(mode="json"), centre.batch_workers
    origin = winner.model_dump(mode="json")
    notes: list[str] = []
    own: dict[str, float] = {}
    tried: dict[str, list[float]] = {}
    for path, near in around.near.items():
        own[path] = _number(path, lookup(origin, path))
        tried[path] = []
        for value, left_out in nearby_values(own[path], near):
            if left_out := left_out or _refusal(values, path, value, workers):
                notes.append(f"{path} {value:g} left out: {left_out}")
            else:
                tried[path].append(value)
    moves: Iterable[dict[str, Any]]
    if around.shape == "star":
        moves = [{path: value} for path in tried for value in tried[path]]
    else:
        axes = [[(path, v) for v in dict.fromkeys([own[path], *tried[path]])] for path in tried]
        listed = any(own[path] in tried[path] for path in tried)
        corners = [dict(combination) for combination in itertools.product(*axes)]
        moves = corners if listed else [move for move in corners if move != own]
    trials = []
    for move in moves:
        try:
            trials.append(_trial(apply(values, move), False, workers))
        except ValidationError as error:  # each value alone is valid, but not together
            notes.append(f"{move} left out: {error.errors()[0]['msg']}")
    return trials, notes


def _refusal(values: dict[str, Any], path: str, value: float, workers: int) -> str:
    """Why the field does not take the value; "" if it does."""
    try:
        _trial(apply(values, {path: value}), False, workers)
    except ValidationError as error:
        return str(error.errors()[0]["msg"])
    return ""


def _number(path: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SpecError([f"neighbourhood: {path} of the winner is {value!r}, not a number"])
    return value


def _trial(values: Mapping[str, Any], may_test: bool, workers: int) -> TrialSpec:
    """The validated trial. Only a trial that reads test gets permission for it, so that no other key changes; and the
    number of workers stays only in a trial whose loss depends on it (see `TrialSpec.batch_workers`)."""
    spec = TrialSpec.model_validate({**values, "may_test": may_test, "batch_workers": workers})
    return spec if spec.task.reads_test else spec.model_copy(update={"may_test": False})
