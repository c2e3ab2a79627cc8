"""The numbers that the page's charts show when pointed at, as JSON inside the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.report import figures
from orchestrator.report.drawings import Curve, SearchReport, SearchSetting
from orchestrator.report.formatting import short, varied
from orchestrator.report.model import GroupReport, Report
from orchestrator.report.svg.curves import mean_curve
from orchestrator.report.wording import field_title

LEADING = 0.25
"""Share of the settings in full that parallel coordinates draw in strong lines: the best quarter."""


def group_id(report: Report, name: str) -> str:
    """The id of a group's card on the page; empty for a group that has none."""
    numbers = {group.name: n for n, group in enumerate(report.groups)}
    return f"group-{numbers[name]}" if name in numbers else ""


def page_data(report: Report) -> str:
    """As text for a script element of type application/json: no `<` in it, so that nothing ends the element."""
    settings = settings_of_trials(report)
    curves = {group_id(report, group.name): panels(group, settings) for group in report.groups}
    searches = {f"search-{n}": search_data(search) for n, search in enumerate(report.searches) if has_values(search)}
    data = {"curves": {name: each for name, each in curves.items() if each}, "searches": searches}
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def has_values(search: SearchReport) -> bool:
    """False while no setting has a value, so that there is nothing to draw."""
    return any(each.value is not None for each in search.settings)


def settings_of_trials(report: Report) -> dict[str, str]:
    """Trial key -> what tells it from the others of its stage and group: lr 1.18e-3, layer decay 0.95"""
    places: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for trial in report.trials:
        places.setdefault((trial.stage, trial.group), []).append(trial.settings)
    differing = {place: varied(members) for place, members in places.items()}
    words: dict[str, str] = {}
    for trial in report.trials:
        told = [
            f"{field_title(path)} {short(trial.settings[path])}"
            for path in differing[trial.stage, trial.group]
            if path in trial.settings
        ]
        words.setdefault(trial.key, ", ".join(told) or trial.key[:8])
    return words


def panels(group: GroupReport, settings: Mapping[str, str]) -> list[dict[str, Any]]:
    """The charts of a group's curves: training loss and the metric; none of what no trial reported twice."""
    drawn = [curve for curve in group.curves if curve.epochs]
    losses = [_line(curve, _numbers(curve.epochs, curve.train_loss), drawn, settings) for curve in drawn]
    metrics = [_line(curve, _evaluated(curve), drawn, settings) for curve in drawn]
    all_epochs = [epoch for curve in drawn for epoch in (curve.epochs[0], curve.epochs[-1])]
    span = [min(all_epochs), max(all_epochs)] if drawn else []
    digits = group.figure.digits
    shown: list[dict[str, Any]] = [
        {"id": "loss", "series": _with_means(drawn, losses), "ends": [], "digits": 4, "epochs": span},
        {"id": "metric", "series": _with_means(drawn, metrics), "ends": _ends(drawn), "digits": digits, "epochs": span},
    ]
    return [
        panel for panel in shown if any(sum(y is not None for y in line["y"]) > 1 for line in panel["series"])
    ]  # a single value is in the table


def _numbers(epochs: Sequence[int], values: Sequence[float | None]) -> tuple[list[int], list[float | None]]:
    return list(epochs), [_rounded(value) for value in values]


def _evaluated(curve: Curve) -> tuple[list[int], list[float | None]]:
    """The epochs in which the metric was evaluated: a line goes through them, however far apart, but not over one with
    a value that is no number."""
    kept = [
        (epoch, value)
        for epoch, value in zip(curve.epochs, curve.metric, strict=True)
        if value is not None or epoch in curve.broken
    ]
    return _numbers([epoch for epoch, _ in kept], [value for _, value in kept])


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def curve_name(curve: Curve, several: bool, ended: bool = False) -> str:
    """chosen on val; final on test, seed 1; the figure that it ended with: final, figure on test"""
    role = "chosen" if curve.role == "chosen" else curve.stage
    where = f"{', figure' if ended else ''} on {curve.split}" if curve.split else ""
    return f"{role}{where}{f', seed {curve.seed}' if several else ''}"


Line = dict[str, Any]


def _line(
    curve: Curve, points: tuple[list[int], list[float | None]], drawn: Sequence[Curve], settings: Mapping[str, str]
) -> Line:
    several = sum(other.role == curve.role for other in drawn) > 1 and curve.role != "other"
    name = settings.get(curve.key, curve.key[:8]) if curve.role == "other" else curve_name(curve, several)
    return {"role": f"{curve.role} seed" if several else curve.role, "name": name, "x": points[0], "y": points[1]}


def _with_means(drawn: Sequence[Curve], lines: Sequence[Line]) -> list[Line]:
    """Faint lines first, then seeds, then what stands out: the last drawn lies on top."""
    faint = [line for line in lines if line["role"] == "other"]
    means = []
    for role in ("chosen", "final"):
        members = [line for curve, line in zip(drawn, lines, strict=True) if curve.role == role]
        if len(members) > 1:
            x, y = mean_curve([dict(zip(line["x"], line["y"], strict=True)) for line in members])
            first = next(curve for curve in drawn if curve.role == role)
            name = f"{curve_name(first, False)}, mean of {len(members)} seeds"
            means.append({"role": role, "name": name, "x": x, "y": [_rounded(value) for value in y]})
    return [*faint, *(line for line in lines if line["role"] != "other"), *means]


def _ends(drawn: Sequence[Curve]) -> list[dict[str, Any]]:
    """The figures that the trials of the table ended with, at the last epoch."""
    finals = [curve for curve in drawn if curve.role == "final" and curve.end is not None]
    return [
        {"name": f"◆ {curve_name(curve, len(finals) > 1, ended=True)}", "x": max(c.epochs[-1] for c in drawn),
         "value": _rounded(curve.end)}
        for curve in finals
    ]  # fmt: skip


def search_data(search: SearchReport) -> dict[str, Any]:
    """A search as its charts need it."""
    best, metric = search.best, search.figure
    leading = leading_settings(search)
    return {
        "title": metric.title,
        "digits": metric.digits,
        "fields": [
            {"title": field_title(field.path), "form": field.form, "choices": list(field.choices)}
            for field in search.fields
        ],
        "settings": [
            {
                "number": each.number,
                "at": list(each.at),
                "value": _rounded(each.value),
                "so_far": _rounded(each.best),
                "full": each.in_full,
                "best": best is not None and each.number == best.number,
                "leading": each.number in leading,
                "text": _told(search, each),
            }
            for each in search.settings
        ],
    }


def leading_settings(search: SearchReport) -> set[int]:
    """Numbers of the best quarter of the settings in full, at least one; none where no value is better."""
    if search.best is None:
        return set()
    sign = -1 if search.figure.better == "higher" else 1
    ranked = sorted(search.in_full, key=lambda each: (sign * (each.value or 0.0), each.number))
    return {each.number for each in ranked[: max(1, round(len(ranked) * LEADING))]}


def _told(search: SearchReport, each: SearchSetting) -> str:
    value = "" if each.value is None else figures.with_unit(each.value, search.figure)
    how = f" after epoch {each.epoch}, stopped" if each.state == "stopped" and each.epoch is not None else ""
    first = f"{each.number}: {value} on {search.split}{how}{', chosen' if each.chosen else ''}"
    return "\n".join([first, *at_words(search, each)])


def at_words(search: SearchReport, each: SearchSetting) -> list[str]:
    """The values of a setting, a text for each field: lr 1.18e-3"""
    return [
        f"{field_title(field.path)} {field.choices[int(value)] if field.form == 'choice' else short(value)}"
        for field, value in zip(search.fields, each.at, strict=True)
        if value is not None
    ]
