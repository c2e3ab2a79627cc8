"""Gathers the figures over layers that a job's report asks for from the recorded measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.paths import file_name
from orchestrator.report.figures import unrecorded
from orchestrator.report.layer_panels import LayerFigure, Panel, SeedLayers, Value

if TYPE_CHECKING:
    from orchestrator.records.rows import MeasurementRow, MetricRow, PlacedRow
    from orchestrator.report.job_results import JobResults


def layer_figures(results: JobResults) -> tuple[LayerFigure, ...]:
    """The figures of `report.layers`, in its order."""
    return tuple(_figure(results, wanted) for wanted in results.table.get("layers", []))


def _figure(results: JobResults, wanted: Mapping[str, Any]) -> LayerFigure:
    stage = wanted["stage"] or results.stage
    trials = [
        trial
        for trial in results.placed
        if trial.stage == stage and (not wanted["column"] or results.place_of(trial)[1] == wanted["column"])
    ]
    by_row: dict[str, list[PlacedRow]] = {row: [] for row in wanted["rows"] or results.rows}
    for trial in trials:
        row, _ = results.place_of(trial)
        if not wanted["rows"] or row in by_row:
            by_row.setdefault(row, []).append(trial)
    by_row = {row: members for row, members in by_row.items() if members or row in wanted["rows"]}
    figures = [name for name in (wanted["figure"], wanted["anchor"]) if name]
    done = [trial.key for members in by_row.values() for trial in members if trial.state == "done"]
    rows = results.store.measured.of(done, figures)
    metric = _metric(trials, wanted["figure"])
    return LayerFigure(
        name=file_name(wanted["title"]),
        title=wanted["title"],
        form=wanted["form"],
        figure=metric,
        stage=stage,
        column=wanted["column"],
        panels=tuple(_panel(row, members, rows, wanted, metric.scale) for row, members in by_row.items()),
        caption=wanted["caption"],
        low=wanted["low"],
        high=wanted["high"],
    )


def _metric(trials: Sequence[PlacedRow], name: str) -> MetricRow:
    """How the figure is named and printed, as the trials recorded it; one of which they record the mean alone is named
    after that."""
    recorded = {metric.name: metric for trial in trials for metric in trial.metrics}
    if name not in recorded and f"{name}_mean" in recorded:
        mean = recorded[f"{name}_mean"]
        return replace(mean, name=name, title=mean.title.removeprefix("mean "))
    return recorded.get(name) or unrecorded(name, "max")


def _panel(
    row: str,
    trials: Sequence[PlacedRow],
    rows: Mapping[str, Sequence[MeasurementRow]],
    wanted: Mapping[str, Any],
    scale: float,
) -> Panel:
    seeds, values = [], []
    anchor: tuple[tuple[int, float], ...] = ()
    for trial in sorted(trials, key=lambda each: each.seed):
        measured = [m for m in rows.get(trial.key, ()) if m.figure == wanted["figure"] and m.layer is not None]
        if not measured:
            continue
        own = [
            Value(trial.seed, m.layer, m.head, m.item, None if m.value is None else m.value * scale)
            for m in measured
            if m.layer is not None
        ]
        seeds.append(_of_seed(trial, own, wanted["form"] == "matrix"))
        values += own
        anchor = anchor or tuple(
            (m.layer, m.value * scale)
            for m in rows[trial.key]
            if m.figure == wanted["anchor"] and m.layer is not None and m.value is not None
        )
    return Panel(row, tuple(seeds), anchor, "" if seeds else _missing(trials, wanted["figure"]), tuple(values))


def _of_seed(trial: PlacedRow, values: Sequence[Value], matrix: bool) -> SeedLayers:
    by_layer: dict[int, list[float | None]] = {}
    for value in values:
        if not (matrix and value.item == str(value.layer)):  # a layer is like itself by definition
            by_layer.setdefault(value.layer, []).append(value.value)
    means = [
        None if None in each or not each else math.fsum(v for v in each if v is not None) / len(each)
        for each in by_layer.values()
    ]
    return SeedLayers(trial.seed, trial.key, tuple(by_layer), tuple(means))


def _missing(trials: Sequence[PlacedRow], figure: str) -> str:
    """Says why a panel is empty."""
    if not trials:
        return "no such trial yet"
    states = sorted({str(trial.state) for trial in trials})
    return f"no {figure} for its layers" if states == ["done"] else f"not measured: {', '.join(states)}"
