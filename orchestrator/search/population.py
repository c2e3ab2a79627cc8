"""Population-based training (Jaderberg et al. 2017, arXiv 1711.09846): members train in generations, copy better ones
and change their settings."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.records.rows import SearchEvent
from orchestrator.search.point_search import KeyOf
from orchestrator.search.sampler import Sampler
from orchestrator.spec.search_space import Choice, Point, Population, Range, rounded, value_at
from orchestrator.spec.sweep import Search

TRIES = 100
"""Draws of changed settings before a member continues with the settings that it copied."""


@dataclass
class _Member:
    """One member in one generation."""

    key: str
    point: Point
    value: float | None = None
    """None until it has ended, and if it diverged."""
    ended: bool = False


class PopulationSearch:
    """A population in synchronous generations.

    A generation starts when every member of the previous one has ended, so no decision depends on which is faster. A
    member's generation is a trial of its own: a span of the schedule that resumes from the trial before it, its own or
    that of the member that it copies.
    """

    def __init__(self, search: Search, metric: str, mode: str, epochs: int, key_of: KeyOf) -> None:
        """`epochs`: of a member in full. `mode`: "max" or "min" of `metric`."""
        assert search.population is not None
        self._search, self._rule, self._mode, self._key_of = search, search.population, mode, key_of
        self._epochs = epochs
        self._generations = epochs // self._rule.every_epochs
        self._sampler = Sampler(search, metric, mode, search.first)
        self._done: list[list[_Member]] = []
        """Earlier generations."""
        self._now: list[_Member] = []
        """The present generation, as far as it is suggested."""
        self._number, self._extinct = 0, False

    def replay(self, events: Iterable[SearchEvent]) -> list[str]:
        """Recorded settings always stand: only the first generation comes from a sampler, and each later decision is
        drawn from a seed of its own."""
        lines: list[str] = []
        for event in events:
            if event.kind == "told":
                self.on_result(event.key, event.body["value"])
                continue
            repeated = self.suggest()
            if repeated.kind == event.kind == "asked" and repeated.body != event.body:
                lines = ["this version would have drawn other settings; the search continues from the recorded ones"]
                self._now[-1] = _Member(event.key, dict(event.body["point"]))
        return lines

    def can_suggest(self) -> bool:
        if self.finished():
            return False
        if len(self._now) == self._rule.size and all(member.ended for member in self._now):
            return True  # the next generation
        running = sum(not member.ended for member in self._now)
        return len(self._now) < self._rule.size and running < self._search.at_once

    def finished(self) -> bool:
        last = len(self._done) == self._generations - 1 and len(self._now) == self._rule.size
        return last or self._extinct

    def suggest(self) -> SearchEvent:
        if len(self._now) == self._rule.size:
            self._done.append(self._now)
            self._now = []
        generation, number = len(self._done), len(self._now)
        part = self._rule.every_epochs
        body: dict[str, Any] = {"span": [generation * part, (generation + 1) * part], "member": number}
        if (generation + 1) * part < self._epochs:
            body["passing"] = True  # it ends before its schedule does: a result, but no candidate
        if not self._done:
            chosen = self._first({**body, "parent": None, "how": "new"})
        elif not any(member.value is not None for member in self._done[-1]):
            self._extinct = True
            return self._event("exhausted", "", {"reason": f"all members diverged in generation {generation}"})
        else:
            chosen = self._next(number, body)
        if chosen is None:
            self._extinct = True
            return self._event("exhausted", "", {"reason": "no point of the ranges is allowed"})
        key, body = chosen
        self._now.append(_Member(key, body["point"]))
        return self._event("asked", key, body)

    def on_report(self, key: str, epoch: int, value: float | None, ended: bool = False) -> None:
        """Does nothing: members are compared only at the end of a generation."""

    def on_result(self, key: str, value: float | None) -> SearchEvent | None:
        running = [member for member in self._now if member.key == key and not member.ended]
        for member in running:
            member.value, member.ended = value, True
        return self._event("told", key, {"value": value}) if running else None

    def _first(self, body: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """Key and event body of a member of the first generation; None if no point is new and allowed."""
        taken = {member.key for member in self._now}
        for attempt in range(TRIES):
            drawn = {**body, "point": self._sampler.suggest(f"{len(self._now)}-{attempt}")}
            key = self._key_of(drawn)
            if key is not None and key not in taken:
                return key, drawn
        return None

    def _next(self, number: int, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Key and event body of a member that continues, or copies a better one and changes its settings."""
        before = self._done[-1]
        dice = random.Random(f"{self._search.seed} {len(self._done)} {number}")
        ranked = sorted(range(len(before)), key=lambda n: (_rank(before[n].value, self._mode), n))
        quantile = max(1, int(self._rule.size * self._rule.quantile))
        best = [n for n in ranked[:quantile] if before[n].value is not None]
        if number not in ranked[-quantile:] and before[number].value is not None:
            same = {**body, "parent": before[number].key, "point": dict(before[number].point), "how": "goes on"}
            return str(self._key_of(same)), same
        source = dice.choice(best)
        copy = {**body, "parent": before[source].key, "how": f"copies {source}"}
        taken = {member.key for member in self._now}
        for _ in range(TRIES):
            point = {
                path: changed(values, before[source].point[path], self._rule, dice)
                for path, values in self._search.search.items()
            }
            key = self._key_of({**copy, "point": point})
            if key is not None and key not in taken and point != before[source].point:  # the source continues itself
                return key, {**copy, "point": point}
        copy["point"] = dict(before[source].point)
        return str(self._key_of(copy)), copy

    def _event(self, kind: Any, key: str, body: Mapping[str, Any]) -> SearchEvent:
        self._number += 1
        return SearchEvent(self._number - 1, kind, key, body)


def changed(values: Range, value: Any, rule: Population, dice: random.Random) -> Any:
    """A setting after exploration.

    With the rule's probability it is drawn anew; else multiplied by one of the rule's factors and kept inside its
    range, or, for a choice, moved to a neighbour in its list.
    """
    if dice.random() < rule.resample:
        return value_at(values, dice.random())
    if isinstance(values, Choice):
        position = values.choice.index(value) + dice.choice((-1, 1))
        return values.choice[min(max(position, 0), len(values.choice) - 1)]
    return rounded(values, value * dice.choice(rule.factors))


def _rank(value: float | None, mode: str) -> float:
    """Smaller is better; a member that diverged comes last."""
    if value is None:
        return float("inf")
    return -value if mode == "max" else value
