"""Parts of the page around its table: contents, searches, settings, hours, commands."""

from __future__ import annotations

from typing import Any

from orchestrator.report import figures
from orchestrator.report.drawings import SearchReport
from orchestrator.report.model import GroupReport, Report, StageCount
from orchestrator.report.page import words as page_words
from orchestrator.report.page.data import group_id, has_values, page_data
from orchestrator.report.page.data import panels as chart_panels
from orchestrator.report.svg.curves import LOSS, curves_svg, metric_heading
from orchestrator.report.wording import field_title

OPEN = 4
"""Searches that are open on the page; of more, the readers open those that they want to see."""


def parts(report: Report) -> dict[str, Any]:
    """Everything of these parts, as the template needs it."""
    from markupsafe import Markup

    return {
        "data": Markup(page_data(report)),
        "contents": contents(report),
        "warned": warned(report),
        "searches": [_search(search, f"search-{n}") for n, search in enumerate(report.searches)],
        "open_searches": len(report.searches) <= OPEN,
        "hours": hours_of(report.stages),
        "hours_of": lambda count: hours_of([count]),
        "commands": commands(report),
    }


def contents(report: Report) -> list[tuple[str, str]]:
    """(id, heading) of each section of the page."""
    names = [] if report.joined else list(dict.fromkeys(column.name for column in report.columns))
    listed = [
        ("table", "Results", True),
        ("claims", "Claims", bool(report.claims)),
        *((f"plot-{n}", plot.title or plot.y_name, True) for n, plot in enumerate(report.plots)),
        *((figure.name, figure.title, True) for figure in report.layers),
        ("chosen", "Chosen settings", any(group.choices for group in report.groups)),
        *((f"column-{n}", name, True) for n, name in enumerate(names)),
        ("searches", "Searches", bool(report.searches)),
        ("pictures", "Pictures", bool(report.pictures)),
        ("trials", "Trials", True),
        ("settings", "Settings", bool(report.settings)),
        ("provenance", "Where the numbers come from", True),
        ("spec", "Spec and commands", bool(report.spec_text)),
        ("warnings", "Warnings", bool(report.warnings)),
    ]
    return [(name, heading) for name, heading, there in listed if there]


def warned(report: Report) -> str:
    """How many warnings there are: 3 warnings; empty where there are none."""
    if not report.warnings:
        return ""
    count = len(report.warnings)
    return f"{count} warning{'s' * (count > 1)}"


def hours_of(stages: list[StageCount] | tuple[StageCount, ...]) -> str:
    """1.25 GPU-hours; of stages without a GPU 0.04 CPU-hours; of a mixture both."""
    gpu = sum(stage.gpu_hours for stage in stages)
    cpu = sum(stage.cpu_hours for stage in stages if not stage.gpus)
    told = [f"{_hours(value)} {unit}" for value, unit in ((gpu, "GPU-hours"), (cpu, "CPU-hours")) if value]
    return " and ".join(told)


def _hours(value: float) -> str:
    """537, 12.5, 0.35, 0.0021; less than 0.001"""
    if value < 0.001:
        return "less than 0.001"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"


def commands(report: Report) -> list[tuple[str, str]]:
    """(what it does, command) for each command that makes the page's content again."""
    if report.joined or not report.spec_text:
        return []
    return [
        ("This page again, from the store", f"python -m orchestrator report {report.job_id} -f html > report.html"),
        ("Its numbers checked against the recorded figures", f"python -m orchestrator report {report.job_id} --verify"),
        ("The study again, with the spec below as study.yaml", "python -m orchestrator submit study.yaml"),
    ]


def panels(report: Report, group: GroupReport) -> list[dict[str, Any]]:
    """The places of a group's curves: heading, alternative text, picture for readers without script."""
    from markupsafe import Markup

    identity = group_id(report, group.name)
    words = {"loss": page_words.loss_words(group), "metric": page_words.metric_words(group)}
    pictures = curves_svg(group, words)
    headings = {"loss": LOSS, "metric": metric_heading(group)}
    return [
        {"id": f"{identity}-{name}", "heading": headings[name], "words": words[name],
         "picture": Markup(pictures.get(name, ""))}
        for name in (panel["id"] for panel in chart_panels(group, {}))
    ]  # fmt: skip


def sortable(value: Any) -> str:
    """A value as the page's script compares it: a number, else empty (then its text is compared)."""
    return f"{value:.9g}" if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _search(search: SearchReport, identity: str) -> dict[str, Any]:
    best = search.best
    return {
        "id": identity,
        "search": search,
        "heading": f"{search.row} on {search.column}" if search.column else search.row,
        "best": "" if best is None or best.value is None else figures.text(best.value, search.figure),
        "title": f"{figures.title(search.figure)} on {search.split}",
        "words": page_words.search_words(search),
        "so_far": page_words.so_far_words(search),
        "fields": [
            (place, f"{field_title(field.path)}{', logarithmic' if field.form == 'log' else ''}",
             page_words.field_words(search, place))
            for place, field in enumerate(search.fields)
        ],
        "drawn": has_values(search),
        "hollow": "part of a member of a population" if page_words.parts_of_members(search) else "stopped early",
        "parallel": page_words.parallel_words(search),
        "importance": [
            (field_title(each.path), f"{100 * each.share:.0f} %", round(100 * each.share, 1))
            for each in search.importance
        ],
        "importance_note": page_words.importance_note(search),
    }  # fmt: skip
