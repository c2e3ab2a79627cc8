"""The report as CSV."""

from __future__ import annotations

import csv as csv_format
import io
from typing import Any

from orchestrator.records.recorded_spec import label
from orchestrator.report.model import Report
from orchestrator.report.wording import edge_text, mean_reason


def csv(report: Report) -> str:
    """A line for each cell and each average, in full precision; RFC 4180, without formulas for spreadsheets. Values are
    in `unit`; `chosen_value` is of the metric that settings are chosen by."""
    several = len({column.figure for column in report.columns}) > 1
    out = io.StringIO()
    writer = csv_format.writer(out, lineterminator="\r\n")
    paths = list(dict.fromkeys(path for cell in report.cells if cell.choice for path in cell.choice.settings))
    writer.writerow(
        [
            "row", "column", "state", "reason", "value", "interval95", "seeds", "unit", "metric", "published",
            "difference", "chosen_on", "chosen_value", "candidates", "diverged", "failed", "edges", *map(_csv, paths),
            "chosen_trial", "trials", "mlflow_runs",
        ]
    )  # fmt: skip
    for cell in report.cells:
        choice = cell.choice
        chosen: list[Any] = ["", "", "", "", "", "", *("" for _ in paths), ""]
        if choice:
            settings = [_csv(choice.settings.get(path)) for path in paths]
            chosen = [choice.split, choice.value, choice.candidates, choice.diverged, choice.failed,
                    _csv("; ".join(map(edge_text, choice.edges))), *settings, choice.key]  # fmt: skip
        writer.writerow(
            [
                _csv(cell.row), _csv(cell.column), cell.state, _csv(cell.reason), cell.value, cell.interval,
                " ".join(map(str, cell.seeds)), cell.figure.unit, _csv(cell.figure.name), cell.reference,
                cell.difference, *chosen, " ".join(cell.keys), " ".join(cell.run_ids),
            ]
        )  # fmt: skip
    for mean in report.means:
        state = "done" if mean.value is not None else "missing"
        writer.writerow(
            [_csv(mean.row), _csv(mean.name), state, _csv(mean_reason(mean)), mean.value, mean.interval, "",
             mean.figure.unit, _csv(f"mean of {mean.figure.name}" if several else "mean"), mean.reference,
             mean.difference, *([""] * (9 + len(paths)))]
        )  # fmt: skip
    return out.getvalue()


def _csv(value: Any) -> Any:
    """Numbers as they are; text that a spreadsheet would run as a formula behind an apostrophe."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = label(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
