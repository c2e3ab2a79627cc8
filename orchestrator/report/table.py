"""The table of a job: its cells and averages, beside published values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.records.recorded_spec import label
from orchestrator.report.cells import CellSource, average, make_cell, shown_trials
from orchestrator.report.figures import UNKNOWN, has_direction, metric_of
from orchestrator.report.job_results import GroupCell, JobResults
from orchestrator.report.model import Cell, Mean, OtherRow
from orchestrator.report.replicates import by_seed
from orchestrator.report.wording import field_title

if TYPE_CHECKING:
    from orchestrator.records.rows import MetricRow, PlacedRow

Figures = Mapping[str, Mapping[str, float]]
"""Trial key -> its recorded figures by name."""


def table_cells(results: JobResults) -> tuple[Cell, ...]:
    """The cells of the table, row by row, in the order of its columns."""
    places: dict[tuple[str, str], list[GroupCell]] = {}
    for place in results.cell_groups:
        places.setdefault((place.row, place.column), []).append(place)
    names = dict.fromkeys(column.name for column in results.columns)
    sources = _with_metrics(
        {
            (row, name): _source(results, row, name, places.get((row, name), []))
            for row in results.rows
            for name in names
        }
    )
    figures = _recorded(results, sources.values())
    return tuple(
        _cell(results, sources[row, column.name], column.figure, figures)
        for row in results.rows
        for column in results.columns
    )


def _source(results: JobResults, row: str, column: str, places: list[GroupCell]) -> CellSource:
    if not places:
        return CellSource(row, column, (), reason="not part of this study", absent=True)
    return cell_source(results, row, column, places, [t for place in places for t in results.trials_in(place)])


def cell_source(
    results: JobResults, row: str, column: str, places: Sequence[GroupCell], trials: Sequence[PlacedRow]
) -> CellSource:
    """What a cell is made of. `places`: its groups; `trials`: those of the table's stage that it shows."""
    group = places[0].group
    varied = [path for path in results.x_paths if len({label(trial.settings.get(path)) for trial in trials}) > 1]
    shown, best_of = (by_seed(trials), 1) if varied else shown_trials(trials)
    undecided = best_of > 1 and not has_direction(trials[0])
    reason = "" if trials else waits(results, group)
    if undecided:
        shown, best_of, reason = [], 1, _alike(trials, best_of)
    known: PlacedRow | None = trials[0] if trials else results.first_trial(group)
    return CellSource(
        row,
        column,
        shown,
        best_of,
        choice=results.choices.get((results.stage, group)),
        metrics=() if known is None else known.metrics or (metric_of(known),),
        reason=reason,
        undecided=undecided,
        curve=", ".join(map(field_title, sorted(varied))),
    )


def _alike(trials: Sequence[PlacedRow], settings: int) -> str:
    """Says why none of several settings stands for a cell, and what to do."""
    paths = sorted({path for trial in trials for path in trial.settings} - {"seed"})
    apart = [path for path in paths if len({label(trial.settings.get(path)) for trial in trials}) > 1]
    remedy = f"make {' and '.join(apart)} a row or column" if apart else "give it one setting"
    return f"{settings} settings, and no {metric_of(trials[0]).title} is better than another; {remedy}"


def _with_metrics(sources: dict[tuple[str, str], CellSource]) -> dict[tuple[str, str], CellSource]:
    """Cells of which no trial is known have the metrics of the others in their column."""
    known = {column: source.metrics for (_, column), source in reversed(sources.items()) if source.metrics}
    return {
        (row, column): source if source.metrics else replace(source, metrics=known.get(column, ()))
        for (row, column), source in sources.items()
    }


def _recorded(results: JobResults, sources: Iterable[CellSource]) -> Figures:
    """All figures of the table's trials, if it shows others than those that trials are chosen by."""
    if results.figures == ("",):
        return {}
    return results.store.trials.figures(trial.key for source in sources for trial in source.trials)


def _cell(results: JobResults, source: CellSource, name: str, figures: Figures) -> Cell:
    metric = source.metric(name)
    if metric is None:
        absent = replace(source, trials=(), absent=True, reason=f"its task has no figure {name}")
        return make_cell(absent, UNKNOWN, {}, None, {})
    values = recorded_values(source.trials, metric, figures)
    reference = published(results, source.row, name).get(source.column)
    return make_cell(source, metric, values, reference, results.runs)


def recorded_values(trials: Iterable[PlacedRow], metric: MetricRow, figures: Figures) -> dict[str, float | None]:
    """Trial key -> its recorded value of a metric. `figures`: of those trials that are not chosen by it."""
    return {
        trial.key: trial.value if metric.name == trial.metric else figures.get(trial.key, {}).get(metric.name)
        for trial in trials
    }


def published(results: JobResults, row: str, figure: str) -> dict[str, float]:
    """The reference's values of a row for one figure, by column; a bare number is of the first figure."""
    values: Mapping[str, Any] = (results.table.get("reference") or {}).get("values", {}).get(row, {})
    by_figure = {
        column: value if isinstance(value, Mapping) else {results.figures[0]: value} for column, value in values.items()
    }
    return {column: numbers[figure] for column, numbers in by_figure.items() if figure in numbers}


def other_rows(results: JobResults) -> tuple[OtherRow, ...]:
    """The published rows without trials."""
    first = results.figures[0]

    def value(values: Mapping[str, Any], name: str, figure: str) -> float | None:
        number = values.get(name)
        return number.get(figure) if isinstance(number, Mapping) else number if figure == first else None

    averages = results.table.get("averages", [])
    return tuple(
        OtherRow(
            row["name"],
            row["source"],
            tuple(value(row["values"], column.name, column.figure) for column in results.columns),
            tuple(value(row["values"], each["name"], figure) for each in averages for figure in results.figures),
        )
        for row in (results.table.get("reference") or {}).get("rows", ())
    )


def table_means(results: JobResults, cells: Iterable[Cell]) -> tuple[Mean, ...]:
    """The averages that the spec asks for, row by row, each for every figure."""
    lines: dict[tuple[str, str], dict[str, Cell]] = {}
    positions = [(row, column) for row in results.rows for column in results.columns]
    for (row, column), cell in zip(positions, cells, strict=True):
        lines.setdefault((row, column.figure), {})[column.name] = cell
    names = list(dict.fromkeys(column.name for column in results.columns))
    return tuple(
        average(row, wanted["name"], wanted.get("over") or names, lines[row, figure], published(results, row, figure))
        for row in results.rows
        for wanted in results.table.get("averages", [])
        for figure in results.figures
    )


def waits(results: JobResults, group: str) -> str:
    """Why the table's stage has no trial of a group."""
    for stage in results.chain[:-1]:
        trials = results.members.get((stage, group), [])
        states = Counter(str(trial.state) for trial in trials)
        lost = states["failed"] + states["cancelled"]
        unfinished = states["pending"] + states["running"]
        if lost:
            return f"incomplete: {lost} of {len(trials)} {stage} trials failed or were cancelled"
        if trials and states["diverged"] == len(trials):
            return f"incomplete: all {len(trials)} {stage} trials diverged"
        if unfinished or not trials:
            return f"waits for {stage}" + (f" ({len(trials) - unfinished} of {len(trials)} ended)" if trials else "")
    return "not placed yet"
