"""Draws the table's values against another figure or a setting of each trial, or of those whose weights it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.records.recorded_spec import lookup
from orchestrator.report.figures import scaled, title
from orchestrator.report.formatting import finite
from orchestrator.report.model import Cell, Scatter, ScatterPoint
from orchestrator.report.wording import field_title

if TYPE_CHECKING:
    from orchestrator.report.job_results import JobResults


def scatters(results: JobResults, cells: Sequence[Cell]) -> tuple[Scatter, ...]:
    """The plots that the spec asks for; of several figures in the table they show the first."""
    shown = [cell for cell in cells[:: len(results.figures)] if cell.value is not None]
    several = len({column.name for column in results.columns}) > 1
    names = [f"{cell.row}, {cell.column}" if several else cell.row for cell in shown]
    return tuple(
        _scatter(results, plot, dict(zip(names, shown, strict=True))) for plot in results.table.get("plots", [])
    )


def _scatter(results: JobResults, plot: Mapping[str, Any], cells: Mapping[str, Cell]) -> Scatter:
    inherited = plot["of"] == "parent"
    dots: list[ScatterPoint] = []
    left_out: list[str] = []
    without_error: list[str] = []
    x_name, y_name = plot["x"], plot["y"]
    for name, cell in cells.items():
        y_title, y = _height(cell, plot["y"])
        numbers = [number for key in cell.keys if (number := _figure(results, key, plot["x"], inherited))]
        if y is None:
            without_error.append(name)
            continue
        if not numbers:
            left_out.append(name)
            continue
        x_name, y_name = numbers[0][1], y_title
        dots.append(ScatterPoint(name, cell.keys, sum(value for value, _ in numbers) / len(numbers), y))
    return Scatter(
        plot["title"],
        f"{x_name} of the weights" if inherited else x_name,
        y_name,
        tuple(sorted(dots, key=lambda dot: (dot.x, dot.name))),
        tuple(left_out),
        tuple(without_error),
    )


def _height(cell: Cell, wanted: str) -> tuple[str, float | None]:
    """Title and value of a dot's height: the cell's own figure, or 1 less it where the metric names that."""
    metric = cell.figure
    if wanted == "value" or cell.value is None:
        return title(metric), cell.value
    unit = f" ({metric.unit})" if metric.unit else ""
    return metric.complement + unit, metric.scale - cell.value if metric.complement else None


def _figure(results: JobResults, key: str, name: str, inherited: bool) -> tuple[float, str] | None:
    """Value and title of a figure or setting (dotted) of a trial, or of the nearest one up its lineage that has it."""
    at: str | None = results.store.trials.get(key).parent if inherited else key
    while at is not None:
        row = results.store.trials.get(at)
        if "." in name and (number := _setting(row.spec, name)) is not None:
            return number, field_title(name)
        if name in row.figures:
            metric = next((metric for metric in row.metrics if metric.name == name), None)
            value = scaled(row.figures[name], metric) if metric else finite(row.figures[name])
            return None if value is None else (value, title(metric) if metric else name)
        at = row.parent if inherited else None
    return None


def _setting(spec: Mapping[str, Any], path: str) -> float | None:
    """The number at a path of a trial's spec; None for anything else."""
    value = lookup(spec, path)
    return finite(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None
