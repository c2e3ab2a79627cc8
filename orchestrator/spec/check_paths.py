"""Checks that the paths which a job names are fields of a trial, and that no override is without effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.rules.selection import read_tie
from orchestrator.spec.diagnostics import Problems, Steps, dotted, offer_fields
from orchestrator.spec.field_paths import leaf_paths, missing_step, names
from orchestrator.spec.job import PLANNER_ONLY, JobSpec, Stage
from orchestrator.spec.seeds import SEED, given_first
from orchestrator.spec.sweep import Grid, Search
from orchestrator.spec.yaml_nodes import Location, YamlNode
from workers.trial import TrialSpec


def trial_schema_paths() -> list[str]:
    """Every dotted path of a trial that an axis, an override or a neighbourhood may name."""
    return [path for path in leaf_paths(TrialSpec) if path not in PLANNER_ONLY]


def check_paths(root: YamlNode, job: JobSpec, problems: Problems) -> set[str]:
    """Checks all paths of the job. Returns the stages whose trials cannot be built for an unknown axis or override."""
    bad: set[str] = set()
    kind = only_kind(job)
    for i, stage in enumerate(job.stages):
        at: Steps = ["stages", i]
        for k, path in enumerate([] if isinstance(stage.sweep, Search) else stage.per):
            check_path(path, root.place_of([*at, "per", k]), f"stages.{stage.name}.per", problems, kind)
        for k, tie in enumerate(stage.ties):
            _check_tie(tie, root.place_of([*at, "ties", k]), f"stages.{stage.name}.ties", problems)
        if stage.neighbourhood is not None:
            near = [*at, "neighbourhood", "near"]
            for path in stage.neighbourhood.near:
                check_path(path, root.place_of([*near, path], key=True), dotted(root, near), problems, kind)
        named = [*axis_paths(root, stage, at), *(([*at, "override"], path) for path in stage.override)]
        good = [
            check_path(path, root.place_of([*steps, path], key=True), dotted(root, steps), problems, kind)
            for steps, path in named
        ]
        if not all(good):
            bad.add(stage.name)
        _check_clashes(root, stage, at, problems)
    for name, path in (("rows", job.report.rows), ("columns", job.report.columns)):
        check_path(path, root.place_of(["report", name]), f"report.{name}", problems, kind)
    for k, plot in enumerate(job.report.plots):
        if "." in plot.x:  # else the name of a figure
            check_path(plot.x, root.place_of(["report", "plots", k, "x"]), "report.plots.x", problems, kind)
    return bad


_KINDS = ("task", "task.kind")
"""Paths that set the kind of task."""


def check_path(path: str, place: Location, name: str, problems: Problems, kind: str | None = None) -> bool:
    """True if `path` is a field of a trial that a user may name; reports it otherwise. `kind`: the kind of task whose
    fields the message names; None: those of all."""
    if path in PLANNER_ONLY:
        problems.report(place, name, path, "set by the planner alone; remove it")
        return False
    missing = missing_step(TrialSpec, path)
    if missing is None:
        return True
    index, siblings = missing
    steps = path.split(".")
    known = [each for each in siblings if each not in PLANNER_ONLY]
    fields = f"fields of {'.'.join(steps[:index]) or 'a trial'}"
    paths = trial_schema_paths()
    if kind is not None and steps[:index] == ["task"]:
        known = [each for each in known if each in names(TrialSpec, ["task", kind])]
        fields += f" ({kind})"
        paths = [each for each in paths if not each.startswith("task.") or each.split(".")[1] in known]
    problems.report(place, name, path, f"no such field of a trial; {offer_fields(path, known, fields, paths)}")
    return False


def only_kind(job: JobSpec) -> str | None:
    """The kind of task of all trials of the job; None where stages set several."""
    task = job.trial.get("task")
    stated = [task.get("kind")] if isinstance(task, Mapping) else []
    for stage in job.stages:
        stated += [value if path == "task.kind" else None for path, value in stage.override.items() if path in _KINDS]
        for axes in stage.sweep.grid if isinstance(stage.sweep, Grid) else ():
            stated += [None for path in axes if path in _KINDS]
    kind = stated[0] if stated else None
    return kind if isinstance(kind, str) and all(other == kind for other in stated) else None


def check_effect(root: YamlNode, job: JobSpec, problems: Problems) -> None:
    """Reports overrides on the command line of a field that every stage sets itself: they would change nothing."""
    trial = root.child("trial")
    reported = problems.places()
    for path, place in _overridden(trial, "") if trial else ():
        if place in reported:
            continue  # a wrong value
        setters = {
            stage.name: [at for at in [*stage.override, *(p for _, p in axis_paths(root, stage, ["stages", i])),
                                       *([SEED] if given_first(stage) is not None else [])]
                         if (path + ".").startswith(at + ".")]
            for i, stage in enumerate(job.stages) if not stage.from_
        }  # fmt: skip
        if setters and all(setters.values()):
            stages = ", ".join(setters)
            what = f"has no effect: set by stage {stages}; override it there: stages.{next(iter(setters))}..."
            problems.report(place, path, what)


def _overridden(node: YamlNode, path: str) -> Iterator[tuple[str, Location]]:
    """Fields below a node that come from the command line (which have no line number)."""
    if path and not node.place.line:
        yield path, node.place
    elif isinstance(node.value, dict):
        for key, child in node.value.items():
            yield from _overridden(child, f"{path}.{key}" if path else key)


def axes_of(root: YamlNode, stage: Stage, at: Steps) -> Iterator[tuple[list[str | int], Mapping[str, Any]]]:
    """Each grid of the stage's sweep, with the steps to its node."""
    if not isinstance(stage.sweep, Grid):
        return
    steps: list[str | int] = [*at, "sweep", "grid"]
    node = root.find(steps)
    for k, axes in enumerate(stage.sweep.grid):
        yield ([*steps, k] if node and isinstance(node.value, list) else steps), axes


def axis_paths(root: YamlNode, stage: Stage, at: Steps) -> Iterator[tuple[Steps, str]]:
    """The fields of which the stage's sweep tries values, each with the steps to the mapping that names it."""
    for steps, axes in axes_of(root, stage, at):
        yield from ((steps, path) for path in axes)
    if isinstance(stage.sweep, Search):
        yield from (([*at, "sweep", "search"], path) for path in stage.sweep.search)
        yield from (([*at, "sweep", "each"], path) for path in stage.sweep.each)


def _check_tie(tie: str, place: Location, name: str, problems: Problems) -> None:
    try:
        rule = read_tie(tie)
    except ValueError:
        problems.report(place, name, tie, "must be figure:NAME:min, figure:NAME:max, PATH:min or PATH:max")
        return
    if not rule.figure and rule.name == SEED:
        problems.report(place, name, tie, "a seed decides nothing: remove it")
    elif not rule.figure:
        check_path(rule.name, place, name, problems)


def _check_clashes(root: YamlNode, stage: Stage, at: Steps, problems: Problems) -> None:
    """Reports a field that is both an axis and an override: one of them would have no effect."""
    for steps, path in axis_paths(root, stage, at):
        for other in stage.override:
            if (other + ".").startswith(path + "."):  # one above the axis is fine
                place = root.place_of([*at, "override", other], key=True)
                axis = root.place_of([*steps, path], key=True)
                what = f"also an axis of this stage's grid ({axis}); keep one of them"
                problems.report(place, f"stages.{stage.name}.override", other, what)
