"""The only place that prints a report as a page: one HTML file that needs no network, no other file and no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.records.recorded_spec import label
from orchestrator.report.early_stopping import lines as saving_lines
from orchestrator.report.formatting import duration, short
from orchestrator.report.model import Cell, Column, GroupReport, Mean, Report, StageCount, TrialLine, Unit, unit_of
from orchestrator.report.pictures import embedded
from orchestrator.report.svg.curves import curves_svg
from orchestrator.report.svg.heat_map import heat_map_inline, scale_bar
from orchestrator.report.svg.scatter import scatter_svg
from orchestrator.report.wording import (
    cell_text,
    choices,
    edge_text,
    field_title,
    mean_text,
    mean_unit,
    metric_title,
    run_link,
    signed,
    title,
)

SIGNS = {
    "done": "✓", "diverged": "≈", "failed": "✕", "cancelled": "–", "running": "▸", "pending": "…", "missing": "○",
    "stopped": "■", "absent": "",
}  # fmt: skip
"""Beside the word of a state, so that no state is told by colour alone."""


def html(report: Report, tracking: str = "", storage: Path | None = None) -> str:
    """The whole page. `tracking`: address of the MLflow UI; without it runs are named, not linked. `storage`: where the
    trials' folders are; without it pictures are named, not shown."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parents[1] / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    at = _anchors(report)
    chosen_header, chosen_rows = choices(report)
    stages = []
    for count in report.stages:
        trials = [trial for trial in report.trials if trial.stage == count.name]
        stages.append((count, summary(count), _varied(trials), [_trial(trial, tracking) for trial in trials]))
    return environment.get_template("report.html").render(
        report=report,
        title=title(report),
        header=[field_title(report.row_path), *(column.name for column in report.columns), *_names(report)],
        rows=[_row(report, row, at) for row in report.rows],
        chosen_header=chosen_header,
        chosen_rows=chosen_rows,
        columns=[(column, Markup(scale_bar(column)), _groups(report, column, at)) for column in report.columns],
        plots=[(plot, Markup(scatter_svg(plot))) for plot in report.plots],
        pictures=[(picture, embedded(picture, storage) if storage else None) for picture in report.pictures],
        stopping=saving_lines(report.saved, report.agreement),
        stages=stages,
        signs=SIGNS,
        duration=duration,
        total=duration(report.provenance.seconds),
        phrase=metric_title,
        heading=field_title,
    )


def _names(report: Report) -> list[str]:
    return list(dict.fromkeys(mean.name for mean in report.means))


def _anchors(report: Report) -> dict[str, str]:
    """Trial key -> id of its line on the page; of a trial in several stages, its first."""
    found: dict[str, str] = {}
    for trial in report.trials:
        found.setdefault(trial.key, anchor(trial))
    return found


def anchor(trial: TrialLine) -> str:
    return f"trial-{trial.stage}-{trial.key[:16]}"


@dataclass(frozen=True)
class Shown:
    """A cell of the table as the template needs it."""

    text: str
    state: str
    reason: str
    best: bool
    links: Sequence[tuple[str, str]]
    """(word, anchor) of its trials, the chosen one first."""
    published: str
    difference: str
    group: str


def _row(report: Report, row: str, at: dict[str, str]) -> tuple[str, list[Shown]]:
    cells = [_cell(report, report.at[row, column.name], column, at) for column in report.columns]
    unit = mean_unit(report)
    means = [_mean(report, mean, unit) for mean in report.means if mean.row == row]
    return row, [*cells, *means]


def _cell(report: Report, cell: Cell, column: Column, at: dict[str, str]) -> Shown:
    links = [("chosen", at[cell.choice.key])] if cell.choice and cell.choice.key in at else []
    ours = {trial.key: trial for trial in report.trials if trial.key in cell.keys} if len(cell.keys) > 1 else {}
    for key in cell.keys:
        if key in at:
            links.append((f"seed {ours[key].seed}" if ours else "trial", at[key]))
    others = [c.value for c in report.cells if c.column == cell.column and c.value is not None]
    best = (max if column.mode == "max" else min)(others, default=None)
    return Shown(
        text=cell_text(cell, column.unit),
        state=cell.state,
        reason=cell.reason,
        best=cell.value is not None and len(others) > 1 and cell.value == best,
        links=links,
        published="" if cell.reference is None else column.unit.text(cell.reference),
        difference="" if cell.difference is None else signed(cell.difference, column.unit),
        group=_group_id(report, cell.group),
    )


def _mean(report: Report, mean: Mean, unit: Unit) -> Shown:
    others = [m.value for m in report.means if m.name == mean.name and m.value is not None]
    mode = report.columns[0].mode if report.columns else "max"
    return Shown(
        text=mean_text(mean, unit),
        state="done" if mean.value is not None else "missing",
        reason=f"needs {', '.join(mean.missing)}" if mean.missing else "",
        best=mean.value is not None and len(others) > 1 and mean.value == (max if mode == "max" else min)(others),
        links=[],
        published="" if mean.reference is None else unit.text(mean.reference),
        difference="" if mean.difference is None else signed(mean.difference, unit),
        group="",
    )


def _group_id(report: Report, name: str) -> str:
    numbers = {group.name: n for n, group in enumerate(report.groups)}
    return f"group-{numbers[name]}" if name in numbers else ""


def _groups(report: Report, column: Column, at: dict[str, str]) -> list[dict[str, Any]]:
    from markupsafe import Markup

    return [
        {
            "id": _group_id(report, group.name),
            "group": group,
            "cell": report.at[group.row, group.column],
            "text": cell_text(report.at[group.row, group.column], column.unit),
            "maps": [
                Markup(heat_map_inline(group, drawn, column, f"{_group_id(report, group.name)}-{n}"))
                for n, drawn in enumerate(group.heat_maps)
            ],
            "others": [", ".join(map(field_title, drawn.others)) for drawn in group.heat_maps],
            "curves": [Markup(svg) for svg in curves_svg(group, column)],
            "finals": sum(curve.role == "final" for curve in group.curves),
            "edges": [edge_text(edge) for edge in group.choices[-1].edges] if group.choices else [],
            "points": _points(group, column, at),
        }
        for group in report.groups
        if group.column == column.name
    ]


def _points(group: GroupReport, column: Column, at: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "moved": ", ".join(f"{field_title(path)} {short(a)} → {short(b)}" for path, (a, b) in point.moved.items())
            or "nothing",
            "value": "" if point.value is None else column.unit.text(point.value),
            "difference": "" if point.difference is None else signed(point.difference, column.unit),
            "state": point.state,
            "chosen": point.chosen,
            "key": point.key[:8],
            "anchor": at.get(point.key, ""),
        }
        for point in group.points
    ]


def _varied(trials: Sequence[TrialLine]) -> list[str]:
    """Paths that tell a stage's trials apart, so that each is a column of its table."""
    paths = dict.fromkeys(path for trial in trials for path in trial.settings)
    return [path for path in paths if len({label(trial.settings.get(path)) for trial in trials}) > 1]


def _trial(trial: TrialLine, tracking: str) -> dict[str, Any]:
    linked = bool(trial.run_id) and tracking.startswith(("http://", "https://"))
    return {
        "anchor": anchor(trial),
        "trial": trial,
        "value": "" if trial.value is None else unit_of(trial.metric).text(trial.value),
        "settings": {path: short(value) for path, value in trial.settings.items()},
        "seconds": "" if trial.seconds is None else duration(trial.seconds),
        "run": run_link(trial.run_id or "", tracking) if linked else "",
    }


def summary(count: StageCount) -> str:
    """60 trials: 57 done, 2 diverged, 1 failed"""
    told = ", ".join(f"{n} {state}" for state, n in count.states.items())
    return f"{count.placed} trial{'' if count.placed == 1 else 's'}" + (f": {told}" if told else "")
