"""Plots beside the table: its values against another figure or a field of each trial, or of those it starts from."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.records.recorded_spec import label, lookup
from orchestrator.report.drawings import Scatter, ScatterPoint
from orchestrator.report.figures import UNKNOWN, scaled, title
from orchestrator.report.formatting import finite
from orchestrator.report.model import Cell
from orchestrator.report.replicates import by_seed, by_setting
from orchestrator.report.statistics import mean_interval
from orchestrator.report.wording import field_title

if TYPE_CHECKING:
    from orchestrator.records.rows import MetricRow, PlacedRow
    from orchestrator.report.job_results import JobResults

NULL = "null"
"""The word on an axis for a field that is not set."""


def plots(results: JobResults, cells: Sequence[Cell]) -> tuple[Scatter, ...]:
    """The plots that the spec asks for; of several figures in the table they show the first."""
    first = cells[:: len(results.figures)]
    several = len({column.name for column in results.columns}) > 1
    named = {f"{cell.row}, {cell.column}" if several else cell.row: cell for cell in first}
    trials = {row.key: row for row in results.placed if results.x_paths}
    rows = {row: [cell for cell in first if cell.row == row] for row in results.rows}
    return tuple(
        _curves(results, plot, rows, trials)
        if plot["x"] == results.column_path
        else _curves(results, plot, {name: [cell] for name, cell in named.items()}, trials)
        if _varies(plot["x"], first, trials)
        else _scatter(results, plot, named)
        for plot in results.table.get("plots", [])
    )


def _varies(path: str, cells: Sequence[Cell], trials: Mapping[str, PlacedRow]) -> bool:
    """True if the trials of a cell differ in this field."""
    values = ([trials[key].settings.get(path) for key in cell.keys if key in trials] for cell in cells)
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
        *_second(results, plot.get("second"), {dot.name: (cells[dot.name], dot.x) for dot in dots}),
    )


def _second(
    results: JobResults, wanted: Mapping[str, Any] | None, dots: Mapping[str, tuple[Cell, float]]
) -> tuple[str, tuple[ScatterPoint, ...], tuple[str, ...]]:
    """Title and dots of the second axis, and the names of dots that it has nothing for, each with why: the mean of its
    figure over the seeds of the one setting of the other stage that stands in the same row and column. `dots`: name ->
    (cell, x)."""
    if not wanted:
        return "", (), ()
    of_stage = [trial for trial in results.placed if trial.stage == wanted["stage"]]
    recorded = results.store.trials.figures(trial.key for trial in of_stage)
    metric = next((m for trial in of_stage for m in trial.metrics if m.name == wanted["figure"]), None)
    found: list[ScatterPoint] = []
    left_out: list[str] = []
    for name, (cell, x) in dots.items():
        trials = by_seed(trial for trial in of_stage if results.place_of(trial) == (cell.row, cell.column))
        known = {t.key: scaled(recorded.get(t.key, {}).get(metric.name), metric) for t in trials} if metric else {}
        values = {key: value for key, value in known.items() if value is not None}
        if why := _incomplete(trials, values):
            left_out.append(f"{name} ({why})")
        else:
            found.append(ScatterPoint(name, tuple(values), x, sum(values.values()) / len(values)))
    points = tuple(sorted(found, key=lambda dot: (dot.x, dot.name)))
    return (title(metric) if metric else wanted["figure"]), points, tuple(left_out)


def _incomplete(trials: Sequence[PlacedRow], values: Mapping[str, float]) -> str:
    """Why trials have no mean: they are of several settings, or a seed has no value; empty if they have one."""
    if not trials:
        return "no such trial"
    if (settings := len(by_setting(trials))) > 1:
        return f"{settings} settings, of which a dot shows one"
    lacking = [trial for trial in trials if trial.state != "done" or trial.key not in values]
    return ", ".join(f"seed {t.seed}: {'no number' if t.state == 'done' else t.state}" for t in lacking)


def _curves(
    results: JobResults,
    plot: Mapping[str, Any],
    curves: Mapping[str, Sequence[Cell]],
    trials: Mapping[str, PlacedRow],
) -> Scatter:
    """Curves by name, each from the trials of its cells: the mean over their seeds at each value of a field, with its
    interval.

    `trials`: by key. One in which the field is null (such as no block dropped) has a place of its own, left of the
    numbers.
    """
    cells = [cell for each in curves.values() for cell in each]
    recorded = results.store.trials.figures({key for cell in cells for key in cell.keys})
    places = _places(plot["x"], [trials[key].settings for cell in cells for key in cell.keys if key in trials])
    dots: list[ScatterPoint] = []
    left_out: list[str] = []
    without_error: list[str] = []
    metric = next((cell.figure for cell in cells if cell.figure.name), UNKNOWN)
    for name, of_curve in curves.items():
        points: dict[str, dict[str, float]] = {}
        for cell in of_curve:
            for key in cell.keys:
                x = label(trials[key].settings.get(plot["x"])) if key in trials else ""
                y = scaled(recorded.get(key, {}).get(cell.figure.name), cell.figure)
                if x in places and y is not None:
                    points.setdefault(x, {})[key] = y
        if not points:
            left_out += [name] if any(cell.keys for cell in of_curve) else []
            continue
        for x, values in points.items():
            y = _height(sum(values.values()) / len(values), metric, plot["y"])[1]
            if y is None:
                without_error.append(name)
                break
            word = NULL if x == label(None) else ""
            dots.append(ScatterPoint(name, tuple(values), places[x], y, word, _interval(values, trials)))
    return Scatter(
        plot["title"],
        field_title(plot["x"]),
        _height(0.0, metric, plot["y"])[0],
        tuple(sorted(dots, key=lambda dot: (dot.x, dot.name))),
        tuple(left_out),
        tuple(without_error),
        curves=True,
    )


def _interval(values: Mapping[str, float], trials: Mapping[str, PlacedRow]) -> float | None:
    """Half the width of the interval of some trials' mean, if they differ in their seeds alone."""
    alone = len(by_setting(trials[key] for key in values)) == 1
    return mean_interval(list(values.values()))[1] if alone else None


def _places(path: str, settings: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Label of each value of a field -> its place on the axis. Null is a step of the smallest distance left of the
    numbers; where there are no numbers, nothing has a place."""
    values = {label(each[path]): each[path] for each in settings if path in each}
    places = {name: number for name, value in values.items() if (number := _number(value)) is not None}
    if places and label(None) in values:
        ascending = sorted(places.values())
        steps = [high - low for low, high in itertools.pairwise(ascending) if high > low]
        places[label(None)] = ascending[0] - min(steps, default=1.0)
    return places


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
