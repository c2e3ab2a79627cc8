"""The table as rows of plain values, one for each cell and each average: for CSV and data frames."""

from __future__ import annotations

from typing import Any

from orchestrator.report.model import Cell, Choice, Mean, OtherRow, Report
from orchestrator.report.wording import edge_text, mean_reason

Row = dict[str, Any]


def table_rows(report: Report) -> list[Row]:
    """Every row has the same names, in the same order; None where one says nothing of it.

    Values are in `unit`, in full precision. `values`, `seeds`, `trials` and `mlflow_runs` are lists, of which the first
    two belong together. `chosen_value` is the best over `candidates` settings on `chosen_on`, so no result; below it
    stand the chosen settings by their paths. A table that joins jobs names the job and stage of each cell too; a
    published row has `published` alone.
    """
    paths = list(dict.fromkeys(path for cell in report.cells if cell.choice for path in cell.choice.settings))
    several = len({column.figure for column in report.columns}) > 1
    rows = [
        *(_cell(cell, paths) for cell in report.cells),
        *(_mean(mean, f"mean of {mean.figure.name}" if several else "mean", paths) for mean in report.means),
        *(row for other in report.others for row in _other(report, other, paths)),
    ]
    if not report.joined:
        return rows
    of_column = {(source.column, source.figure.name): (source.job_id, source.stage) for source in report.joined}
    for row in rows:
        row["job"], row["stage"] = of_column.get((row["column"], row["metric"]), (None, None))
    return rows


def _other(report: Report, other: OtherRow, paths: list[str]) -> list[Row]:
    """A row of published values without trials."""
    first = report.rows[0]
    numbers: list[Cell | Mean] = [*report.cells_of(first), *report.means_of(first)]
    return [
        {
            **_mean(Mean(other.name, _name(number), number.figure, None, None, 0, ()), number.figure.name, paths),
            "state": "published",
            "reason": other.source,
            "published": value,
        }
        for number, value in zip(numbers, [*other.columns, *other.means], strict=True)
        if value is not None
    ]


def _cell(cell: Cell, paths: list[str]) -> Row:
    low, high = cell.image_interval or (None, None)
    return {
        **_number(cell, cell.state, cell.reason, cell.figure.name),
        "diverged_seeds": cell.diverged,
        "pretraining": cell.pretraining,
        "images": cell.images,
        "images_low95": low,
        "images_high95": high,
        "published": cell.reference,
        "difference": cell.difference,
        **_chosen(cell.choice, paths),
        "trials": list(cell.keys),
        "mlflow_runs": list(cell.run_ids),
    }


def _mean(mean: Mean, metric: str, paths: list[str]) -> Row:
    return {
        **_number(mean, "done" if mean.value is not None else "missing", mean_reason(mean), metric),
        **dict.fromkeys(("diverged_seeds", "pretraining", "images", "images_low95", "images_high95")),
        "published": mean.reference,
        "difference": mean.difference,
        **_chosen(None, paths),
        "trials": [],
        "mlflow_runs": [],
    }


def _number(shown: Cell | Mean, state: str, reason: str, metric: str) -> Row:
    return {
        "row": shown.row,
        "column": _name(shown),
        "state": state,
        "reason": reason,
        "value": shown.value,
        "interval95": shown.interval,
        "n": len(shown.seeds),
        "seeds": list(shown.seeds),
        "values": list(shown.values),
        "leading": shown.leading,
        "unit": shown.figure.unit,
        "metric": metric,
    }


def _name(shown: Cell | Mean) -> str:
    return shown.column if isinstance(shown, Cell) else shown.name


def _chosen(choice: Choice | None, paths: list[str]) -> Row:
    names = ("chosen_on", "chosen_value", "candidates", "diverged", "failed", "edges", *paths, "chosen_trial")
    if choice is None:
        return dict.fromkeys(names)
    edges = "; ".join(map(edge_text, choice.edges))
    settings = [choice.settings.get(path) for path in paths]
    values = [
        choice.split,
        choice.value,
        choice.candidates,
        choice.diverged,
        choice.failed,
        edges,
        *settings,
        choice.key,
    ]
    return dict(zip(names, values, strict=True))
