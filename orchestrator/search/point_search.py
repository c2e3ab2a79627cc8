"""The only place that decides what a search tries next and which trial ends early, with Ray Tune's searchers and
schedulers as libraries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from orchestrator.records.rows import SearchEvent
from orchestrator.search.early_stopping import _rule
from orchestrator.search.sampler import Sampler, _unrounded
from orchestrator.spec.search_space import (
    Point,
    sample,
)
from orchestrator.spec.sweep import Search

TRIES = 20
"""Times that the sampler is asked for a point that was not tried yet; after that points are drawn evenly."""

DRAWS = 500
"""Points that are drawn evenly before the space is called exhausted."""

KeyOf = Callable[[Mapping[str, Any]], str | None]
"""What a search's event says of a point -> key of its trial; None where the fields' values do not go together."""


class SearchAlgorithm(Protocol):
    """A group's search as its driver sees it. Made again from its events, it goes on as it would have."""

    def replay(self, events: Iterable[SearchEvent]) -> list[str]:
        """Takes over what was recorded; lines on what could not be repeated exactly."""

    def can_suggest(self) -> bool:
        """Whether there is a point to ask for now."""

    def finished(self) -> bool:
        """Whether no point will be asked for any more."""

    def suggest(self) -> SearchEvent:
        """The next point: `asked`; or `exhausted`."""

    def on_report(self, key: str, epoch: int, value: float | None, ended: bool = False) -> SearchEvent | None:
        """A trial's report: `continued` or `stopped`; None: nothing depends on it. `ended`: its result is known."""

    def on_result(self, key: str, value: float | None) -> SearchEvent | None:
        """A trial's result (None: diverged): `told`; None when it is known already."""


class PointSearch:
    """A search whose every point is a trial of its own."""

    def __init__(self, search: Search, metric: str, mode: str, epochs: int, key_of: KeyOf) -> None:
        """`epochs`: rounds of a trial in full. `metric`, `mode`: what is searched for, "max" or "min" of it."""
        self._search, self._metric, self._mode, self._epochs, self._key_of = search, metric, mode, epochs, key_of
        self._begin([])

    def _begin(self, first: list[Point]) -> None:
        self._sampler = Sampler(self._search, self._metric, self._mode, first or self._search.first)
        self._rule = _rule(self._search, self._metric, self._mode, self._epochs)
        self._number = 0
        self._suggested: dict[str, str] = {}
        """Key -> the sampler's name of the point."""
        self._open: set[str] = set()
        self._heard: dict[str, int] = {}
        self._exhausted = False

    def replay(self, events: Iterable[SearchEvent]) -> list[str]:
        recorded = list(events)
        if self._follow(recorded):
            return []
        # Another version of the sampler draws other points: the history stands, what follows from it may differ.
        asked = [dict(event.body["point"]) for event in recorded if event.kind == "asked"]
        self._begin([_unrounded(self._search.search, point) for point in asked])
        self._follow(recorded, as_recorded=True)
        return ["its points are not those that this version of optuna draws: it goes on from their results"]

    def _follow(self, recorded: list[SearchEvent], as_recorded: bool = False) -> bool:
        """Lives through the events; False as soon as a point comes out otherwise than it did."""
        for event in recorded:
            if event.kind == "exhausted" and as_recorded:
                self._exhausted, self._number = True, self._number + 1
            elif event.kind in ("asked", "exhausted"):
                again = self.suggest(event if as_recorded else None)
                if (again.kind, again.key) != (event.kind, event.key):
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
        """`recorded`: takes this one, whatever the sampler says."""
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
        if key not in self._open or epoch <= self._heard.get(key, 0) or not self._rule.listens(epoch):
            return None
        if value is None or not math.isfinite(value):
            return None
        self._heard[key] = epoch
        self._sampler.report(self._suggested[key], epoch, value)
        said = self._rule.stops(key, epoch, value)
        stop = (recorded == "stopped") if recorded is not None else said and not ended
        if said and not stop:
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
