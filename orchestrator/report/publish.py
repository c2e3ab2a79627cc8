"""Writes a job's report to files, and reads back the JSON that was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import BackendUnreachable
from orchestrator.paths import inside
from orchestrator.report import ui_page
from orchestrator.report.build import build
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.layer_files import files
from orchestrator.settings import private_folder, without_secrets

if TYPE_CHECKING:
    from orchestrator.report.model import Report
    from orchestrator.settings import Settings
    from orchestrator.store.store import Store


def folder_of(where: Settings, job_id: str) -> Path:
    """The folder of a job's report."""
    return inside(where.folder / "reports", job_id)


def publish(store: Store, job_id: str, where: Settings) -> dict[str, Path]:
    """Writes the report in every form that has a file, each whole or not at all; returns form -> path. Figures over
    layers are written beside it, each with its data as CSV."""
    report = build(store, job_id)
    folder = folder_of(where, job_id)
    written = {}
    try:
        private_folder(where.folder)
        folder.mkdir(parents=True, exist_ok=True)
        ui_page.made(where.folder)
        for form, format in FORMATS.items():
            if not format.suffix:
                continue
            path = folder / f"report.{format.suffix}"
            _whole(path, text(report, form, where, beside=True).encode())
            written[form] = path
        for name, content in files(report.layers):
            _whole(inside(folder, name), content)
    except OSError as error:
        raise BackendUnreachable(
            f"cannot write the report to {folder}: {error.strerror}; the results are in the store: report {job_id}"
        ) from error
    return written


def _whole(path: Path, content: bytes) -> None:
    """Writes a file so that whoever reads it finds all of it, or the one before."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def text(report: Report, form: str, where: Settings, beside: bool = False) -> str:
    """The report in one of `FORMATS`. Where no server tracks the job, links to its runs lead to the page that leads on
    to wherever `ui` serves MLflow. `beside`: for a file in the job's report folder, which may move with that page."""
    if where.tracking_uri.startswith("http"):
        tracking = without_secrets(where.tracking_uri)
    else:
        tracking = f"../../{ui_page.NAME}" if beside else (where.folder / ui_page.NAME).as_uri()
    return FORMATS[form].render(report, Links(tracking, where.storage))


def saved(where: Settings, job_id: str) -> dict[str, Any] | None:
    """The report's JSON as written when the job ended; None if there is no such file."""
    path = folder_of(where, job_id) / f"report.{FORMATS['json'].suffix}"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BackendUnreachable(f"{path} cannot be read: {error}") from error
    return content
