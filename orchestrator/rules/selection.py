"""The only place that says which trial of a group wins, how ties are broken, and when a winner lies on an edge."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.records.rows import SearchEvent


@dataclass(frozen=True)
class Candidate:
    """A trial of a group that ended with a result; a diverged trial has no figures."""

    key: str
    figures: Mapping[str, float]
    settings: Mapping[str, Any]
    """Dotted path -> value."""


@dataclass(frozen=True)
class Tie:
    """`figure:NAME:min|max` or `path:min|max`, read: how candidates with an equal metric are ordered."""

    name: str
    figure: bool
    """Whether `name` is a figure; else a field of the settings."""
    largest: bool


def read_tie(text: str) -> Tie:
    """Raises ValueError when `text` is not `figure:NAME:min|max` or `path:min|max`."""
    match text.split(":"):
        case ["figure", name, ("min" | "max") as order] if name:
            return Tie(name, True, order == "max")
        case [name, ("min" | "max") as order] if name and name != "figure":
            return Tie(name, False, order == "max")
    raise ValueError(f"tie {text!r} is neither figure:NAME:min|max nor path:min|max")


def best(candidates: Iterable[Candidate], metric: str, mode: str, ties: Sequence[str] = ()) -> Candidate | None:
    """The candidate with the best `metric` (`mode`: max or min); equal ones are ordered by `ties`, last by key.

    A missing or non-finite number counts worst, in the metric and in every tie. None when no candidate has a
    finite metric: a group of which all trials diverged has no winner.
    """
    if mode not in ("max", "min"):
        raise ValueError(f"mode {mode!r} is neither max nor min")
    rules = [Tie(metric, True, mode == "max"), *(read_tie(text) for text in ties)]
    ranked = [
        ([_rank(c, rule) for rule in rules], c.key, c) for c in candidates if _finite(c.figures.get(metric)) is not None
    ]
    return min(ranked, key=lambda entry: entry[:2])[2] if ranked else None


def edges(winner: Mapping[str, Any], axes: Mapping[str, Iterable[Any]]) -> list[str]:
    """For each numeric axis of the grid, in its order: whether the winner's setting lies on or beyond an end of it.

    `axes`: path -> the values that the group's grid has there (see `axis_values`). An axis with one value, or with
    values that are not numbers, has no edge.
    """
    found = []
    for path, values in axes.items():
        numbers = [_finite(value) for value in values]
        value = _finite(winner.get(path))
        if value is None or any(number is None for number in numbers) or len(set(numbers)) < 2:
            continue
        low = min(number for number in numbers if number is not None)
        high = max(number for number in numbers if number is not None)
        if value in (low, high):
            found.append(f"{path} at the {'low' if value == low else 'high'} edge ({value:g})")
        elif value < low:
            found.append(f"{path} beyond the low edge ({value:g} below {low:g})")
        elif value > high:
            found.append(f"{path} beyond the high edge ({value:g} above {high:g})")
    return found


Range = tuple[float, float, bool]
"""Low, high, and whether even in the logarithm."""

NEAR_END = 0.05
"""A searched value hardly ever lies right on an end of its range: within this share of the range it counts as there."""


def range_edges(winner: Mapping[str, Any], ranges: Mapping[str, Range]) -> list[str]:
    """For each range of a search: whether the winner's value lies at or beyond an end of it."""
    found = []
    for path, (low, high, log) in ranges.items():
        value = _finite(winner.get(path))
        if value is None or (log and value <= 0):
            continue
        share = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        if share < 0 or share > 1:
            side, end = ("low", low) if share < 0 else ("high", high)
            found.append(f"{path} beyond the {side} edge ({value:g}, its range ends at {end:g})")
        elif share <= NEAR_END or share >= 1 - NEAR_END:
            side, end = ("low", low) if share <= NEAR_END else ("high", high)
            found.append(f"{path} at the {side} edge ({value:g}, its range ends at {end:g})")
    return found


def search_ranges(search: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Range], dict[str, list[Any]]]:
    """What a search says (as JSON, path -> range): ranges of numbers; lists of choices, with an axis's edges."""
    ranges: dict[str, Range] = {}
    choices: dict[str, list[Any]] = {}
    for path, one in search.items():
        if "choice" in one:
            choices[path] = [_plain(value) for value in one["choice"]]
            continue
        form = next(form for form in ("uniform", "loguniform", "int") if form in one)
        low, high = one[form]
        ranges[path] = (float(low), float(high), form == "loguniform" or bool(one.get("log")))
    return ranges, choices


def axis_values(rows: Iterable[Mapping[str, Any]], paths: Iterable[str]) -> dict[str, list[Any]]:
    """path -> the values that occur there in `rows` (settings of a group's grid trials), each once, in their order."""
    rows = list(rows)
    return {path: list(dict.fromkeys(_plain(row[path]) for row in rows if path in row)) for path in paths}


def _plain(value: Any) -> Any:
    """A value that can be a dict key: lists and mappings as text (they have no edge anyway)."""
    return value if isinstance(value, (int, float, str, bool)) or value is None else repr(value)


def _finite(value: Any) -> float | None:
    """`value` as a number, or None where it is none (a bool is none) or is not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _rank(candidate: Candidate, rule: Tie) -> float:
    """Smaller is better; missing and non-finite come last."""
    number = _finite((candidate.figures if rule.figure else candidate.settings).get(rule.name))
    if number is None:
        return math.inf
    return -number if rule.largest else number


def barred_trials(events: Mapping[tuple[str, str], Iterable[SearchEvent]]) -> set[tuple[str, str, str]]:
    """(stage, group, key) of trials that their search ended early, or that are a part of a population's member: they
    cannot win there, even where another job ran them in full."""
    return {
        (*place, event.key)
        for place, told in events.items()
        for event in told
        if event.kind == "stopped" or event.body.get("passing")
    }
