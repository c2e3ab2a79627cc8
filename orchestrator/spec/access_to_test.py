"""The rule for which stages may read test data."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection

from orchestrator.records.recorded_spec import setting_at, varied_paths
from orchestrator.spec.job import JobSpec, Stage
from orchestrator.spec.sweep import Grid, Search, apart, axis_values


def why_refused(job: JobSpec, number: int) -> str | None:
    """Why stage `number` (from 0) may not read test; None if it may, unless another stage starts from its weights.

    Nothing may be chosen by figures on test. So no later stage takes a winner, and every axis along which the trials
    of the stage differ is one that the report shows whole: its rows, its columns, the x axis of a plot, or the seed; or
    follows from those, as the image size follows from the model where each grid of the stage has one of both.
    """
    stage = job.stages[number]
    if consumers := job.consumers(number):
        return f"winners are chosen from this stage (by {', '.join(other.name for other in consumers)})"
    if stage.neighbourhood is not None:
        return "this stage searches a neighbourhood"
    if isinstance(stage.sweep, Search):
        return "this stage searches"
    report = job.report
    shown = {"seed", report.rows, report.columns, *(plot.x for plot in report.plots if plot.of == "trial")}
    if hidden := [path for path in _axes(job, number) if path not in shown and not _follows(stage, path, shown)]:
        return (
            f"this stage tries several values of {hidden[0]}, and to take the best of them on test would be a choice; "
            f"{hidden[0]} is no row, column or x axis of the report"
        )
    return None


def _follows(stage: Stage, path: str, shown: Collection[str]) -> bool:
    """True if the value at `path` follows from shown values: every grid has one, and grids with different ones have no
    value of some shown field in common. Not from the seed: a value for each seed would be chosen with the seed."""
    grids = stage.sweep.grid if isinstance(stage.sweep, Grid) else []
    values = [axis for axes in grids if isinstance(axis := axes.get(path), list) and len(axis) == 1]
    if not grids or len(values) < len(grids):
        return False
    return all(
        axes[path] == others[path] or any(apart(axes.get(name), others.get(name)) for name in shown if name != "seed")
        for axes, others in itertools.combinations(grids, 2)
    )


def _axes(job: JobSpec, number: int) -> list[str]:
    """Paths of which the stage's trials have several values: of its own sweep, or of the groups of its sources."""
    stage = job.stages[number]
    own = varied_paths(stage.sweep.model_dump(mode="json", by_alias=True))
    per = _per(job, number)
    groups = [
        inner
        for source in _sources(job, number)
        for path in _axes(job, source)
        for field in per
        if (inner := _inner(job, path, field))
    ]
    return list(dict.fromkeys([*groups, *own]))


def _inner(job: JobSpec, axis: str, field: str) -> str | None:
    """The field along which the groups of `field` differ where trials differ along `axis`: the axis where it lies in
    the section that forms the groups (`per: optim` of values of optim.lr), the field where its section is the axis and
    the values of that differ in it, None where neither lies in the other."""
    if axis == field or axis.startswith(f"{field}."):
        return axis
    if not field.startswith(f"{axis}."):
        return None
    values = {
        json.dumps(setting_at({axis: value}, field))
        for stage in job.stages
        for axes in (stage.sweep.grid if isinstance(stage.sweep, Grid) else [])
        for value in (axis_values(axes[axis]) if axis in axes else [])
    }
    return field if len(values) > 1 else None


def _sources(job: JobSpec, number: int) -> list[int]:
    """The earlier stages whose winners a stage takes."""
    return [i for i, each in enumerate(job.stages[:number]) if each.name in job.stages[number].from_]


def _per(job: JobSpec, number: int) -> list[str]:
    """The fields that form the stage's groups: its own, or those of the stages whose winners it takes."""
    sources = _sources(job, number)
    return _per(job, sources[0]) if sources else job.stages[number].per
