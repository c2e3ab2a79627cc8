"""Reads and sets the fields of a trial's spec by dotted path, and names its group."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from workers.trial import TrialSpec


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


def apply(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with each dotted path set, in order; mappings on the way are copied (or made), never changed in place.

    Raises ValueError when a path leads through something that is no mapping.
    """
    result = dict(base)
    for path, value in values.items():
        *way, last = path.split(".")
        here = result
        for step in way:
            below = here.get(step)
            if below is not None and not isinstance(below, Mapping):
                raise ValueError(f"{path}: {step} is {below!r}, not a mapping")
            here[step] = here = dict(below or {})
        here[last] = value
    return result
