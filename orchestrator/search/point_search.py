"""A search whose every point is a trial: suggests points, and decides which trials stop early."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from orchestrator.records.rows import SearchEvent
from orchestrator.search.early_stopping import stopping_rule
from orchestrator.search.sampler import Sampler, within_ranges
from orchestrator.spec.search_space import Point, sample
from orchestrator.spec.sweep import Search

TRIES = 20
"""How often the sampler is asked for a point that was not tried yet; after that, points are drawn evenly."""

DRAWS = 500
"""Points that are drawn evenly before the space counts as exhausted."""

KeyOf = Callable[[Mapping[str, Any]], str | None]
"""Body of an `asked` event -> key of its trial; None if the values of its point do not go together."""


class SearchAlgorithm(Protocol):
    """The search of one group. Restored from its events, it continues as if it had never been interrupted."""

    def replay(self, events: Iterable[SearchEvent]) -> list[str]:
        """Restores the search from its recorded events; returns a line on what could not be repeated exactly."""

    def can_suggest(self) -> bool:
        """True if another point can be suggested now."""

    def finished(self) -> bool:
        """True if no further point will be suggested."""

    def suggest(self) -> SearchEvent:
        """The next point, as an event `asked`; or `exhausted`."""

    def on_report(self, key: str, epoch: int, value: float | None, ended: bool = False) -> SearchEvent | None:
        """Judges a trial's report: `continued` or `stopped`; None if nothing depends on it.

        `ended`: the trial has a result, so it cannot be stopped.
        """

    def on_result(self, key: str, value: float | None) -> SearchEvent | None:
        """Takes a trial's result (None: it diverged): `told`; None if it is known already."""


class PointSearch:
    """A search whose every point is a trial of its own."""

    def __init__(self, search: Search, metric: str, mode: str, epochs: int, key_of: KeyOf) -> None:
        """`epochs`: rounds of a trial in full. `mode`: "max" or "min" of `metric`."""
        self._search, self._metric, self._mode, self._epochs, self._key_of = search, metric, mode, epochs, key_of
        self._begin([])

    def _begin(self, first: list[Point]) -> None:
        self._sampler = Sampler(self._search, self._metric, self._mode, first or self._search.first)
        self._rule = stopping_rule(self._search, self._metric, self._mode, self._epochs)
        self._number = 0
        """Number of the next event."""
        self._suggested: dict[str, str] = {}
        """Key -> name of the point in the sampler."""
        self._open: set[str] = set()
        """Keys of suggested trials that have no result and were not stopped."""
        self._last_epoch: dict[str, int] = {}
        """Key -> epoch of the last report that was judged."""
        self._exhausted = False

    def replay(self, events: Iterable[SearchEvent]) -> list[str]:
        recorded = list(events)
        if self._repeat(recorded):
            return []
        # Another version of the sampler draws other points: the recorded ones count, later ones may differ.
        points = [dict(event.body["point"]) for event in recorded if event.kind == "asked"]
        self._begin([within_ranges(self._search.search, point) for point in points])
        self._repeat(recorded, as_recorded=True)
        return ["this version of optuna would have drawn other points; the search continues from the recorded results"]

    def _repeat(self, recorded: list[SearchEvent], as_recorded: bool = False) -> bool:
        """Repeats the events; False as soon as a point differs from the recorded one.

        `as_recorded`: takes the recorded points in any case.
        """
        for event in recorded:
            if event.kind == "exhausted" and as_recorded:
                self._exhausted, self._number = True, self._number + 1
            elif event.kind in ("asked", "exhausted"):
                repeated = self.suggest(event if as_recorded else None)
                if (repeated.kind, repeated.key) != (event.kind, event.key):
                    return False
            elif event.kind == "told":
                self.on_result(event.key, event.body["value"])
            else:
                self.on_report(event.key, event.body["epoch"], event.body["value"], recorded=event.kind)
        return True

    def can_suggest(self) -> bool:
        return not self.finished() and len(self._open) < self._search.at_once

    def finished(self) -> bool:
        return self._exhausted or len(self._suggested) >= self._search.trials

    def suggest(self, recorded: SearchEvent | None = None) -> SearchEvent:
        """`recorded`: takes the trial of this event for whatever the sampler draws."""
        for attempt in range(TRIES + DRAWS):
            name = f"{len(self._suggested)}-{attempt}"
            if attempt < TRIES:
                point = self._sampler.suggest(name)
            else:
                point = sample(self._search.search, f"{self._search.seed} {name}")
                self._sampler.add(name, point)
            key = self._key_of({"point": point}) if recorded is None else recorded.key
            if key is not None and key not in self._suggested:
                self._suggested[key] = name
                self._open.add(key)
                self._rule.begin(key, len(self._suggested))
                return self._event("asked", key, {"point": point})
            self._sampler.drop(name)
        self._exhausted = True
        tried = len(self._suggested)
        reason = f"exhausted after {tried} points: {DRAWS} more draws gave none that is new and allowed"
        return self._event("exhausted", "", {"reason": reason})

    def on_report(
        self, key: str, epoch: int, value: float | None, ended: bool = False, recorded: str | None = None
    ) -> SearchEvent | None:
        """`recorded`: the recorded decision, which stands whatever the rule says now."""
        if key not in self._open or epoch <= self._last_epoch.get(key, 0) or not self._rule.listens(epoch):
            return None
        if value is None or not math.isfinite(value):
            return None
        self._last_epoch[key] = epoch
        self._sampler.report(self._suggested[key], epoch, value)
        rule_stops = self._rule.stops(key, epoch, value)
        stop = (recorded == "stopped") if recorded is not None else rule_stops and not ended
        if rule_stops and not stop:
            self._rule.spare(key)
        if stop:
            self._open.discard(key)
            self._sampler.end(self._suggested[key], None)
        return self._event("stopped" if stop else "continued", key, {"epoch": epoch, "value": value})

    def on_result(self, key: str, value: float | None) -> SearchEvent | None:
        if key not in self._open:
            return None
        self._open.discard(key)
        if value is not None and not math.isfinite(value):
            value = None
        self._sampler.end(self._suggested[key], value)
        if value is not None:
            self._rule.end(key, self._epochs, value)
        return self._event("told", key, {"value": value})

    def _event(self, kind: Any, key: str, body: dict[str, Any]) -> SearchEvent:
        self._number += 1
        return SearchEvent(self._number - 1, kind, key, body)
