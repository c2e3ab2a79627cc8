"""The report as plain text without colours, for a terminal or a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from orchestrator.report import claim_words, figures, layer_words
from orchestrator.report.drawings import HeatCell, HeatMap, Scale
from orchestrator.report.formatting import WIDTH, aligned, short
from orchestrator.report.model import MAPS, GroupReport, Report
from orchestrator.report.svg.heat_map import part_of
from orchestrator.report.wording import (
    Line,
    choices,
    chosen_note,
    chosen_title,
    field_title,
    grid,
    leading_note,
    notes,
    spread_text,
    title,
)

MARK = "†"
"""Behind a number that other forms print in bold."""
_BEST = "the column's worst to its best"
SHADES = {"higher": _BEST, "lower": _BEST, "neither": "the column's lowest to its highest"}
"""What the shades of a heat map go from and to, by the better direction of its figure."""


def terminal(report: Report, width: int = WIDTH) -> str:
    """Table, choices, heat maps of small studies, warnings."""
    name = f"{report.name}{f' ({report.profile})' if report.profile else ''}"
    lines = ["  ".join(filter(None, (name, "" if report.joined else report.job_id, report.state)))]
    for words in (report.message, report.caption, title(report)):
        lines += textwrap.wrap(words, width)
    lines.append("")
    table = grid(report)
    lines += aligned(table.header, _marked(table.lines), width)
    leading = leading_note(report)
    for note in [*([f"{MARK} {leading}"] if leading else []), *notes(report)]:
        lines += textwrap.wrap(
            note, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )  # ids and commands stay whole
    lines += _claims(report, width)
    chosen, rows = choices(report)
    if rows:
        lines += ["", chosen_title(report), *aligned(chosen, rows, width)]
        lines += textwrap.wrap(chosen_note(report), width, initial_indent="  ", subsequent_indent="    ")
    for figure in report.layers:
        lines += ["", *textwrap.wrap(f"{figure.title}: {layer_words.caption(figure)}", width)]
        lines += aligned(*layer_words.means(figure), width)
    lines += _maps(report, width) if len(report.groups) <= MAPS else ["", "Heat maps: in the HTML page"]
    if report.warnings:
        lines += ["", "Warnings"]
    for warning in report.warnings:
        lines += textwrap.wrap(warning, width, initial_indent="  ! ", subsequent_indent="    ", break_long_words=False)
    return "\n".join(lines) + "\n"


def _marked(lines: Sequence[Line]) -> list[list[str]]:
    """The texts of the rows, with `MARK` behind numbers that lead their column; columns stay aligned."""
    marked = {n for line in lines for n, shown in enumerate(line.shown, 1) if line.kind == "ours" and shown.leading}
    return [[f"{text}{_sign(line, n)}" if n in marked else text for n, text in enumerate(line.texts)] for line in lines]


def _sign(line: Line, n: int) -> str:
    return MARK if line.kind == "ours" and line.shown[n - 1].leading else " "


def _claims(report: Report, width: int) -> list[str]:
    """A table, then each claim in words."""
    if not report.claims:
        return []
    lines = ["", f"Claims. {claim_words.title(report)}"]
    lines += aligned(claim_words.HEADER, claim_words.rows(report), width)
    for claim in report.claims:
        words = ". ".join(filter(None, (claim.text.rstrip("."), claim_words.statement(claim))))
        lines += textwrap.wrap(f"{claim.name}: {words}", width, initial_indent="  ", subsequent_indent="    ")
        for line in claim_words.beside(claim):
            lines += textwrap.wrap(line, width, initial_indent="    ", subsequent_indent="      ")
    return lines


def _maps(report: Report, width: int) -> list[str]:
    blocks = [
        (group, drawn, map_lines(report.scale_of(group, drawn), group, drawn))
        for group in report.groups
        for drawn in group.heat_maps
    ]
    if not blocks:
        return []
    first = blocks[0][1]
    axes = f"{field_title(first.x_path)} across" + (f", {field_title(first.y_path)} down" if first.y_path else "")
    replicated = any(drawn.replicated for _, drawn, _ in blocks)
    what = "Means over seeds (below them smallest–largest)" if replicated else "Values"
    shades = " or ".join(dict.fromkeys(SHADES[drawn.figure.better] for _, drawn, _ in blocks))
    legend = f"{what} on {first.split}, {axes}; * chosen; ░▒▓█ from {shades}"
    lines = ["", *textwrap.wrap(legend, width)]
    row: list[list[str]] = []
    for _, _, block in blocks:
        if row and sum(len(before[0]) + 2 for before in row) + len(block[0]) > width:
            lines += ["", *_beside(row)]
            row = []
        row.append(block)
    return [*lines, "", *_beside(row)]


def _beside(blocks: Sequence[Sequence[str]]) -> list[str]:
    height = max(len(block) for block in blocks)
    return [
        "  ".join((block[i] if i < len(block) else "").ljust(len(block[0])) for block in blocks).rstrip()
        for i in range(height)
    ]


def map_lines(scale: Scale, group: GroupReport, drawn: HeatMap) -> list[str]:
    """A heat map as lines of equal length."""
    at = {(cell.x, cell.y): cell for cell in drawn.cells}
    rows = [["", *(short(x) for x in drawn.xs)]]
    for y in drawn.ys:
        rows.append([short(y) if drawn.y_path else "", *(_map_cell(at[x, y], scale) for x in drawn.xs)])
        if drawn.replicated:
            rows.append(["", *(spread_text(at[x, y], scale.figure) for x in drawn.xs)])
    sizes = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.rjust(size) for text, size in zip(row, sizes, strict=True)) for row in rows]
    name = f"{group.name} {drawn.stage}"
    size = max(len(name), *(len(line) for line in lines))
    return [line.ljust(size) for line in [name, *lines]]


_NO_VALUE = {"absent": "·", "diverged": "div", "failed": "fail", "cancelled": "canc", "stopped": "stop"}


def _map_cell(cell: HeatCell, scale: Scale) -> str:
    if cell.value is None:
        return _NO_VALUE.get(cell.state, "…")
    shade = "░▒▓█"[min(3, int(4 * part_of(cell.value, scale)))]
    return f"{figures.text(cell.value, scale.figure)}{'*' if cell.chosen else shade}"
