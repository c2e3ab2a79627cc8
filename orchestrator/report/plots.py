"""Plots beside the table: its values against another figure or a field of each trial, or of those it starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.records.recorded_spec import label, lookup
from orchestrator.report.drawings import Scatter, ScatterPoint
from orchestrator.report.figures import UNKNOWN, scaled, title
from orchestrator.report.formatting import finite
from orchestrator.report.model import Cell
from orchestrator.report.wording import field_title

if TYPE_CHECKING:
    from orchestrator.records.rows import MetricRow
    from orchestrator.report.job_results import JobResults


def plots(results: JobResults, cells: Sequence[Cell]) -> tuple[Scatter, ...]:
    """The plots that the spec asks for; of several figures in the table they show the first."""
    first = cells[:: len(results.figures)]
    several = len({column.name for column in results.columns}) > 1
    named = {f"{cell.row}, {cell.column}" if several else cell.row: cell for cell in first}
    settings = {row.key: row.settings for row in results.placed if results.x_paths}
    return tuple(
        _curves(results, plot, named, {key: _number(setting.get(plot["x"])) for key, setting in settings.items()})
        if _varies(plot["x"], first, settings)
        else _scatter(results, plot, named)
        for plot in results.table.get("plots", [])
    )


def _varies(path: str, cells: Sequence[Cell], settings: Mapping[str, Mapping[str, Any]]) -> bool:
    """True if the trials of a cell differ in this field."""
    values = ([settings[key].get(path) for key in cell.keys if key in settings] for cell in cells)
    return any(len(set(map(label, each))) > 1 for each in values)


def _scatter(results: JobResults, plot: Mapping[str, Any], cells: Mapping[str, Cell]) -> Scatter:
    """A dot for each cell with a value, at a figure or field of its trials or of those that they start from."""
    inherited = plot["of"] == "parent"
    dots: list[ScatterPoint] = []
    left_out: list[str] = []
    without_error: list[str] = []
    x_name, y_name = plot["x"], plot["y"]
    for name, cell in cells.items():
        if cell.value is None:
            continue
        y_title, y = _height(cell.value, cell.figure, plot["y"])
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


def _curves(
    results: JobResults, plot: Mapping[str, Any], cells: Mapping[str, Cell], x_values: Mapping[str, float | None]
) -> Scatter:
    """A curve for each cell: the mean over the seeds of its trials at each value of a field. `x_values`: by trial."""
    recorded = results.store.trials.figures({key for cell in cells.values() for key in cell.keys})
    dots: list[ScatterPoint] = []
    left_out: list[str] = []
    without_error: list[str] = []
    metric = next((cell.figure for cell in cells.values() if cell.figure.name), UNKNOWN)
    for name, cell in cells.items():
        points: dict[float, dict[str, float]] = {}
        for key in cell.keys:
            x, y = x_values.get(key), scaled(recorded.get(key, {}).get(cell.figure.name), cell.figure)
            if x is not None and y is not None:
                points.setdefault(x, {})[key] = y
        if not points:
            left_out += [name] if cell.keys else []
            continue
        for x, values in points.items():
            y = _height(sum(values.values()) / len(values), cell.figure, plot["y"])[1]
            if y is None:
                without_error.append(name)
                break
            dots.append(ScatterPoint(name, tuple(values), x, y))
    return Scatter(
        plot["title"],
        field_title(plot["x"]),
        _height(0.0, metric, plot["y"])[0],
        tuple(sorted(dots, key=lambda dot: (dot.x, dot.name))),
        tuple(left_out),
        tuple(without_error),
        curves=True,
    )


def _height(value: float, metric: MetricRow, wanted: str) -> tuple[str, float | None]:
    """Title and value of a dot's height: the figure itself, or its complement; None if it has no complement."""
    if wanted == "value":
        return title(metric), value
    unit = f" ({metric.unit})" if metric.unit else ""
    return metric.complement + unit, metric.scale - value if metric.complement else None


def _number(value: Any) -> float | None:
    """A setting as a number; None for anything else."""
    return finite(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _figure(results: JobResults, key: str, name: str, inherited: bool) -> tuple[float, str] | None:
    """Value and title of a figure or field (dotted) of a trial, or of the nearest one up its lineage that has it."""
    at: str | None = results.store.trials.get(key).parent if inherited else key
    while at is not None:
        row = results.store.trials.get(at)
        if "." in name and (number := _number(lookup(row.spec, name))) is not None:
            return number, field_title(name)
        if name in row.figures:
            metric = next((metric for metric in row.metrics if metric.name == name), None)
            value = scaled(row.figures[name], metric) if metric else finite(row.figures[name])
            return None if value is None else (value, title(metric) if metric else name)
        at = row.parent if inherited else None
    return None
