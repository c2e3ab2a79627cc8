"""The only place that prints a report as Markdown, CSV, LaTeX and JSON; and its words, for all forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.records.rows import Edge
from orchestrator.report.early_stopping import lines as saving_lines
from orchestrator.report.formatting import short
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
    shown = " / ".join(map(metric_title, names)) or "no figure yet"
    units = {column.unit.suffix for column in report.columns if column.metric}
    suffix = f" ({units.pop()})" if len(units) == 1 and units != {""} else ""
    where = f" on {report.measured_on}" if report.measured_on else ""
    seeds = max((len(cell.seeds) for cell in report.cells), default=0)
    spread = f"; mean over {seeds} seeds ± half the 95 % confidence interval (Student t)" if seeds > 1 else "; one seed"
    return f"{shown}{suffix}{where}, stage {report.stage}{spread if seeds else ''}"


def metric_title(metric: str) -> str:
    """A figure's name in words."""
    return _PHRASES.get(metric, metric.replace("_", " "))


def field_title(path: str) -> str:
    return HEADINGS.get(path, path.rpartition(".")[2].replace("_", " "))


def edge_text(edge: Edge) -> str:
    """layer decay high (0.95); lr beyond low (7e-05 below 0.0001); lr high (0.009, its range ends at 0.01)"""
    value, bound = f"{edge.value:g}", f"{edge.bound:g}"
    if edge.beyond:
        numbers = f"{value} {'below' if edge.side == 'low' else 'above'} {bound}"
    else:
        numbers = value if value == bound else f"{value}, its range ends at {bound}"
    return f"{field_title(edge.path)} {'beyond ' * edge.beyond}{edge.side} ({numbers})"


@dataclass(frozen=True)
class Line:
    """A row of the table as text, its name first."""

    kind: Literal["ours", "published", "difference"]
    texts: list[str]


def grid(report: Report) -> tuple[list[str], list[Line]]:
    """Header and rows of the table: below each row of ours the published values and the differences, if any."""
    names = list(dict.fromkeys(mean.name for mean in report.means))
    header = [field_title(report.row_path), *(column.name for column in report.columns), *names]
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
    first = [field_title(report.column_path), field_title(report.row_path)]
    return [*first, *(field_title(path) for path in paths), "val", "of", "on the edge", "trial"], rows


def run_link(run_id: str, tracking: str = "") -> str:
    """Where the MLflow UI shows a run; without the address of a UI, the path below it."""
    return f"{tracking.rstrip('/')}/#/runs/{run_id}"
