"""Answers questions about a job's recorded spec, which is plain JSON here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

APPLIED_TO = ("seed", "task.dataset")
"""As job.APPLIED_TO: several values of these are still one setting. (That module brings pydantic along.)"""


def last_stages(spec: Mapping[str, Any]) -> list[str]:
    """Stages with one setting (with any seeds, on any data sets) on which no other stage builds: the ends of a job."""
    built_on = {init.get("stage") for init in initial_weights(spec) if init.get("kind") == "stage"}
    for stage in spec.get("stages", ()):
        built_on |= set(stage.get("from") or ())
    return [
        stage["name"]
        for stage in spec.get("stages", ())
        if stage["name"] not in built_on and not stage.get("neighbourhood") and _one_setting(stage.get("sweep") or {})
    ]


def _one_setting(sweep: Mapping[str, Any]) -> bool:
    if _searches({"sweep": sweep}):
        return False
    grids = sweep.get("grid") or []
    others = [{path: axis for path, axis in axes.items() if path not in APPLIED_TO} for axes in grids]
    several = any(not isinstance(axis, list) or len(axis) > 1 for axes in others for axis in axes.values())
    return not several and all(axes == others[0] for axes in others)


def _searches(stage: Mapping[str, Any]) -> bool:
    return "search" in (stage.get("sweep") or {})


def trains_on(stage: Mapping[str, Any]) -> bool:
    """Whether the stage is population-based training, whose trials go on from each other's state."""
    return bool((stage.get("sweep") or {}).get("population"))


def is_part(spec: Mapping[str, Any]) -> bool:
    """Whether a trial trained only the beginning of a schedule: its figures are not those of a whole one."""
    return bool(spec.get("span")) and spec["span"]["last_epoch"] != spec["optim"]["epochs"]


def _stages(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {stage["name"]: stage for stage in spec.get("stages", ())}


def initial_weights(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every `{kind: stage, ...}` and `{kind: trial, ...}` anywhere in a job's spec."""
    if isinstance(value, Mapping):
        if (value.get("kind") == "stage" and "stage" in value) or (value.get("kind") == "trial" and "trial" in value):
            yield value
        for below in value.values():
            yield from initial_weights(below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from initial_weights(below)


def expected(spec: Mapping[str, Any], stages: Iterable[str]) -> list[dict[str, str]]:
    """The groups the spec asks for, `per` path -> label, in its order; also those that have no trial yet.

    Only lists are expanded: nobody groups by a spaced axis, and if so its groups appear with their trials.
    """
    groups: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    wanted = set(stages)
    for stage in spec["stages"]:
        if stage["name"] not in wanted or not stage.get("per"):
            continue
        for axes in stage["sweep"].get("grid") or [stage["sweep"].get("each", {})]:
            found: list[dict[str, str]] = [{}]
            for path in stage["per"]:
                axis = axes.get(path, [stage.get("override", {}).get(path, setting(spec["trial"], path))])
                if isinstance(axis, list):
                    found = [{**group, path: label(value)} for group in found for value in axis]
            for group in found:
                groups.setdefault(tuple(group.items()), group)
    return list(groups.values())


def setting(trial: Mapping[str, Any], path: str) -> Any:
    """A field of a trial's JSON by its dotted path; None where it has none."""
    here: Any = trial
    for step in path.split("."):
        if not isinstance(here, Mapping):
            return None
        here = here.get(step)
    return here


def sources(stages: Mapping[str, Mapping[str, Any]], stage: str) -> list[str]:
    """The stages whose winners lead to `stage`, in the spec's order, itself last."""
    found = {stage}
    for name in reversed(list(stages)):
        if name in found:
            found.update(stages[name].get("from") or [])
    return [name for name in stages if name in found]


def label(value: Any) -> str:
    """A setting as people read it: a mapping by its `name` (of described data also the last part of their path), a
    number short."""
    if isinstance(value, Mapping):
        last = PurePath(str(value.get("path") or "")).name
        return str(value.get("name") or last or value.get("kind") or dict(value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
