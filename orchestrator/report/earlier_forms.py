"""Leaves out of a saved report what the form of its time computed by another rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REPLICATES = 4
"""The first form that takes means over seeds wherever trials differ in their seed alone."""
OTHER_CURVES = 6
"""The first form with the curves of trials that were compared with the chosen one."""


def comparable(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved report without the parts that are not comparable with one of today. Before form 4, two seeds had an
    interval (of a factor of 12.7), and the heat map of a grid over seeds showed the best seed."""
    if saved.get("form", 1) >= REPLICATES:
        return dict(saved)
    changed: dict[str, Any] = dict(saved)
    for numbers in ("cells", "means"):
        if numbers in saved:
            changed[numbers] = [_of_two(each) for each in saved[numbers]]
    groups = saved.get("groups", ())
    if any(map(_over_seeds, groups)):
        changed["groups"] = [_without(each, "heat_maps", "curves") if _over_seeds(each) else each for each in groups]
        changed.pop("scales", None)
    return changed


def in_form_of(saved: Mapping[str, Any], report: Mapping[str, Any]) -> Mapping[str, Any]:
    """A report of today without the curves that the saved one's form has none of."""
    if saved.get("form", 1) >= OTHER_CURVES:
        return report
    groups = [
        {**group, "curves": [each for each in group["curves"] if each["role"] != "other"]} for group in report["groups"]
    ]
    return {**report, "groups": groups}


def with_method_of(saved: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """A saved report with the importance that another version of Optuna computed replaced by today's: it is no recorded
    number, and versions may compute it otherwise."""
    searches, now = saved.get("searches", ()), fresh.get("searches", ())
    if len(searches) != len(now):
        return dict(saved)
    changed = [
        {**each, **{name: today[name] for name in ("importance", "importance_by")}}
        if each.get("importance_by") != today["importance_by"]
        else each
        for each, today in zip(searches, now, strict=True)
    ]
    return {**saved, "searches": changed} if "searches" in saved else dict(saved)


def _of_two(number: Mapping[str, Any]) -> Mapping[str, Any]:
    seeds = number.get("n", len(number.get("seeds", ())))
    return _without(number, "interval") if seeds == 2 else number


def _over_seeds(group: Mapping[str, Any]) -> bool:
    return any("seed" in drawn.get("others", ()) for drawn in group.get("heat_maps", ()))


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}
