"""Builds the trials of a spec before anything runs, and traces each of their mistakes to the text."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from orchestrator.records.recorded_spec import lookup
from orchestrator.spec.check_paths import axes_of
from orchestrator.spec.diagnostics import (
    FORMS,
    MAX_ERRORS,
    Problems,
    Steps,
    causes,
    exact,
    problem_from_pydantic,
    show,
    wording,
)
from orchestrator.spec.field_paths import missing_step
from orchestrator.spec.job import PLANNER_ONLY, Stage
from orchestrator.spec.seeds import SEED
from orchestrator.spec.sweep import Search, axis_values, points
from orchestrator.spec.trial_fields import apply, nearby_values
from orchestrator.spec.yaml_nodes import Location, YamlNode
from workers.trial import TrialSpec

MAX_FAILURES = 1_000
"""Trials of a stage that are reported as wrong; the rest of them is not built then."""

Fields = dict[str, Any]
Origins = dict[str, YamlNode]
"""Path -> where its value is written, for values that do not come from the base trial."""


@dataclass(frozen=True)
class CheckedTrial:
    """A valid trial; for a stage with `from` a stand-in, since winners are not known yet."""

    fields: Fields
    """As written, before defaults."""
    spec: TrialSpec
    settings: Fields
    """Path -> value, of overrides and axes."""
    origins: Origins
    workers: int
    """Of such a trial."""


@dataclass(frozen=True)
class BaseFields:
    """The fields that a stage's trials change: the base trial, or a trial of the stage whose winners it takes."""

    fields: Fields
    origins: Origins = field(default_factory=dict)
    sound: bool = True
    """False: some of the base trial is wrong or unreadable, so that a trial may lack what is in it."""


def check_base(root: YamlNode, problems: Problems, partial: bool = False) -> BaseFields:
    """Reports wrong fields of the base trial, each by itself. Missing fields are not reported: stages may set them.

    `partial`: a profile is not applied, which may replace a null and say which form a mapping has.
    """
    trial = root.child("trial")
    sound = trial is not None and isinstance(trial.value, dict)
    fields: Fields = trial.plain() if trial and sound else {}
    for name in PLANNER_ONLY:
        if fields.pop(name, None) is not None:
            place = root.place_of(["trial", name], key=True)
            problems.report(place, f"trial.{name}", "set by the planner alone; remove it")
    errors = _errors(fields)
    problems.leave_out(max(0, len(errors) - MAX_ERRORS))
    for error in causes(errors):
        may_follow = partial and (error["input"] is None or error["type"] in FORMS)
        if not (_may_follow(error) or may_follow):
            problems.add(problem_from_pydantic(TrialSpec, error, root, ["trial"]))
            sound = False
    return BaseFields(fields, sound=sound)


def build(
    root: YamlNode, stage: Stage, at: Steps, start: BaseFields, workers: int, problems: Problems
) -> list[CheckedTrial]:
    """Returns the stage's valid trials; reports the others, each mistake where its cause is written.

    `workers`: of a trial of the stage.
    """
    reported = problems.places()
    wrong: set[Location] = set()
    built: list[CheckedTrial] = []
    failures = 0
    for settings, origins in _settings(root, stage, at, problems):
        if failures >= MAX_FAILURES:
            break
        if any(node.place in wrong for node in origins.values()):
            continue  # a value that is reported
        try:
            fields = apply(start.fields, settings)
        except ValueError as error:
            failures += 1
            above = str(error).partition(":")[0].split(".")[:-1]
            place = trace(root, above, {**start.origins, **origins})
            if place not in reported:
                problems.report(place, f"stages.{stage.name}", str(error))
            continue
        result = _validate(fields, workers)
        if isinstance(result, TrialSpec):
            built.append(CheckedTrial(fields, result, settings, {**start.origins, **origins}, workers))
            continue
        failures += 1
        errors = causes(result) if start.sound else [error for error in causes(result) if not _may_follow(error)]
        wrong |= _trace(root, stage, at, errors, fields, {**start.origins, **origins}, reported, problems)
        if isinstance(stage.sweep, Search):  # the next values are of the same range: one report is enough
            reported = problems.places()
    return built


def _may_follow(error: Any) -> bool:
    """True for errors that a mistake elsewhere in the trial may cause."""
    return error["type"] == "missing" or (error["type"] == "value_error" and isinstance(error["input"], Mapping))


def check_neighbours(
    root: YamlNode, stage: Stage, at: Steps, stand_in: CheckedTrial, values: Mapping[str, list[Any]], problems: Problems
) -> None:
    """Reports values of the neighbourhood that their field does not take.

    `values`: path -> the values that the sources' grids hold; for a path in no grid, the stand-in's value is moved.
    """
    assert stage.neighbourhood is not None
    near_node = root.find([*at, "neighbourhood", "near"])
    stand_in_values = stand_in.spec.model_dump(mode="json")
    for path, near in stage.neighbourhood.near.items():
        node = near_node.child(path) if near_node else None
        place = node.place if node else root.place_of(at)
        name = f"stages.{stage.name}.neighbourhood: {path}"
        if path == SEED or missing_step(TrialSpec, path) is not None:
            continue  # reported
        for value in values.get(path) or [lookup(stand_in_values, path)]:
            if isinstance(value, bool) or not isinstance(value, int | float):
                problems.report(place, name, show(value), "not a number; only numbers have a neighbourhood")
                break
            for moved in (moved for moved, left_out in nearby_values(value, near) if not left_out):
                result = _validate(apply(stand_in.fields, {path: moved}), stand_in.workers)
                if not isinstance(result, TrialSpec):
                    why = "; ".join(wording(TrialSpec, error) for error in result)
                    problems.report(place, name, f"{why} (moved from {value:g}; set low or high)")


def _settings(root: YamlNode, stage: Stage, at: Steps, problems: Problems) -> Iterator[tuple[Fields, Origins]]:
    """The overrides and axes of each trial, in the order of `points`, with where they are written: the node of each,
    and under "" that of the grid. Of a search, the middle and the ends of its ranges: points between them are checked
    when the search asks for them."""
    override = root.find([*at, "override"])
    fixed = dict(stage.override)
    origins = {path: node for path in fixed if override and (node := override.child(path))}
    grids = list(axes_of(root, stage, at))
    if isinstance(stage.sweep, Search):
        ranges = {path: node for key in ("search", "each") if (section := root.find([*at, "sweep", key]))
                  for path in [*stage.sweep.search, *stage.sweep.each] if (node := section.child(path))}  # fmt: skip
        yield from ((fixed | point, origins | ranges) for point in points(stage.sweep))
    elif not grids:
        yield fixed, origins
    for steps, axes in grids:
        lists = {path: axis_values(axis) for path, axis in axes.items()}
        written = {path: root.find([*steps, path]) for path in axes}
        grid = root.find(steps)
        whole = {"": grid} if grid else {}
        for path, values in lists.items():
            seen: set[str] = set()
            for n, value in enumerate(values):
                text, before = json.dumps(value, sort_keys=True), len(seen)
                seen.add(text)
                if len(seen) == before:
                    place = root.place_of([*steps, path, n])
                    problems.report(place, f"stages.{stage.name}.sweep.{path}", show(values[n]), "twice in this axis")
        for numbers in itertools.product(*(range(len(values)) for values in lists.values())):
            chosen = dict(zip(lists, numbers, strict=True))
            axis_origins = {path: (node.child(chosen[path]) or node) for path, node in written.items() if node}
            yield fixed | {path: lists[path][n] for path, n in chosen.items()}, origins | axis_origins | whole


def _trace(
    root: YamlNode, stage: Stage, at: Steps, errors: list[Any], fields: Fields, origins: Origins,
    reported: set[Location], problems: Problems,
) -> set[Location]:  # fmt: skip
    """Reports each error of a trial at its cause, unless a problem is reported there already. Returns their places."""
    found: set[Location] = set()
    for error in errors:
        exact_loc, of_key = exact(error)
        loc, what, remedy = _real(fields, exact_loc, error["type"]), wording(TrialSpec, error), ""
        if error["type"] == "missing":
            name = ".".join(map(str, loc))
            if any(name in problem.message for problem in problems):
                continue  # already reported for another stage
            if "" in origins and any(name in axes for _, axes in axes_of(root, stage, at)):
                what = "missing; another grid of this stage has it as an axis: add it here, or set it in trial"
                problems.report(origins[""].place, f"stages.{stage.name}", name, what)
                continue
            remedy = "; set it in trial, or as an axis or override of the stage"
        places = [trace(root, each, origins, of_key) for each in [*_several(loc, error, what), loc]]
        if not reported.intersection(places):
            name = ".".join(map(str, loc)) or "trial"
            problems.report(places[0], f"stages.{stage.name}", name, what + remedy)
            found.add(places[0])
    return found


def _several(loc: Steps, error: Any, what: str) -> list[Steps]:
    """The fields that the text of an error about several fields names."""
    if not isinstance(error["input"], dict) or error["type"] != "value_error":
        return []
    return [[*loc, word] for word in re.findall(r"\w+", what) if word in error["input"]]


def trace(root: YamlNode, loc: Steps, origins: Origins, key: bool = False) -> Location:
    """Where the value at a location of a trial is written: in an axis, an override or the base trial."""
    for length in range(len(loc), 0, -1):
        node = origins.get(".".join(map(str, loc[:length])))
        if node is not None:
            return node.place_of(loc[length:], key)
    return root.place_of(["trial", *loc], key)


def _real(fields: Fields, loc: Steps, kind: str) -> list[str | int]:
    """A location from pydantic without the names of union members. `kind`: of the error."""
    real: list[str | int] = []
    value: Any = fields
    told = False
    for i, step in enumerate(loc):
        if isinstance(value, dict) and not told and value.get("kind") == step:
            told = True  # once: `stage` is a kind of initial weights and a field of that kind
            continue
        inside = (isinstance(value, dict) and step in value) or (
            isinstance(value, list) and isinstance(step, int) and step < len(value)
        )
        if inside:
            value, told = value[step], False
        if inside or (i == len(loc) - 1 and kind in ("missing", "extra_forbidden")):
            real.append(step)
    return real


def _validate(fields: Fields, workers: int = 1) -> TrialSpec | list[Any]:
    """The trial, or pydantic's errors. Strict: the text '5' is not a number. Reading test is allowed here; the caller,
    which knows the stages, decides on it."""
    text = json.dumps({**fields, "may_test": True, "batch_workers": workers})
    try:
        return TrialSpec.model_validate_json(text, strict=True)
    except ValidationError as error:
        return list(error.errors())


def _errors(fields: Fields) -> list[Any]:
    result = _validate(fields)
    return [] if isinstance(result, TrialSpec) else result
