"""The forms that a report is printed in: each is one file in this folder and one line in FORMATS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.report.formats import csv_table, html_page, json_data, latex, markdown, terminal
from orchestrator.report.formatting import printable_lines
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


def _printable(render: Callable[[Report, Links], str]) -> Callable[[Report, Links], str]:
    """No text of others (names, errors, rows of the store) reaches a terminal or a file as it is."""

    def rendered(report: Report, links: Links) -> str:
        return printable_lines(render(report, links))

    return rendered


FORMATS: Mapping[str, Format] = {
    "text": Format("", _printable(lambda report, links: terminal.terminal(report))),
    "html": Format("html", _printable(lambda report, links: html_page.html(report, links.tracking, links.storage))),
    "md": Format("md", _printable(lambda report, links: markdown.markdown(report, links.tracking))),
    "csv": Format("csv", _printable(lambda report, links: csv_table.csv(report))),
    "tex": Format("tex", _printable(lambda report, links: latex.latex(report))),
    "json": Format("json", _printable(lambda report, links: json_data.json_text(report))),
}
"""Name -> form, in the order in which help texts list them. `report -f`, `publish` and the last lines of `submit` read
this list."""
