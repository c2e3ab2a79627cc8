"""Gathers the figures over layers that a job's report asks for from the recorded measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.paths import file_name
from orchestrator.records.rows import MeasurementRow, MetricRow
from orchestrator.report.figures import unrecorded
from orchestrator.report.formatting import finite
from orchestrator.report.layer_panels import LayerFigure, Panel, SeedLayers, Value
from orchestrator.report.replicates import by_setting

if TYPE_CHECKING:
    from orchestrator.records.rows import PlacedRow
    from orchestrator.report.job_results import JobResults

TRAINED, LOSS = "train_", "train_loss"
"""Begin the names of terms of the loss in reports; the loss itself."""


def layer_figures(results: JobResults) -> tuple[LayerFigure, ...]:
    """The figures of `report.layers`, in its order; without `results.full`, of each layer the mean alone."""
    return tuple(_figure(results, wanted) for wanted in results.table.get("layers", []))


def _figure(results: JobResults, wanted: Mapping[str, Any]) -> LayerFigure:
    stage = wanted["stage"] or results.stage
    trials = [trial for trial in results.placed if trial.stage == stage]
    members = _by_row(results, trials, wanted)
    beside = wanted.get("beside", ())
    figures = [name for name in (wanted["figure"], *beside, wanted["anchor"]) if name]
    shown = [trial for each in members.values() for trial in each]
    done = [trial.key for trial in shown if trial.state == "done"]
    measured = results.store.measured
    if wanted["form"] == "epochs":
        rows = _reported(results, [trial.key for trial in shown], figures)
    elif results.full:
        rows = measured.of(done, figures)
    else:  # a terminal shows means alone
        rows = measured.layer_means(done, figures, other_layers=wanted["form"] == "matrix")
    seeds = _asked(results, stage, trials)
    return replace(
        _drawn(wanted, stage, trials, members, rows, seeds),
        beside=tuple(
            _drawn({**wanted, "figure": name, "title": ""}, stage, trials, members, rows, seeds) for name in beside
        ),
    )


def _drawn(
    wanted: Mapping[str, Any],
    stage: str,
    trials: Sequence[PlacedRow],
    members: Mapping[str, Sequence[PlacedRow]],
    rows: Mapping[str, Sequence[MeasurementRow]],
    seeds: Sequence[str],
) -> LayerFigure:
    """A single figure. `trials`: of its stage; `members`: those of each panel; `rows`: what they measured, by key."""
    metric = _metric(trials, wanted["figure"])
    return LayerFigure(
        name=file_name(wanted["title"]),
        title=wanted["title"],
        form=wanted["form"],
        figure=metric,
        stage=stage,
        columns=tuple(wanted["columns"]),
        panels=tuple(_panel(row, each, rows, wanted, metric.scale, seeds) for row, each in members.items()),
        caption=wanted["caption"],
        low=wanted["low"],
        high=wanted["high"],
        axis=wanted.get("axis") or ("epoch" if wanted["form"] == "epochs" else LayerFigure.axis),
    )


def _reported(results: JobResults, keys: Sequence[str], figures: Sequence[str]) -> dict[str, list[MeasurementRow]]:
    """What trials reported of these figures, by key; the epoch stands in the place of the layer."""
    return {
        key: [
            MeasurementRow(figure, "", "", report.epoch, None, finite(report.values[figure]))
            for report in reports
            for figure in figures
            if figure in report.values
        ]
        for key, reports in results.store.trials.reports_since(dict.fromkeys(keys, 0)).items()
    }


def _by_row(results: JobResults, trials: Sequence[PlacedRow], wanted: Mapping[str, Any]) -> dict[str, list[PlacedRow]]:
    """Name of a panel -> its trials, in the order of the figure's rows or of the table's. A row that is in several of
    the figure's columns is a panel for each."""
    found: dict[tuple[str, str], list[PlacedRow]] = {}
    for trial in trials:
        row, column = results.place_of(trial)
        if (not wanted["rows"] or row in wanted["rows"]) and (not wanted["columns"] or column in wanted["columns"]):
            found.setdefault((row, column), []).append(trial)
    panels: dict[str, list[PlacedRow]] = {}
    for row in dict.fromkeys([*(wanted["rows"] or results.rows), *(row for row, _ in found)]):
        columns = [column for other, column in found if other == row]
        for column in columns:
            panels[row if len(columns) == 1 else f"{row}, {column}"] = found[row, column]
        if not columns and row in wanted["rows"]:
            panels[row] = []
    return panels


def _asked(results: JobResults, stage: str, trials: Sequence[PlacedRow]) -> tuple[str, ...]:
    """The seeds with which the stage's replicates run, as text; those that no trial of the stage has yet, and whose
    number the spec leaves open, are each `another seed`. Empty without replicates."""
    wanted = results.stages.get(stage, {}).get("replicates")
    if not wanted:
        return ()
    count, first = (wanted["n"], wanted.get("first")) if isinstance(wanted, Mapping) else (wanted, None)
    if first is not None:
        return tuple(f"seed {first + number}" for number in range(count))
    placed = sorted({trial.seed for trial in trials})
    return (*(f"seed {seed}" for seed in placed), *["another seed"] * (count - len(placed)))


def _metric(trials: Sequence[PlacedRow], name: str) -> MetricRow:
    """How the figure is named and printed, as the trials recorded it; one of which they record the mean alone is named
    after that."""
    recorded = {metric.name: metric for trial in trials for metric in trial.metrics}
    if name not in recorded and f"{name}_mean" in recorded:
        mean = recorded[f"{name}_mean"]
        return replace(mean, name=name, title=mean.title.removeprefix("mean "))
    if name not in recorded and name.startswith(TRAINED):
        return MetricRow(
            name, f"training loss ({name.removeprefix(TRAINED)})" if name != LOSS else "training loss", "lower"
        )
    return recorded.get(name) or unrecorded(name, "max")


def _panel(
    row: str,
    trials: Sequence[PlacedRow],
    rows: Mapping[str, Sequence[MeasurementRow]],
    wanted: Mapping[str, Any],
    scale: float,
    asked: Sequence[str] = (),
) -> Panel:
    """`asked`: the seeds that each setting of the stage runs with; trials of some may not be placed yet."""
    if (settings := len(by_setting(trials))) > 1:  # a mean over them, with an interval, would be of nothing
        return Panel(row, reason=f"{settings} settings, of which a panel shows one")
    seeds, values, missing = [], [], []
    anchor: tuple[tuple[int, float], ...] = ()
    for trial in sorted(trials, key=lambda each: each.seed):
        measured = [m for m in rows.get(trial.key, ()) if m.figure == wanted["figure"] and m.layer is not None]
        if not measured:
            missing.append(f"seed {trial.seed}: {_why([trial], wanted['figure'])}")
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
    placed = {f"seed {trial.seed}" for trial in trials}
    missing += [f"{seed}: not begun" for seed in asked if seed not in placed]
    if not seeds:
        return Panel(row, reason=_missing(trials, wanted["figure"]))
    return Panel(row, tuple(seeds), anchor, missing=tuple(missing), values=tuple(values))


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
    why = _why(trials, figure)
    return why if all(trial.state == "done" for trial in trials) else f"not measured: {why}"


def _why(trials: Sequence[PlacedRow], figure: str) -> str:
    """The states of trials without values, such as `failed`; of such as are done, what they lack."""
    states = sorted({str(trial.state) for trial in trials})
    of = "epochs, perhaps of another stage" if figure.startswith(TRAINED) else "layers"
    return f"no {figure} for its {of}" if states == ["done"] else ", ".join(states)
