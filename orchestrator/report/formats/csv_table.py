"""The report as CSV."""

from __future__ import annotations

import csv as csv_format
import io
from typing import Any

from orchestrator.records.recorded_spec import label
from orchestrator.report.model import Report
from orchestrator.report.table_rows import table_rows


def csv(report: Report) -> str:
    """A line for each cell and each average, with the names of `table_rows`; lists with a space between. RFC 4180,
    without formulas for spreadsheets."""
    out = io.StringIO()
    writer = csv_format.writer(out, lineterminator="\r\n")
    rows = table_rows(report)
    if rows:
        writer.writerow(map(_csv, rows[0]))
    writer.writerows(map(_csv, row.values()) for row in rows)
    return out.getvalue()


def _csv(value: Any) -> Any:
    """Numbers as they are; text that a spreadsheet would run as a formula behind an apostrophe."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, list):
        return " ".join(map(str, value))
    text = label(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
