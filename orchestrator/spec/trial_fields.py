"""Reads and sets the fields of a trial's spec by dotted path, and names its group."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.records.recorded_spec import lookup
from orchestrator.spec.job import Near
from tasks.base import Task
from workers.trial import TrialSpec, plain_number


def group_of(spec: TrialSpec, per: list[str]) -> tuple[str, dict[str, Any]]:
    """The id of the trial's group ("digits/RAND"; "all" without `per`) and the values that form it, by path."""
    values = spec.model_dump(mode="json")
    formed_by = {path: _by_name(lookup(values, path)) for path in per}
    return "/".join(short(value) for value in formed_by.values()) or "all", formed_by


def settings_of(spec: TrialSpec, paths: Iterable[str]) -> dict[str, Any]:
    """The trial's values at those of `paths` that it has; initial weights by their name."""
    values = spec.model_dump(mode="json")
    settings = {path: lookup(values, path, _Missing) for path in paths}
    return {path: _by_name(value) for path, value in settings.items() if value is not _Missing}


def steps_per_epoch(spec: TrialSpec) -> int:
    """Optimizer steps of an epoch by the number of samples that the task states, before the data are opened."""
    return max(1, spec.task.train_samples // spec.optim.batch)


def split_path(task: Task) -> str:
    """Path of the trial's field that says which split is evaluated; empty: no field does."""
    return f"task.{task.split_field}" if task.split_field else ""


class _Missing:
    """Marks a path that a trial does not have: None may be its value."""


def _by_name(value: Any) -> Any:
    """The `name` of a mapping that has one, such as initial weights; any other value unchanged."""
    return value["name"] if isinstance(value, Mapping) and "name" in value else value


def short(value: Any) -> str:
    """A value as text for group ids and trial names: a float in six digits, anything but text as JSON."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def apply(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `base` with each dotted path set, in order; missing mappings on the way are made.

    Raises ValueError if a path leads through something other than a mapping.
    """
    result = dict(base)
    for path, value in values.items():
        *parents, last = path.split(".")
        level = result
        for step in parents:
            below = level.get(step)
            if below is not None and not isinstance(below, Mapping):
                raise ValueError(f"{path}: {step} is {below!r}, not a mapping")
            level[step] = level = dict(below or {})
        level[last] = value
    return result


def nearby_values(value: float, near: Near) -> list[tuple[float, str]]:
    """The values around `value`, each once, in the order in which `near` lists them: multiples first, then steps.

    With each comes the reason why it is left out, for one beyond low or high; "" for the others.
    """
    moved = [*(value * factor for factor in near.multiply), *(value + step for step in near.add)]
    return [(number, _beyond(number, near)) for number in dict.fromkeys(map(plain_number, moved))]


def _beyond(value: float, near: Near) -> str:
    if near.low is not None and value < near.low:
        return f"below low {near.low:g}"
    if near.high is not None and value > near.high:
        return f"above high {near.high:g}"
    return ""
