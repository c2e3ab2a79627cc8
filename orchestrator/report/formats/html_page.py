"""The report as a page: one HTML file that needs no network and no other file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.report import claim_words, figures, layer_words, plotting
from orchestrator.report.drawings import HeatMap
from orchestrator.report.early_stopping import lines as saving_lines
from orchestrator.report.formatting import duration, short, varied
from orchestrator.report.joined_words import where_from
from orchestrator.report.model import Cell, GroupReport, Mean, Report, StageCount, TrialLine
from orchestrator.report.page import parts as page_parts
from orchestrator.report.page import words as page_words
from orchestrator.report.page.data import group_id
from orchestrator.report.pictures import embedded, image
from orchestrator.report.svg.heat_map import heat_map_inline, scale_bar
from orchestrator.report.svg.scatter import scatter_svg
from orchestrator.report.wording import (
    Grid,
    cell_text,
    choices,
    chosen_note,
    chosen_title,
    counts_differ,
    difference_text,
    edge_text,
    field_title,
    grid,
    group_text,
    leading_note,
    mean_reason,
    mean_text,
    other_texts,
    point_text,
    published_text,
    run_link,
    seeds_text,
    title,
)

SIGNS = {
    "done": "✓", "diverged": "≈", "failed": "✕", "cancelled": "–", "running": "▸", "pending": "…", "missing": "○",
    "stopped": "■", "undecided": "?", "absent": "",
    "submitted": "↑", "not run": "○",
}  # fmt: skip
"""Signs beside the word of a state, so that colour is not the only mark."""


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
    source = environment.loader
    assert source is not None
    scripts = ("uplot/uPlot.iife.min.js", "report.js", "charts.js")
    return environment.get_template("report.html").render(
        report=report,
        **_table_parts(report),
        **_drawn_parts(report, storage),
        **page_parts.parts(report),
        stages=_stages(report, tracking),
        signs=SIGNS,
        duration=duration,
        total=duration(report.provenance.seconds),
        heading=field_title,
        library_css=Markup(source.get_source(environment, "uplot/uPlot.min.css")[0]),
        licence=Markup(source.get_source(environment, "uplot/LICENSE")[0].strip()),
        scripts=[Markup(source.get_source(environment, name)[0]) for name in scripts],
    )


def _table_parts(report: Report) -> dict[str, Any]:
    """The table of results, the chosen settings, the claims."""
    at = _anchors(report)
    table = grid(report)
    chosen_header, chosen_rows = choices(report)
    names = dict.fromkeys(column.name for column in report.columns)
    return {
        "title": title(report),
        "header": table.header,
        "spans": _spans(table),
        "rows": _rows(report, at),
        "leading": leading_note(report),
        "chosen_title": chosen_title(report),
        "chosen_note": chosen_note(report),
        "chosen_header": chosen_header,
        "chosen_rows": chosen_rows,
        "others": [(row, other_texts(report, row)) for row in report.others],
        "where_from": where_from(report),
        "columns": []
        if report.joined
        else [(name, _scales(report, name), _groups(report, name, at)) for name in names],
        "claims_title": claim_words.title(report),
        "claims_header": claim_words.HEADER,
        "claims": [
            (claim, claim_words.row(claim), claim_words.statement(claim), claim_words.beside(claim))
            for claim in report.claims
        ],
        "stopping": saving_lines(report.saved, report.agreement),
    }


def _drawn_parts(report: Report, storage: Path | None) -> dict[str, Any]:
    """Plots, figures over layers, pictures of trials."""
    from markupsafe import Markup

    return {
        "plots": [(plot, Markup(scatter_svg(plot, page_words.plot_words(plot)))) for plot in report.plots],
        "layer_caption": layer_words.caption,
        "layer_words": page_words.layer_words,
        "layers": [(figure, image(plotting.svg(figure), "svg+xml")) for figure in report.layers],
        "pictures": [(picture, embedded(picture, storage) if storage else None) for picture in report.pictures],
    }


def _stages(report: Report, tracking: str) -> list[tuple[StageCount, str, list[str], list[dict[str, Any]]]]:
    """Each stage with its trials: counts in words, the paths that they vary, a line for each."""
    stages = []
    for count in report.stages:
        trials = [trial for trial in report.trials if trial.stage == count.name]
        paths = varied([trial.settings for trial in trials])
        stages.append((count, summary(count), paths, [_trial(trial, tracking) for trial in trials]))
    return stages


def _spans(table: Grid) -> list[tuple[str, int]]:
    """The columns' names, each with the number of its figures; empty where the table shows one figure."""
    if not any(heading.figure for heading in table.headings):
        return []
    groups = itertools.groupby(table.headings, key=lambda heading: heading.name)
    return [(name, len(list(group))) for name, group in groups]


def _anchors(report: Report) -> dict[str, str]:
    """Trial key -> id of its line on the page; for a trial in several stages the first one."""
    anchors: dict[str, str] = {}
    for trial in report.trials:
        anchors.setdefault(trial.key, anchor(trial))
    return anchors


def anchor(trial: TrialLine) -> str:
    return f"trial-{trial.stage}-{trial.key[:16]}"


@dataclass(frozen=True)
class Shown:
    """A cell of the table as the template needs it."""

    text: str
    state: str
    reason: str
    """Why there is no number; of a mean over seeds each one's value."""
    leading: bool
    links: Sequence[tuple[str, str]]
    """(word, anchor) of its trials, the chosen one first."""
    published: str
    difference: str
    group: str


def _rows(report: Report, at: dict[str, str]) -> list[tuple[str, list[Shown]]]:
    with_n = counts_differ(report)
    return [
        (
            row,
            [
                *(_cell(report, cell, cell_text(cell, with_n), at) for cell in report.cells_of(row)),
                *map(_mean, report.means_of(row)),
            ],
        )
        for row in report.rows
    ]


def _cell(report: Report, cell: Cell, text: str, at: dict[str, str]) -> Shown:
    links = [("chosen", at[cell.choice.key])] if cell.choice and cell.choice.key in at else []
    ours = {trial.key: trial for trial in report.trials if trial.key in cell.keys} if len(cell.keys) > 1 else {}
    for key in cell.keys:
        if key in at:
            links.append((f"seed {ours[key].seed}" if ours else "trial", at[key]))
    return Shown(
        text=text,
        state=cell.state,
        reason=cell.reason or _seeds(cell),
        leading=cell.leading,
        links=links,
        published=published_text(cell),
        difference=difference_text(cell),
        group=group_id(report, cell.group),
    )


def _mean(mean: Mean) -> Shown:
    return Shown(
        text=mean_text(mean),
        state="done" if mean.value is not None else "missing",
        reason=mean_reason(mean) or _seeds(mean),
        leading=mean.leading,
        links=[],
        published=published_text(mean),
        difference=difference_text(mean),
        group="",
    )


def _seeds(shown: Cell | Mean) -> str:
    """The value of each seed, of several."""
    return seeds_text(shown.values, shown.seeds, shown.figure) if len(shown.values) > 1 else ""


def _scales(report: Report, column: str) -> list[dict[str, Any]]:
    """The colour scales of a column's heat maps: title of the metric, split, drawing."""
    from markupsafe import Markup

    splits = {
        drawn.figure.name: drawn.split for group in report.groups if group.column == column for drawn in group.heat_maps
    }
    return [
        {"title": scale.figure.title, "split": splits[scale.figure.name], "bar": Markup(scale_bar(scale))}
        for scale in report.scales
        if scale.column == column and scale.low is not None
    ]


def _groups(report: Report, column: str, at: dict[str, str]) -> list[dict[str, Any]]:
    """The cards of a column's groups."""
    from markupsafe import Markup

    cards = []
    for group in report.groups:
        if group.column != column:
            continue
        identity = group_id(report, group.name)
        maps = [
            heat_map_inline(group, drawn, report.scale_of(group, drawn), f"{identity}-{n}")
            for n, drawn in enumerate(group.heat_maps)
        ]
        choice = group.choices[-1] if group.choices else None
        cards.append(
            {
                "id": identity,
                "group": group,
                "cell": report.at[group.row, group.column],
                "text": group_text(report, group.row, group.column),
                "maps": [Markup(svg) for svg in maps],
                "squares": [_squares(drawn) for drawn in group.heat_maps],
                "panels": page_parts.panels(report, group),
                "finals": sum(curve.role == "final" for curve in group.curves),
                "winners": sum(curve.role == "chosen" for curve in group.curves),
                "others": sum(curve.role == "other" for curve in group.curves),
                "split": choice.split if choice else "",
                "chosen_at": ""
                if choice is None or choice.value is None
                else figures.text(choice.value, choice.figure),
                "edges": [edge_text(edge) for edge in choice.edges] if choice else [],
                "points": _points(group, at),
                "replicated": any(len(point.keys) > 1 for point in group.points),
            }
        )
    return cards


def _squares(drawn: HeatMap) -> str:
    """What a square of a heat map is, where it is more than the value of one trial."""
    seeds = sorted({cell.wanted for cell in drawn.cells if cell.wanted})
    words = []
    if drawn.replicated:
        count = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
        words.append(f"mean over {count} seeds, below it smallest–largest")
    if drawn.others:
        words.append(f"best over {', '.join(map(field_title, drawn.others))}")
    return "; ".join(words)


def _points(group: GroupReport, at: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "moved": ", ".join(f"{field_title(path)} {short(a)} → {short(b)}" for path, (a, b) in point.moved.items())
            or "nothing",
            "value": point_text(point, group.figure),
            "difference": ""
            if point.difference is None
            else figures.signed(point.difference, group.figure)
            + ("" if point.interval is None else f" ± {figures.text(point.interval, group.figure)}"),
            "seeds": seeds_text(point.values, point.seeds, group.figure) if len(point.keys) > 1 else "",
            "chosen": point.chosen,
            "key": point.key[:8],
            "anchor": at.get(point.key, ""),
        }
        for point in group.points
    ]


def _trial(trial: TrialLine, tracking: str) -> dict[str, Any]:
    linked = bool(trial.run_id) and tracking.startswith(("http://", "https://", "file:///", "../"))
    return {
        "anchor": anchor(trial),
        "trial": trial,
        "value": "" if trial.value is None else f"{trial.value:.{trial.digits}f}",
        "raw_value": page_parts.sortable(trial.value),
        "raw_seconds": page_parts.sortable(trial.seconds),
        "raw": {path: page_parts.sortable(value) for path, value in trial.settings.items()},
        "settings": {path: short(value) for path, value in trial.settings.items()},
        "seconds": "" if trial.seconds is None else duration(trial.seconds),
        "run": run_link(trial.run_id or "", tracking) if linked else "",
    }


def summary(count: StageCount) -> str:
    """60 trials: 57 done, 2 diverged, 1 failed"""
    states = ", ".join(f"{n} {state}" for state, n in count.states.items())
    return f"{count.placed} trial{'' if count.placed == 1 else 's'}" + (f": {states}" if states else "")
