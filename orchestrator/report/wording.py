"""The only place that prints a report as Markdown, CSV, LaTeX and JSON; and its words, for all forms."""

from __future__ import annotations

import csv as csv_format
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from orchestrator.report.cells import label, short
from orchestrator.report.early_stopping import lines as saving_lines
from orchestrator.report.model import Cell, Mean, Report, Unit

_PHRASES = {
    "top1": "top-1 accuracy", "mean_per_class": "mean per-class accuracy",
    "map11": "11-point mAP", "top5": "top-5 accuracy",
}  # fmt: skip
HEADINGS = {"backbone.init": "initial weights", "task.dataset": "data set"}
"""How a path heads a column of a table; any other by its last part."""


def number(value: float, interval: float | None, unit: Unit) -> str:
    """91.2 or 91.2 ± 0.4"""
    return unit.text(value) + (f" ± {unit.text(interval)}" if interval is not None else "")


def cell_text(cell: Cell, unit: Unit) -> str:
    """The number, or the word for why there is none; never empty."""
    if cell.value is not None:
        return number(cell.value, cell.interval, unit)
    if cell.state == "running" and cell.wanted > 1:
        return f"running {len(cell.values)}/{cell.wanted}"
    return "–" if cell.state == "absent" else cell.state


def mean_text(mean: Mean, unit: Unit) -> str:
    """The average, or how many of its columns have no value; never empty."""
    if mean.value is not None:
        return number(mean.value, mean.interval, unit)
    return "not comparable" if mean.missing[:1] == ("(columns in different units)",) else f"{len(mean.missing)} missing"


def signed(value: float, unit: Unit) -> str:
    return f"{value:+.{unit.digits}f}".replace("-", "−")


def mean_unit(report: Report) -> Unit:
    """Averages only exist over columns of one unit, so the first column with a figure says it."""
    return next((column.unit for column in report.columns if column.metric), Unit())


def title(report: Report) -> str:
    """What the table shows, in a sentence."""
    names = list(dict.fromkeys(column.metric for column in report.columns if column.metric))
    shown = " / ".join(map(phrase, names)) or "no figure yet"
    units = {column.unit.suffix for column in report.columns if column.metric}
    suffix = f" ({units.pop()})" if len(units) == 1 and units != {""} else ""
    where = f" on {report.measured_on}" if report.measured_on else ""
    seeds = max((len(cell.seeds) for cell in report.cells), default=0)
    spread = f"; mean over {seeds} seeds ± half the 95 % confidence interval (Student t)" if seeds > 1 else "; one seed"
    return f"{shown}{suffix}{where}, stage {report.stage}{spread if seeds else ''}"


def phrase(metric: str) -> str:
    """A figure's name in words."""
    return _PHRASES.get(metric, metric.replace("_", " "))


def heading(path: str) -> str:
    return HEADINGS.get(path, path.rpartition(".")[2].replace("_", " "))


def edge_text(edge: str) -> str:
    """layer decay high (0.95), from choice.edges' optim.layer_decay at the high edge (0.95)"""
    path, _, rest = edge.partition(" ")
    return f"{heading(path)} {rest.replace('at the ', '').replace('the ', '').replace(' edge', '')}"


@dataclass(frozen=True)
class Line:
    """A row of the table as text, its name first."""

    kind: Literal["ours", "published", "difference"]
    texts: list[str]


def grid(report: Report) -> tuple[list[str], list[Line]]:
    """Header and rows of the table: below each row of ours the published values and the differences, if any."""
    names = list(dict.fromkeys(mean.name for mean in report.means))
    header = [heading(report.row_path), *(column.name for column in report.columns), *names]
    means = {(mean.row, mean.name): mean for mean in report.means}
    unit = mean_unit(report)
    body = []
    for row in report.rows:
        cells = [(report.at[row, column.name], column.unit) for column in report.columns]
        averages = [means[row, name] for name in names]
        ours = [*(cell_text(cell, u) for cell, u in cells), *(mean_text(mean, unit) for mean in averages)]
        body.append(Line("ours", [row, *ours]))
        beside: list[tuple[Cell | Mean, Unit]] = [*cells, *((mean, unit) for mean in averages)]
        if any(one.reference is not None for one, _ in beside):
            published = ["–" if one.reference is None else u.text(one.reference) for one, u in beside]
            body.append(Line("published", [f"{row}, published", *published]))
        if any(one.difference is not None for one, _ in beside):
            differences = ["–" if one.difference is None else signed(one.difference, u) for one, u in beside]
            body.append(Line("difference", ["difference", *differences]))
    return header, body


def notes(report: Report) -> list[str]:
    """What the table does not say by itself."""
    found = []
    for cell in report.cells:
        if cell.value is None and cell.reason and cell.state != "absent":
            found.append(f"{cell.row} on {cell.column}: {cell.state} ({cell.reason})")
    for mean in report.means:
        if mean.missing:
            found.append(f"{mean.name} of {mean.row} needs {', '.join(mean.missing)}")
    if report.source:
        computed = any(mean.reference_computed for mean in report.means)
        found.append(f"published: {report.source}{'; its averages computed here' if computed else ''}")
    return [*found, *saving_lines(report.saved, report.agreement)]


def choices(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the chosen settings, a row for each group that has any; only what was varied."""
    decided = [(group, group.choices[-1]) for group in report.groups if group.choices]
    fixed = {report.row_path, report.column_path, "seed"}
    paths = [path for path in dict.fromkeys(p for _, choice in decided for p in choice.settings) if path not in fixed]
    units = report.by_column
    rows = []
    for group, choice in decided:
        value = "–" if choice.value is None else units[group.column].unit.text(choice.value)
        lost = [f"{n} {word}" for n, word in ((choice.diverged, "diverged"), (choice.failed, "failed")) if n]
        rows.append(
            [
                group.column,
                group.row,
                *(short(choice.settings[path]) if path in choice.settings else "–" for path in paths),
                value,
                f"{choice.candidates}{f' ({chr(44).join(lost)})' if lost else ''}",
                "; ".join(edge_text(edge).partition(" (")[0] for edge in choice.edges) or "–",
                choice.key[:8],
            ]
        )
    first = [heading(report.column_path), heading(report.row_path)]
    return [*first, *(heading(path) for path in paths), "val", "of", "on the edge", "trial"], rows


def markdown(report: Report, tracking: str = "") -> str:
    """The table and what stands behind each cell. `tracking`: address of the MLflow UI, for links to runs."""
    header, body = grid(report)
    lines = [f"## {_md(report.name)}", "", _md(". ".join(part for part in (report.caption, title(report)) if part)), ""]
    lines += _md_table(header, [line.texts for line in body], numbers_from=1)
    lines += ["", *(f"- {_md(note)}" for note in notes(report))]
    if report.warnings:
        lines += ["", "### Warnings", "", *(f"- {_md(warning)}" for warning in report.warnings)]
    chosen, rows = choices(report)
    if rows:
        lines += ["", "### Chosen on val", "", *_md_table(chosen, rows, numbers_from=2)]
    behind = [
        [cell.row, cell.column, cell_text(cell, report.by_column[cell.column].unit),
         " ".join(f"`{key[:12]}`" for key in cell.keys) or "–",
         " ".join(f"[{run[:8]}]({run_link(run, tracking)})" for run in cell.run_ids) or "–"]
        for cell in report.cells
    ]  # fmt: skip
    head = [heading(report.row_path), heading(report.column_path), "value", "trials", "MLflow runs"]
    lines += ["", "### Trials behind each cell", "", *_md_table(head, behind, numbers_from=5, escaped_from=3)]
    source = report.provenance
    code = f"{source.git_commit or 'unknown'}{' (uncommitted changes)' if source.git_dirty else ''}"
    lines += ["", f"Job `{report.job_id}`, code {code}, seeds {', '.join(map(str, source.seeds)) or '–'}."]
    return "\n".join(lines) + "\n"


def run_link(run_id: str, tracking: str = "") -> str:
    """Where the MLflow UI shows a run; without the address of a UI, the path below it."""
    return f"{tracking.rstrip('/')}/#/runs/{run_id}"


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
            told = [choice.value, choice.candidates, choice.diverged, choice.failed, _csv("; ".join(choice.edges)),
                    *settings, choice.key]  # fmt: skip
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


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": r"$-$", "–": "--", "<": r"\textless{}",
    ">": r"\textgreater{}", "\n": " ",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def latex(report: Report) -> str:
    """A table for booktabs; the best number of each column in bold."""
    header, body = grid(report)
    best = _best(report)
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_tex('. '.join(part for part in (report.caption, title(report)) if part))}.}}",
        rf"  \label{{tab:{report.name}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"    \toprule",
        "    " + " & ".join(_tex(text) for text in header) + r" \\",
        r"    \midrule",
    ]
    for line in body:
        row = line.texts[0]
        words = [_tex(text) for text in line.texts]
        if line.kind == "ours":
            values = [report.at[row, column.name].value for column in report.columns]
            values += [mean.value for mean in report.means if mean.row == row]
            for i, value in enumerate(values, 1):
                if (row, i) in best:
                    words[i] = rf"\textbf{{{words[i]}}}"
                elif value is None:
                    words[i] = rf"\textit{{{words[i]}}}"
        else:
            words = [rf"\quad {words[0]}", *words[1:]]
        lines.append("    " + " & ".join(words) + r" \\")
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    lines += [rf"  \\ {{\footnotesize {_tex(note)}}}" for note in notes(report)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _best(report: Report) -> set[tuple[str, int]]:
    """(row, column number) of the best value of each column of the table, averages included."""
    found = set()
    names = list(dict.fromkeys(mean.name for mean in report.means))
    columns: list[tuple[str, list[tuple[str, float]]]] = [
        (column.mode, [(c.row, c.value) for c in report.cells if c.column == column.name and c.value is not None])
        for column in report.columns
    ]
    mode = report.columns[0].mode if report.columns else "max"
    columns += [(mode, [(m.row, m.value) for m in report.means if m.name == n and m.value is not None]) for n in names]
    for i, (order, values) in enumerate(columns, 1):
        if len(values) > 1:
            best = (max if order == "max" else min)(value for _, value in values)
            found |= {(row, i) for row, value in values if value == best}
    return found


def to_json(value: Any) -> Any:
    """Plain JSON values of a report (or any part): mappings, lists, text, numbers; what is not finite as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: to_json(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    return [to_json(item) for item in value]
