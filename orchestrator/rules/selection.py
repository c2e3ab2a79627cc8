"""Decides which trial of a group wins, how ties are broken, and whether the winner lies on an edge of the grid."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.records.rows import Edge, SearchEvent


@dataclass(frozen=True)
class Candidate:
    """A trial of a group that ended with a result. A diverged trial has no figures."""

    key: str
    figures: Mapping[str, float]
    settings: Mapping[str, Any]
    """Dotted path -> value."""
    seed: int = 0


SEED = "seed"
"""The path of a trial's seed, which no choice is made by."""


@dataclass(frozen=True)
class Setting(Candidate):
    """A setting with all its seeds: `key` is that of the first one's trial, `figures` are means, and `settings` are
    without the seed. A figure that one of the trials lacks, as all do that diverged, has no mean."""

    replicates: Sequence[Candidate] = ()
    """Its trials, by seed."""

    def of_each(self, figure: str) -> list[float | None]:
        """The figure of each replicate."""
        return [each.figures.get(figure) for each in self.replicates]


def by_setting(replicates: Iterable[Candidate]) -> list[Setting]:
    """The settings of a stage with replicates, in the order in which they first appear."""
    members: dict[str, list[Candidate]] = {}
    for each in replicates:
        members.setdefault(setting_id(each.settings), []).append(each)
    return [mean_of(each) for each in members.values()]


def compared(trials: Iterable[tuple[str, Candidate]], replicated: Collection[str]) -> list[Candidate]:
    """What a choice is made among: each trial by itself or, of stages with replicates, each setting.

    `trials`: (stage, trial); one that several stages have counts in the first. `replicated`: stages with replicates.
    """
    once: dict[str, tuple[str, Candidate]] = {}
    for stage, trial in trials:
        once.setdefault(trial.key, (stage, trial))
    found: list[Candidate] = [trial for stage, trial in once.values() if stage not in replicated]
    for name in replicated:
        found += by_setting(trial for stage, trial in once.values() if stage == name)
    return found


def setting_id(settings: Mapping[str, Any]) -> str:
    """What the replicates of a setting have in common: all of its fields but the seed."""
    return json.dumps(_without_seed(settings), sort_keys=True, default=repr)


def mean_of(replicates: Iterable[Candidate]) -> Setting:
    """One setting from the trials that differ by their seed alone."""
    by_seed = sorted(replicates, key=lambda each: (each.seed, each.key))
    names = dict.fromkeys(name for each in by_seed for name in each.figures)
    figures = {name: [_finite(each.figures.get(name)) for each in by_seed] for name in names}
    means = {
        name: statistics.fmean(finite)
        for name, values in figures.items()
        if len(finite := [value for value in values if value is not None]) == len(values)
    }
    return Setting(by_seed[0].key, means, _without_seed(by_seed[0].settings), by_seed[0].seed, by_seed)


def trials_of(candidate: Candidate) -> Sequence[Candidate]:
    """The trials of a setting, by seed; or the one trial that a candidate is."""
    return candidate.replicates if isinstance(candidate, Setting) else [candidate]


def _without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in settings.items() if path != SEED}


def seeds_of(winner: Candidate, metric: str) -> dict[str, Any]:
    """What a decision records of the seeds of its winner: nothing for a single one."""
    if not isinstance(winner, Setting) or len(winner.replicates) < 2:
        return {}
    return {"seeds": [each.seed for each in winner.replicates], "values": winner.of_each(metric)}


@dataclass(frozen=True)
class Tie:
    """How candidates with an equal metric are ordered; written `figure:NAME:min|max` or `path:min|max`."""

    name: str
    figure: bool
    """True if `name` is a figure, False if it is a field of the settings."""
    largest: bool
    """True if the largest value comes first."""


def read_tie(text: str) -> Tie:
    """Parses a tie rule. Raises ValueError if it is neither `figure:NAME:min|max` nor `path:min|max`."""
    match text.split(":"):
        case ["figure", name, ("min" | "max") as order] if name:
            return Tie(name, True, order == "max")
        case [name, ("min" | "max") as order] if name and name != "figure":
            return Tie(name, False, order == "max")
    raise ValueError(f"tie {text!r} is neither figure:NAME:min|max nor path:min|max")


def best(candidates: Iterable[Candidate], metric: str, mode: str, ties: Sequence[str] = ()) -> Candidate | None:
    """The candidate with the best `metric` (`mode`: max or min); equal ones are ordered by `ties`, then by key.

    A missing or non-finite number counts as the worst, in the metric and in every tie. Returns None if no candidate
    has a finite metric: a group in which all trials diverged has no winner.
    """
    if mode not in ("max", "min"):
        raise ValueError(f"mode {mode!r} is neither max nor min")
    rules = [Tie(metric, True, mode == "max"), *(read_tie(text) for text in ties)]
    ranked = [
        ([_rank(c, rule) for rule in rules], c.key, c) for c in candidates if _finite(c.figures.get(metric)) is not None
    ]
    return min(ranked, key=lambda entry: entry[:2])[2] if ranked else None


Range = tuple[float, float, bool]
"""Low, high, and whether the range is even in the logarithm."""

NEAR_END = 0.05
"""A value within this share of a range from an end counts as at the end: a search hardly ever tries the end itself."""


def edges(
    settings: Mapping[str, Any], axes: Mapping[str, Iterable[Any]], ranges: Mapping[str, Range] | None = None
) -> list[Edge]:
    """The ends of axes and ranges that a winner's settings lie at or beyond: those of axes first, each in its order.

    `axes`: path -> the values on that axis of the group's grid (see `axis_values`). An axis with one value, or with
    values that are not numbers, has no ends; nor has a seed. `ranges`: path -> the range of a search (see
    `search_ranges`, whose lists of choices have no order and no ends).
    """
    of_axes = (_axis_edge(path, settings.get(path), values) for path, values in axes.items() if path != SEED)
    of_ranges = (
        _range_edge(path, settings.get(path), limits) for path, limits in (ranges or {}).items() if path != SEED
    )
    return [edge for edge in (*of_axes, *of_ranges) if edge is not None]


def _axis_edge(path: str, setting: Any, values: Iterable[Any]) -> Edge | None:
    numbers = [_finite(value) for value in values]
    known = [number for number in numbers if number is not None]
    value = _finite(setting)
    if value is None or len(known) < len(numbers) or len(set(known)) < 2:
        return None
    low, high = min(known), max(known)
    if value <= low:
        return Edge(path, "low", value < low, value, low)
    if value >= high:
        return Edge(path, "high", value > high, value, high)
    return None


def _range_edge(path: str, setting: Any, limits: Range) -> Edge | None:
    low, high, log = limits
    value = _finite(setting)
    if value is None or (log and value <= 0):
        return None
    share = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
    if share <= NEAR_END:
        return Edge(path, "low", share < 0, value, low)
    if share >= 1 - NEAR_END:
        return Edge(path, "high", share > 1, value, high)
    return None


def search_ranges(search: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Range], dict[str, list[Any]]]:
    """Splits a search (recorded JSON, path -> range) into its ranges of numbers and its lists of choices."""
    ranges: dict[str, Range] = {}
    choices: dict[str, list[Any]] = {}
    for path, recorded in search.items():
        if "choice" in recorded:
            choices[path] = [_plain(value) for value in recorded["choice"]]
            continue
        form = next(form for form in ("uniform", "loguniform", "int") if form in recorded)
        low, high = recorded[form]
        ranges[path] = (float(low), float(high), form == "loguniform" or bool(recorded.get("log")))
    return ranges, choices


def axis_values(rows: Iterable[Mapping[str, Any]], paths: Iterable[str]) -> dict[str, list[Any]]:
    """path -> its distinct values in `rows` (settings of a group's grid trials), in order of appearance."""
    rows = list(rows)
    return {path: list(dict.fromkeys(_plain(row[path]) for row in rows if path in row)) for path in paths}


def _plain(value: Any) -> Any:
    """A hashable value: lists and mappings become text (they have no edge anyway)."""
    return value if isinstance(value, (int, float, str, bool)) or value is None else repr(value)


def _finite(value: Any) -> float | None:
    """`value` as a float; None if it is not a number (a bool is not one) or not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _rank(candidate: Candidate, rule: Tie) -> float:
    """A sort key: smaller is better, missing and non-finite values come last."""
    number = _finite((candidate.figures if rule.figure else candidate.settings).get(rule.name))
    if number is None:
        return math.inf
    return -number if rule.largest else number


def barred_trials(events: Mapping[tuple[str, str], Iterable[SearchEvent]]) -> set[tuple[str, str, str]]:
    """(stage, group, key) of trials that cannot win there, even if another job ran them in full.

    Those are trials that the group's search ended early, and trials that are a part of a population's member.
    `events`: of searches, by (stage, group).
    """
    return {
        (*group, event.key)
        for group, recorded in events.items()
        for event in recorded
        if event.kind == "stopped" or event.body.get("passing")
    }
