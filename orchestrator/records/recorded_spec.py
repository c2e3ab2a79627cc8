"""Answers questions about a job's recorded spec, which is plain JSON here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

APPLIED_TO = ("seed", "task.dataset")
"""Fields that are no part of a setting: a stage that applies one setting to several seeds and data sets is the end of
its job, whose weights are kept. A recorded spec does not say which fields of its task name data sets
(`tasks.base.Task.data_fields`), so this is the usual one. A stage with another such axis is no end by this rule, but
where that axis forms its groups, as the table's rows or columns do, each group's best trial is kept as such."""


RANDOM: Mapping[str, str] = {"kind": "none", "name": "RAND"}
"""Random initial weights, whose name a spec may leave out, as it may leave out `backbone.init`."""


def last_stages(spec: Mapping[str, Any]) -> list[str]:
    """The ends of a job: stages with one setting (any seeds, any data sets) on which no other stage builds."""
    built_on = {init.get("stage") for init in initial_weights(spec) if init.get("kind") == "stage"}
    for stage in spec.get("stages", ()):
        built_on |= set(stage.get("from") or ())
    return [
        stage["name"]
        for stage in spec.get("stages", ())
        if stage["name"] not in built_on and not stage.get("neighbourhood") and one_setting(stage.get("sweep") or {})
    ]


def one_setting(sweep: Mapping[str, Any]) -> bool:
    """True if all points of a sweep are one setting, with any number of seeds and data sets."""
    return not is_search({"sweep": sweep}) and set(varied_paths(sweep)) <= set(APPLIED_TO)


def varied_paths(sweep: Mapping[str, Any]) -> list[str]:
    """Paths of which a sweep tries several values; of a search, those that form its groups too."""
    if is_search({"sweep": sweep}):
        return [*sweep["search"], *(path for path, axis in (sweep.get("each") or {}).items() if _several(axis))]
    grids = sweep.get("grid") or []
    paths = dict.fromkeys(path for axes in grids for path in axes)
    return [
        path
        for path in paths
        if any(_several(axes.get(path)) or axes.get(path) != grids[0].get(path) for axes in grids)
    ]


def _several(axis: Any) -> bool:
    """True for a list of several values, and for a spaced axis."""
    return axis is not None and (not isinstance(axis, list) or len(axis) > 1)


def is_search(stage: Mapping[str, Any]) -> bool:
    """True if the stage's sweep is a search."""
    return "search" in (stage.get("sweep") or {})


def replicates(stage: Mapping[str, Any]) -> int:
    """With how many seeds each setting of the stage runs; 0 for a stage without replicates, whose trials are compared
    one by one."""
    asked = stage.get("replicates") or 0
    return int(asked["n"] if isinstance(asked, Mapping) else asked)


def trains_on(stage: Mapping[str, Any]) -> bool:
    """True for population-based training, whose trials resume from each other's training state."""
    return bool((stage.get("sweep") or {}).get("population"))


def is_part(spec: Mapping[str, Any]) -> bool:
    """True if the trial (its spec is given) trained only the beginning of its schedule: its figures are not final."""
    return bool(spec.get("span")) and spec["span"]["last_epoch"] != rounds(spec)


def rounds(spec: Mapping[str, Any]) -> int:
    """Rounds of a trial's whole schedule: its epochs, or what `runtime.report_iterations` makes of its iterations. (As
    `workers.trial.TrialSpec.rounds`, for a trial that trains.)"""
    iterations = spec["optim"].get("iterations")
    if iterations is None:
        return int(spec["optim"]["epochs"])
    return math.ceil(int(iterations) / int(spec["runtime"]["report_iterations"]))


def stages_by_name(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The stages of a job's spec, in its order."""
    return {stage["name"]: stage for stage in spec.get("stages", ())}


def initial_weights(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yields every `{kind: stage, ...}` and `{kind: trial, ...}` found anywhere in a job's spec."""
    if isinstance(value, Mapping):
        if (value.get("kind") == "stage" and "stage" in value) or (value.get("kind") == "trial" and "trial" in value):
            yield value
        for below in value.values():
            yield from initial_weights(below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from initial_weights(below)


def parents(trial: Mapping[str, Any]) -> list[str]:
    """Keys of the trials whose weights a trial (its spec is given) starts from or reads, each once: the one that its
    backbone starts from first."""
    first = lookup(trial, "backbone.init", {})
    keys = [init["trial"] for init in (first, *initial_weights(trial)) if init.get("kind") == "trial"]
    return list(dict.fromkeys(keys))


def has_given_weights(value: Any) -> bool:
    """True if a model anywhere in a trial's spec starts (`init`) from weights of a file or of timm."""
    if isinstance(value, Mapping):
        init = value.get("init")
        if isinstance(init, Mapping) and init.get("kind") in ("file", "timm"):
            return True
        return any(map(has_given_weights, value.values()))
    return isinstance(value, list | tuple) and any(map(has_given_weights, value))


def expected(spec: Mapping[str, Any], stages: Iterable[str]) -> list[dict[str, str]]:
    """The groups that the spec asks for, each as `per` path -> label, in its order; trials need not exist yet.

    Only lists are expanded. Groups along a spaced axis (nobody needs them) show up once they have trials.
    """
    groups: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    wanted = set(stages)
    for stage in spec["stages"]:
        if stage["name"] not in wanted or not stage.get("per"):
            continue
        for axes in stage["sweep"].get("grid") or [stage["sweep"].get("each", {})]:
            for point in along(axes, stage["per"]):
                group = {}
                for path in stage["per"]:
                    fixed = label(setting_at(stage.get("override", {}), path, base_value(spec["trial"], path)))
                    if path in point or axis_of(axes, path) is None:  # else along a spaced axis
                        group[path] = point.get(path, fixed)
                groups.setdefault(tuple(group.items()), group)
    return list(groups.values())


def along(axes: Mapping[str, Any], paths: Iterable[str]) -> list[dict[str, str]]:
    """What a grid tries at these paths: path -> label, for those that lie on a list of values, also on one of whole
    mappings above the path (`task`, of task.dataset). Other paths are left out; without any, one empty combination."""
    wanted = {path: axis for path in paths if (axis := axis_of(axes, path)) and isinstance(axes[axis], list)}
    listed = list(dict.fromkeys(wanted.values()))
    combinations = (
        dict(zip(listed, values, strict=True)) for values in itertools.product(*(axes[axis] for axis in listed))
    )
    return [{path: label(setting_at(point, path)) for path in wanted} for point in combinations]


def axis_of(axes: Mapping[str, Any], path: str) -> str | None:
    """The axis that sets the field at a path: of that path, or of a mapping above it; None if none does."""
    steps = path.split(".")
    return next((name for n in range(len(steps), 0, -1) if (name := ".".join(steps[:n])) in axes), None)


def setting_at(values: Mapping[str, Any], path: str, missing: Any = None) -> Any:
    """The value at a path among settings by dotted path, of which one may be a whole mapping above it."""
    axis = axis_of(values, path)
    if axis is None or axis == path:
        return missing if axis is None else values[path]
    return (
        lookup(values[axis], path.removeprefix(f"{axis}."), unwritten(path) or missing)
        if isinstance(values[axis], Mapping)
        else missing
    )


def lookup(values: Mapping[str, Any], path: str, missing: Any = None) -> Any:
    """The value at a dotted path in nested mappings, for example a trial's JSON; `missing` if there is none."""
    value: Any = values
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return missing
        value = value[step]
    return value


def base_value(trial: Mapping[str, Any], path: str) -> Any:
    """The value at a path of the base trial as it is written; random initial weights where none are."""
    return lookup(trial, path, unwritten(path))


def unwritten(path: str) -> Any:
    """What a field at a path is where its section does not have it: random initial weights; None for other fields."""
    return lookup({"backbone": {"init": RANDOM}}, path)


def sources(stages: Mapping[str, Mapping[str, Any]], stage: str) -> list[str]:
    """The stages whose winners lead to `stage`, in the spec's order, with `stage` itself last."""
    leading = {stage}
    for name in reversed(list(stages)):
        if name in leading:
            leading.update(stages[name].get("from") or [])
    return [name for name in stages if name in leading]


def label(value: Any) -> str:
    """A setting as text: a mapping by its `name`, else the last part of its `path`, else its `kind`; a number in six
    digits."""
    if isinstance(value, Mapping):
        last = PurePath(str(value.get("path") or "")).name
        if value.get("kind") == RANDOM["kind"]:
            value = {**RANDOM, **value}
        return str(value.get("name") or last or value.get("kind") or dict(value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
