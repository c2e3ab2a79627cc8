"""The only place that makes a job out of a spec file: profile, overrides, and every check before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator import document
from orchestrator.document import Node, Place, Problem
from orchestrator.errors import SpecError
from orchestrator.job import (
    Average,
    Axes,
    Axis,
    Grid,
    JobSpec,
    LinSpace,
    LogSpace,
    Near,
    Neighbourhood,
    One,
    Path_,
    Reference,
    ReportSpec,
    Resources,
    Stage,
    apply,
    axis_values,
    job_id,
    points,
)

__all__ = [
    "Average", "Axes", "Axis", "Grid", "JobSpec", "LinSpace", "LogSpace", "Near", "Neighbourhood", "One", "Path_",
    "Reference", "ReportSpec", "Resources", "Stage", "apply", "axis_values", "job_id", "load", "points",
]  # fmt: skip


def load(path: str | Path, profile: str | None = None, overrides: Sequence[str] = ()) -> JobSpec:
    """Reads a spec file, lays the profile and the overrides over it, checks everything. Raises SpecError."""
    text, doc = document.read(path)
    if doc.problems:
        raise SpecError([str(p) for p in doc.problems])
    root = doc.root
    profiles = root.child("profiles")
    fields = {k: v for k, v in root.value.items() if k != "profiles"}  # type: ignore
    root = Node(root.place, fields, root.keys)
    if profile is None:
        named = root.child("profile")
        profile = str(named.value) if named else ""
    if profile:
        root = lay(root, profiles.child(profile))  # type: ignore
        root.value["profile"] = Node(root.place, profile)  # type: ignore
    for override in overrides:
        at, _, value = override.partition("=")
        doc = document.parse_value(value, "--set " + override)
        steps = at.split(".")
        if steps[0] not in JobSpec.model_fields:
            steps = ["trial", *steps]
        here = root
        for step in steps[:-1]:
            if isinstance(here.value, list):
                here = next(n for n in here.value if n.child("name").value == step)
            else:
                here = here.value.setdefault(step, Node(root.place, {}))  # type: ignore
        here.value[steps[-1]] = doc.root  # type: ignore
    try:
        return JobSpec.model_validate(root.plain())
    except ValidationError as error:
        raise SpecError([f"{root.place_of(e['loc'])}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]) from None


def lay(base: Node, over: Node) -> Node:
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        if isinstance(base.value, list) and isinstance(over.value, dict):
            items = {n.child("name").value: n for n in base.value}  # type: ignore
            for k, v in over.value.items():
                if v.value is None: items.pop(k)
                else: items[k] = lay(items.get(k, Node(v.place, {"name": Node(v.place, k)})), v)
            return Node(base.place, list(items.values()))
        return over
    kinds = [n.child("kind").value if n.child("kind") else None for n in (base, over)]
    if kinds[1] is not None and kinds[0] != kinds[1]:
        return over
    merged = dict(base.value)
    for k, v in over.value.items():
        merged[k] = lay(merged[k], v) if k in merged else v
    return Node(base.place, merged, base.keys | over.keys)
