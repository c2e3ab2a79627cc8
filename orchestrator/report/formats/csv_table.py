"""The report as CSV."""

from __future__ import annotations

import csv as csv_format
import io
from typing import Any

from orchestrator.records.recorded_spec import label
from orchestrator.report.model import Report
from orchestrator.report.wording import edge_text, mean_unit


def csv(report: Report) -> str:
    """A line for each cell and each average, full precision; RFC 4180, without formulas for spreadsheets."""
    out = io.StringIO()
    writer = csv_format.writer(out, lineterminator="\r\n")
    paths = list(dict.fromkeys(path for cell in report.cells if cell.choice for path in cell.choice.settings))
    writer.writerow(
        [
            "row", "column", "state", "reason", "value", "interval95", "seeds", "unit", "metric", "published",
            "difference", "val", "candidates", "diverged", "failed", "edges", *map(_csv, paths), "chosen_trial",
            "trials", "mlflow_runs",
        ]
    )  # fmt: skip
    for cell in report.cells:
        column, choice = report.by_column[cell.column], cell.choice
        told: list[Any] = ["", "", "", "", "", *("" for _ in paths), ""]
        if choice:
            settings = [_csv(choice.settings.get(path)) for path in paths]
            told = [choice.value, choice.candidates, choice.diverged, choice.failed,
                    _csv("; ".join(map(edge_text, choice.edges))), *settings, choice.key]  # fmt: skip
        writer.writerow(
            [
                _csv(cell.row), _csv(cell.column), cell.state, _csv(cell.reason), cell.value, cell.interval,
                " ".join(map(str, cell.seeds)), column.unit.suffix, _csv(column.metric), cell.reference,
                cell.difference, *told, " ".join(cell.keys), " ".join(cell.run_ids),
            ]
        )  # fmt: skip
    for mean in report.means:
        state = "done" if mean.value is not None else "missing"
        reason = f"needs {', '.join(mean.missing)}" if mean.missing else ""
        writer.writerow(
            [_csv(mean.row), _csv(mean.name), state, _csv(reason), mean.value, mean.interval, "",
             mean_unit(report).suffix, "mean", mean.reference, mean.difference, *([""] * (8 + len(paths)))]
        )  # fmt: skip
    return out.getvalue()


def _csv(value: Any) -> Any:
    """Numbers as they are; text that a spreadsheet would run as a formula behind an apostrophe."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = label(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
