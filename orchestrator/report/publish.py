"""The only place that writes a job's report to files, and reads back what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import BackendUnreachable
from orchestrator.report.build import build
from orchestrator.report.formats import csv_table, json_data, latex, markdown

if TYPE_CHECKING:
    from orchestrator.report.model import Report
    from orchestrator.settings import Settings
    from orchestrator.store.store import Store

FORMS = ("html", "md", "csv", "tex", "json")


def folder_of(where: Settings, job_id: str) -> Path:
    """Where a job's report lies."""
    return where.folder / "reports" / job_id


def publish(store: Store, job_id: str, where: Settings) -> dict[str, Path]:
    """Writes the report in every form, each file whole or not at all; form -> path."""
    report = build(store, job_id)
    folder = folder_of(where, job_id)
    written = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for form in FORMS:
            path = folder / f"report.{form}"
            new = path.with_suffix(f".{form}.new")
            new.write_text(text(report, form, where), encoding="utf-8")
            new.replace(path)
            written[form] = path
    except OSError as error:
        raise BackendUnreachable(
            f"cannot write the report to {folder}: {error.strerror}; the results are in the store: report {job_id}"
        ) from error
    return written


def text(report: Report, form: str, where: Settings) -> str:
    """The report in one of `FORMS`, or `text` for a terminal."""
    server = where.tracking_uri if where.tracking_uri.startswith("http") else "http://127.0.0.1:5000"
    if form == "html":
        from orchestrator.report.formats import html_page

        return html_page.html(report, server, where.storage)
    if form == "text":
        from orchestrator.report.formats.terminal import terminal

        return terminal(report)
    if form == "md":
        return markdown.markdown(report, server)
    if form == "csv":
        return csv_table.csv(report)
    if form == "tex":
        return latex.latex(report)
    return json.dumps(json_data.to_json(report), indent=1, allow_nan=False) + "\n"


def saved(where: Settings, job_id: str) -> dict[str, Any] | None:
    """The report's JSON as it was written when the job ended; none when there is no such file."""
    try:
        content: dict[str, Any] = json.loads((folder_of(where, job_id) / "report.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BackendUnreachable(f"{folder_of(where, job_id) / 'report.json'} cannot be read: {error}") from error
    return content
