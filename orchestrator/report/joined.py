"""Builds the report of a table that joins several jobs, from their rows in the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.records.joined import JoinedColumn, JoinedRow, JoinedTable, Where, in_words, meets
from orchestrator.records.recorded_spec import label, lookup
from orchestrator.report.build import trial_line
from orchestrator.report.caveats import joined_warnings
from orchestrator.report.cells import CellSource, average, make_cell
from orchestrator.report.figures import UNKNOWN
from orchestrator.report.job_results import JobResults
from orchestrator.report.model import FORM, Cell, Column, Mean, OtherRow, Report, Source, StageCount, TrialLine
from orchestrator.report.provenance import joined_provenance
from orchestrator.report.submissions import with_submissions
from orchestrator.report.table import cell_source, recorded_values, waits
from orchestrator.report.uncertainty import marked, with_uncertainty

if TYPE_CHECKING:
    from orchestrator.records.rows import JobRow, PlacedRow, TrialRow
    from orchestrator.store.store import Store


class Joined:
    """The jobs of a table, each read once for each stage."""

    def __init__(self, store: Store | None, table: JoinedTable) -> None:
        self.store, self.table = store, table
        self._results: dict[tuple[str, str], JobResults] = {}
        self._trials: dict[str, TrialRow] = {}

    def results(self, column: JoinedColumn) -> JobResults | None:
        """The rows of a column's job; None if it was not submitted."""
        if not column.job_id or self.store is None:
            return None
        place = (column.job_id, column.stage)
        if place not in self._results:
            self._results[place] = JobResults(self.store, column.job_id, True, column.stage)
        return self._results[place]

    def jobs(self) -> list[JobRow]:
        """Each job once."""
        return list({results.job.id: results.job for results in self._results.values()}.values())

    def value_at(self, trial: PlacedRow, path: str) -> Any:
        """What a trial has at a path: as its stage set it, else as its recorded spec has it, defaults included."""
        for values in (trial.settings, trial.group_values):
            if path in values:
                return values[path]
        return lookup(self.trial(trial.key).spec, path)

    def trial(self, key: str) -> TrialRow:
        """Everything recorded of a trial, read once."""
        assert self.store is not None
        if key not in self._trials:
            self._trials[key] = self.store.trials.get(key)
        return self._trials[key]

    def counts(self, trial: PlacedRow, where: Where) -> bool:
        """True if a trial has what is asked."""
        return meets(where, lambda path: self.value_at(trial, path))

    def source(self, column: JoinedColumn, row: JoinedRow) -> CellSource:
        """The trials at a row and column, or the reason why there are none."""
        results, where = self.results(column), {**column.where, **row.where}
        nothing = CellSource(row.name, column.title, (), metrics=column.metrics)
        if column.known and row.name not in column.rows:
            reason = f"job {column.job} has no trial of {in_words(where)} in stage {column.stage}"
            return replace(nothing, reason=reason, absent=True)
        if results is None:
            return replace(nothing, reason=column.remedy)
        counted = {t.key for t in results.placed if t.stage == column.stage and self.counts(t, where)}
        places = [
            (place, trials)
            for place in results.cell_groups
            if (trials := [t for t in results.trials_in(place) if t.key in counted])
        ]
        if not places:
            return replace(nothing, reason=self._waits(results, where))
        own = {(place.row, place.column) for place, _ in places}
        if len(own) > 1:
            listed = "; ".join(f"{name} on {of}" for name, of in sorted(own))
            reason = f"trials of {len(own)} cells of job {column.job_id}: {listed}; ask for one of them under where"
            return replace(nothing, reason=reason, undecided=True)
        trials = [trial for _, each in places for trial in each]
        ((name, of),) = own
        return replace(
            cell_source(results, name, of, [place for place, _ in places], trials), row=row.name, column=column.title
        )

    def _waits(self, results: JobResults, where: Where) -> str:
        """Why the stage has no such trial yet."""
        groups = {
            trial.group
            for trial in results.placed
            if trial.stage in results.chain
            and all(
                label(values[path]) in wanted
                for path, wanted in where.items()
                for values in ({**trial.settings, **trial.group_values},)
                if path in values
            )
        }
        why = waits(results, groups.pop()) if len(groups) == 1 else "not placed yet"
        return f"{why}; to go on, submit job {results.job.id} again"


def build_joined(store: Store | None, table: JoinedTable) -> Report:
    """The report of a table that joins several jobs. `store`: None where nothing was ever submitted."""
    joined = Joined(store, table)
    sources = {
        (row.name, n): joined.source(column, row) for row in table.rows for n, column in enumerate(table.columns)
    }
    cells = _cells(joined, sources)
    if store is not None:
        cells = with_uncertainty(store, with_submissions(store, cells))
    names = tuple(row.name for row in table.rows)
    cells = marked(names, cells, len(table.columns))
    means = marked(names, _means(table, cells), len(table.averages))
    behind = _behind(joined, cells)
    lines = _lines(joined, cells)
    return Report(
        form=FORM,
        job_id="",
        name=table.name,
        profile="",
        state="done" if all(cell.value is not None or cell.state in ("absent", "submitted") for cell in cells)
        else "incomplete",
        message="",
        created="",
        caption=table.caption,
        stage="",
        measured_on=" / ".join(dict.fromkeys(trial.split for trial in behind.values() if trial.split)),
        row_path=table.heading,
        column_path="column",
        rows=names,
        columns=tuple(Column(column.title, column.figure) for column in table.columns),
        cells=cells,
        means=means,
        scales=(),
        source=table.source,
        groups=(),
        stages=_counts(lines),
        warnings=joined_warnings(joined.jobs(), cells, behind, table.warnings),
        provenance=joined_provenance(joined.jobs(), cells, behind, lines),
        trials=lines,
        joined=_columns(joined, cells, behind),
        others=_others(table),
    )  # fmt: skip


def _cells(joined: Joined, sources: Mapping[tuple[str, int], CellSource]) -> tuple[Cell, ...]:
    table, cells = joined.table, []
    keys = [trial.key for source in sources.values() for trial in source.trials]
    figures = joined.store.trials.figures(keys) if joined.store and keys else {}
    for (row, n), source in sources.items():
        column = table.columns[n]
        metric, results = source.metric(column.figure), joined.results(column)
        if metric is None:
            source = replace(source, trials=(), absent=True, reason=f"its task has no figure {column.figure}")
        values = recorded_values(source.trials, metric or UNKNOWN, figures)
        published = table.published((table.values or {}).get(row, {}), n)
        cell = make_cell(source, metric or UNKNOWN, values, published, results.runs if results else {})
        cells.append(replace(cell, state="not run") if cell.state == "missing" else cell)
    return tuple(cells)


def _means(table: JoinedTable, cells: Sequence[Cell]) -> tuple[Mean, ...]:
    each, means = len(table.columns), []
    for n, row in enumerate(table.rows):
        titles = {cell.column: cell for cell in reversed(cells[n * each : (n + 1) * each])}
        stated = (table.values or {}).get(row.name, {})
        bare = {title: value for title, value in stated.items() if not isinstance(value, Mapping)}
        shown = {
            column.title: value
            for k, column in enumerate(table.columns)
            if (value := table.published(stated, k)) is not None
        }
        for wanted in table.averages:
            means.append(average(row.name, wanted.name, wanted.over, titles, {**bare, **shown}))
    return tuple(means)


def _others(table: JoinedTable) -> tuple[OtherRow, ...]:
    def mean(values: Mapping[str, Any], name: str) -> float | None:
        value = values.get(name)
        return None if isinstance(value, Mapping) else value

    return tuple(
        OtherRow(
            row.name,
            row.source,
            tuple(table.published(row.values, n) for n in range(len(table.columns))),
            tuple(mean(row.values, wanted.name) for wanted in table.averages),
        )
        for row in table.others
    )


def _behind(joined: Joined, cells: Iterable[Cell]) -> dict[str, TrialRow]:
    """The trials whose figures are in the table, with everything recorded of them."""
    keys = dict.fromkeys(key for cell in cells for key in cell.keys if cell.values)
    return {key: joined.trial(key) for key in keys}


def _columns(joined: Joined, cells: Sequence[Cell], behind: Mapping[str, TrialRow]) -> tuple[Source, ...]:
    """Where each column comes from."""
    columns, each = joined.table.columns, len(joined.table.columns)
    found = []
    for n, column in enumerate(columns):
        own = cells[n::each]
        splits = dict.fromkeys(behind[key].split for cell in own for key in cell.keys if key in behind)
        found.append(
            Source(
                column=column.title,
                figure=next((cell.figure for cell in own if cell.figure.name), UNKNOWN),
                job=column.job,
                job_id=column.job_id,
                stage=column.stage,
                split=" / ".join(filter(None, splits)),
                where=in_words(column.where),
                remedy=column.remedy,
            )
        )
    return tuple(found)


def _lines(joined: Joined, cells: Sequence[Cell]) -> tuple[TrialLine, ...]:
    """The trials behind the cells, and those that were chosen for them; their stage is that of their job."""
    lines: dict[tuple[str, str], TrialLine] = {}
    each = len(joined.table.columns)
    for position, cell in enumerate(cells):
        results = joined.results(joined.table.columns[position % each])
        if results is None:
            continue
        wanted = {*cell.keys, *([cell.choice.key] if cell.choice else [])}
        stages = {*(cell.choice.sources if cell.choice else ()), results.stage}
        for trial in results.placed:
            if trial.key in wanted and trial.stage in stages:
                line = trial_line(trial, results.runs.get(trial.key))
                stage = f"{results.job.id}/{trial.stage}"
                lines.setdefault((stage, trial.key), replace(line, stage=stage))
    return tuple(lines.values())


def _counts(lines: Sequence[TrialLine]) -> tuple[StageCount, ...]:
    stages: dict[str, list[TrialLine]] = {}
    for line in lines:
        stages.setdefault(line.stage, []).append(line)
    return tuple(
        StageCount(
            name,
            len(trials),
            dict(sorted(Counter(trial.state for trial in trials).items())),
            sum(trial.seconds or 0.0 for trial in trials),
        )
        for name, trials in stages.items()
    )
