"""What the tracking server should show of a group's own run: its best value so far, and the settings that gave it."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.records.rows import PlacedRow
from orchestrator.records.states import TrialState
from orchestrator.tracking.names import metric_of


@dataclass(frozen=True)
class Best:
    """The best setting of a group so far: the mean over its seeds, all of which have ended."""

    rows: tuple[PlacedRow, ...]
    """Its trials."""
    value: float
    """As recorded."""
    done: int
    """Trials of the group that are done by now."""
    at: float
    """When the last of them ended, seconds since 1970."""
    settings: int
    """Settings of the group."""

    @property
    def chosen(self) -> dict[str, Any]:
        """What the setting sets."""
        return {path: value for path, value in self.rows[0].settings.items() if path != "seed"}

    def figures(self, recorded: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """The mean of every figure over its seeds. `recorded`: key of a trial -> its figures."""
        each = [recorded.get(row.key, {}) for row in self.rows]
        return {name: math.fsum(f[name] for f in each) / len(each) for name in each[0] if all(name in f for f in each)}


def best(rows: Sequence[PlacedRow], taken: Collection[str]) -> Best | None:
    """The best setting of a group's trials so far; None while no setting has a finite value at each of its seeds. Once
    a later stage took one (`taken`: keys of its trials), that is it. Of a figure without a better direction, only a
    single setting."""
    settings = _by_setting(rows)
    known = [(value, members) for members in settings.values() if (value := _mean(members)) is not None]
    chosen = [pair for pair in known if any(row.key in taken for row in pair[1])]
    if not known or (_undirected(rows[0]) and len(settings) > 1):
        return None
    pick = max if rows[0].mode == "max" else min
    value, members = pick(chosen or known, key=lambda pair: pair[0])
    done = _done(rows)
    return Best(tuple(members), value, len(done), done[-1].ended or 0.0, len(settings))


def curve(rows: Sequence[PlacedRow]) -> list[tuple[int, float, float]]:
    """(number of trials done, best value so far as recorded, seconds since 1970) after each trial that ended with a
    result, in the order in which they ended; it only grows while more end. A setting counts once each of its seeds has
    a finite value, with their mean."""
    settings = _by_setting(rows)
    if _undirected(rows[0]) and len(settings) > 1:
        return []
    setting_of = {row.key: name for name, members in settings.items() for row in members}
    left = {name: len(members) for name, members in settings.items()}
    better = max if rows[0].mode == "max" else min
    points: list[tuple[int, float, float]] = []
    so_far: float | None = None
    for number, row in enumerate(_done(rows), 1):
        name = setting_of[row.key]
        left[name] -= 1
        value = _mean(settings[name]) if not left[name] else None
        if value is not None:
            so_far = value if so_far is None else better(so_far, value)
        if so_far is not None:
            points.append((number, so_far, row.ended or 0.0))
    return points


def _by_setting(rows: Sequence[PlacedRow]) -> dict[str, list[PlacedRow]]:
    settings: dict[str, list[PlacedRow]] = defaultdict(list)
    for row in rows:
        values = {path: value for path, value in row.settings.items() if path != "seed"}
        settings[json.dumps(values, sort_keys=True, default=str)].append(row)
    return settings


def _mean(members: Sequence[PlacedRow]) -> float | None:
    """The mean value of a setting's seeds; None unless all are done with a finite one."""
    values = [row.value for row in members if row.state is TrialState.done and row.value is not None]
    whole = len(values) == len(members) and all(map(math.isfinite, values))
    return math.fsum(values) / len(values) if whole else None


def _done(rows: Iterable[PlacedRow]) -> list[PlacedRow]:
    done = [row for row in rows if row.state is TrialState.done]
    return sorted(done, key=lambda row: (row.ended or 0.0, row.key))


def _undirected(row: PlacedRow) -> bool:
    metric = metric_of(row, row.metric)
    return metric is not None and metric.better == "neither"
