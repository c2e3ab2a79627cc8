"""The forms that a report is printed in: each is one file in this folder and one line in FORMATS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.report.formats import csv_table, html_page, json_data, latex, markdown, terminal
from orchestrator.report.model import Report


@dataclass(frozen=True)
class Links:
    """Where a form finds what is not in the report itself."""

    tracking: str = ""
    """Address of the MLflow UI; without it runs are named, not linked."""
    storage: Path | None = None
    """Folder of the trials' files; without it pictures are named, not shown."""


@dataclass(frozen=True)
class Format:
    """A form of the report."""

    suffix: str
    """Of the file that is written when a job ends; empty for a form that is only printed."""
    render: Callable[[Report, Links], str]


FORMATS: Mapping[str, Format] = {
    "text": Format("", lambda report, links: terminal.terminal(report)),
    "html": Format("html", lambda report, links: html_page.html(report, links.tracking, links.storage)),
    "md": Format("md", lambda report, links: markdown.markdown(report, links.tracking)),
    "csv": Format("csv", lambda report, links: csv_table.csv(report)),
    "tex": Format("tex", lambda report, links: latex.latex(report)),
    "json": Format("json", lambda report, links: json_data.json_text(report)),
}
"""Name -> form, in the order in which help texts list them. `report -f`, `publish` and the last lines of `submit` read
this list."""
