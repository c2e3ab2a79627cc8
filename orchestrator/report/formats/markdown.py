"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.report import claim_words, layer_words
from orchestrator.report.model import Report
from orchestrator.report.wording import (
    Line,
    cell_text,
    choices,
    chosen_note,
    chosen_title,
    counts_differ,
    field_title,
    grid,
    leading_note,
    notes,
    run_link,
    shows_several,
    title,
)


def markdown(report: Report, tracking: str = "") -> str:
    """The table and the trials behind each cell. `tracking`: address of the MLflow UI, for links to runs."""
    table = grid(report)
    lines = [
        f"## {_md(report.name)}",
        "",
        _md(". ".join(part for part in (report.caption.rstrip("."), title(report)) if part)),
        "",
    ]
    lines += _md_table(table.header, [_words(line) for line in table.lines], numbers_from=1, escaped_from=0)
    bold = leading_note(report)
    lines += ["", *([f"- **bold**: {_md(bold)}"] if bold else []), *(f"- {_md(note)}" for note in notes(report))]
    if report.warnings:
        lines += ["", "### Warnings", "", *(f"- {_md(warning)}" for warning in report.warnings)]
    lines += _claims(report)
    chosen, rows = choices(report)
    if rows:
        lines += ["", f"### {_md(chosen_title(report))}", "", *_md_table(chosen, rows, numbers_from=2)]
        lines += ["", f"- {_md(chosen_note(report))}"]
    for figure in report.layers:
        header, body = layer_words.means(figure)
        lines += ["", f"### {_md(figure.title)}", "", f"![{_md(figure.title)}]({figure.name}.svg)", ""]
        lines += [_md(layer_words.caption(figure)), "", *_md_table(header, body, numbers_from=1)]
    several, with_n = shows_several(report), counts_differ(report)
    behind = [
        [cell.row, cell.column, *([cell.figure.title] if several else []), cell_text(cell, with_n),
         " ".join(f"`{key[:12]}`" for key in cell.keys) or "–",
         " ".join(f"[{run[:8]}]({run_link(run, tracking)})" for run in cell.run_ids) or "–"]
        for cell in report.cells
    ]  # fmt: skip
    first = [field_title(report.row_path), field_title(report.column_path), *(["figure"] if several else []), "value"]
    head = [*first, "trials", "MLflow runs"]
    table_lines = _md_table(head, behind, numbers_from=len(head), escaped_from=len(first))
    lines += ["", "### Trials behind each cell", "", *table_lines]
    source = report.provenance
    code = f"{source.git_commit or 'unknown'}{' (uncommitted changes)' if source.git_dirty else ''}"
    jobs = ", ".join(f"`{name}`" for name in report.jobs) or "not submitted"
    lines += [
        "",
        f"Job{'s' * (len(report.jobs) > 1)} {jobs}, code {code}, seeds {', '.join(map(str, source.seeds)) or '–'}.",
    ]
    if source.processors:
        ran = "; ".join(map(_md, source.processors))
        lines += ["", f"Computed on {ran}: another processor or number of threads may change last digits."]
    return "\n".join(lines) + "\n"


def _words(line: Line) -> list[str]:
    """The texts of a row, as Markdown."""
    return [f"**{_md(text)}**" if bold else _md(text) for text, bold in zip(line.texts, line.bold, strict=True)]


def _claims(report: Report) -> list[str]:
    if not report.claims:
        return []
    lines = ["", "### Claims", "", f"{_md(claim_words.title(report))}.", ""]
    lines += _md_table(claim_words.HEADER, claim_words.rows(report), numbers_from=1)
    lines.append("")
    for claim in report.claims:
        words = ". ".join(filter(None, (claim.text.rstrip("."), claim_words.statement(claim))))
        lines.append(f"- {_md(claim.name)}: {_md(words)}")
        lines += [f"  - {_md(line)}" for line in claim_words.beside(claim)]
    return lines


def _md(text: str) -> str:
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, "\\" + sign)
    return text.replace("\n", " ").replace("\r", " ")


def _md_table(
    header: Sequence[str], body: Iterable[Sequence[str]], numbers_from: int, escaped_from: int | None = None
) -> list[str]:
    """`numbers_from`: first column aligned to the right. `escaped_from`: first column that is Markdown already."""
    until = len(header) if escaped_from is None else escaped_from
    rule = ["---" if i < numbers_from else "---:" for i in range(len(header))]
    rows = [[_md(text) if i < until else text for i, text in enumerate(row)] for row in body]
    return [f"| {' | '.join(row)} |" for row in [[_md(text) for text in header], rule, *rows]]
