"""Checks a table that joins several jobs: computes every cell again from the trials that its file asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from orchestrator.records.joined import JoinedColumn, JoinedTable
from orchestrator.report.figures import best, scaled
from orchestrator.report.joined import Joined, build_joined
from orchestrator.report.statistics import mean_interval, paired_interval

if TYPE_CHECKING:
    from orchestrator.records.rows import MetricRow, PlacedRow
    from orchestrator.report.model import Cell, Report
    from orchestrator.store.store import Store


def verify_joined(store: Store | None, table: JoinedTable) -> list[str]:
    """A line for each difference; none if all is well.

    Every number is computed again: from the trials that have what row and column ask for, by their recorded figures
    alone, with its interval, its difference to the published value, and its place among the best of its column.
    """
    report = build_joined(store, table)
    joined, each = Joined(store, table), len(table.columns)
    lines: list[str] = []
    for n, row in enumerate(table.rows):
        for k, column in enumerate(table.columns):
            cell = report.cells[n * each + k]
            what = f"{cell.row} on {cell.column}, {cell.figure.name or 'no figure'}"
            trials = _asked(joined, column, {**column.where, **row.where})
            lines += [f"{what}: {line}" for line in _cell(store, cell, trials)]
            published = table.published((table.values or {}).get(row.name, {}), k)
            if cell.reference != published:
                lines.append(f"{what}: published {cell.reference}, the file has {published}")
    for k in range(each):
        lines += _leading(report, k)
    return lines


def _asked(joined: Joined, column: JoinedColumn, where: dict[str, tuple[str, ...]]) -> list[PlacedRow]:
    """The trials of the column's stage that have what is asked for, by seed."""
    if joined.store is None or not column.job_id:
        return []
    placed = joined.store.trials.placed(column.job_id, column.stage)
    trials = {trial.key: trial for trial in placed if joined.counts(trial, where)}
    return sorted(trials.values(), key=lambda trial: (trial.seed, trial.key))


def _cell(store: Store | None, cell: Cell, asked: Sequence[PlacedRow]) -> Iterable[str]:
    keys = {trial.key for trial in asked}
    if strange := [key[:12] for key in cell.keys if key not in keys]:
        yield f"shows {', '.join(strange)}, which row and column do not ask for"
    if cell.value is None and not cell.values:
        return
    if cell.best_of == 1 and cell.keys != tuple(trial.key for trial in asked):
        yield f"made of {len(cell.keys)} trials, row and column ask for {len(asked)}"
    if store is None:
        yield "has a value, and nothing was ever submitted"
        return
    figures = store.trials.figures(keys)
    values = _values(cell.keys, figures, cell.figure)
    if values != list(cell.values):
        yield f"shown from {list(cell.values)}, its trials have {values}"
    elif values and cell.value is not None and (cell.value, cell.interval) != mean_interval(values):
        yield f"shows {cell.value} ± {cell.interval}, its values give {mean_interval(values)}"
    if cell.value is not None and cell.reference is not None and cell.difference != cell.value - cell.reference:
        yield f"differs by {cell.difference} from the published {cell.reference}"


def _values(keys: Iterable[str], figures: dict[str, dict[str, float]], metric: MetricRow) -> list[float]:
    recorded = (figures.get(key, {}).get(metric.name) for key in keys)
    return [value for number in recorded if (value := scaled(number, metric)) is not None]


def _leading(report: Report, k: int) -> Iterable[str]:
    """Of the cells of a column, those stand out that are the best or not told apart from it."""
    column = [cell for cell in report.cells[k :: len(report.columns)] if cell.value is not None]
    numbers = [cell.value for cell in column if cell.value is not None]
    alike = len({cell.seeds for cell in column}) == 1 and len({cell.figure.name for cell in column}) == 1
    highest = best(numbers, column[0].figure) if len(column) > 1 and alike and len(column[0].seeds) > 2 else None
    first = next((cell for cell in column if cell.value == highest), None)
    for cell in column:
        expected = first is not None and cell.figure.better != "neither" and _near(cell, first)
        if cell.leading != expected:
            yield f"{cell.row} on {cell.column}: {'marked' if cell.leading else 'not marked'} as one of the best"


def _near(cell: Cell, first: Cell) -> bool:
    if cell is first:
        return True
    difference, half = paired_interval(cell.values, first.values)
    return half is not None and abs(difference) <= half
