"""The only place that decides what the members of a population do next: which goes on, which copies whom, and how its
settings change (population-based training, Jaderberg et al. 2017, arXiv 1711.09846)."""

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
"""Draws of a changed setting before a member goes on as it is."""


@dataclass
class _Member:
    """What a member did in a generation."""

    key: str
    point: Point
    value: float | None = None
    ended: bool = False


class PopulationSearch:
    """A population in synchronous generations: none begins before every member of the one before has ended, so what is
    decided does not depend on who is faster. A member's generation is a trial of its own, a span of the schedule that
    goes on from the trial before it, its own or that of the member it copies."""

    def __init__(self, search: Search, metric: str, mode: str, epochs: int, key_of: KeyOf) -> None:
        assert search.population is not None
        self._search, self._rule, self._mode, self._key_of = search, search.population, mode, key_of
        self._metric, self._epochs = metric, epochs
        self._generations = epochs // self._rule.every_epochs
        self._begin()

    def _begin(self) -> None:
        self._sampler = Sampler(self._search, self._metric, self._mode, self._search.first)
        self._done: list[list[_Member]] = []
        self._now: list[_Member] = []
        self._number, self._extinct = 0, False

    def replay(self, events: Iterable[SearchEvent]) -> list[str]:
        """What was recorded is taken over as it is: only the first generation comes from a sampler, and each further
        decision is drawn from a seed of its own."""
        lines: list[str] = []
        for event in events:
            if event.kind == "told":
                self.on_result(event.key, event.body["value"])
                continue
            again = self.suggest()
            if again.kind == event.kind == "asked" and again.body != event.body:
                lines = ["its settings are not those that this version draws: it goes on from those recorded"]
                self._now[-1] = _Member(event.key, dict(event.body["point"]))
        return lines

    def can_suggest(self) -> bool:
        if self.finished():
            return False
        if len(self._now) == self._rule.size and all(member.ended for member in self._now):
            return True  # the next generation
        out = sum(not member.ended for member in self._now)
        return len(self._now) < self._rule.size and out < self._search.at_once

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
            body |= {"parent": None, "how": "new"}
            found = self._first(body)
        elif not any(member.value is not None for member in self._done[-1]):
            self._extinct = True
            return self._event("exhausted", "", {"reason": f"all members diverged in generation {generation}"})
        else:
            found = self._next(number, body)
        if found is None:
            self._extinct = True
            return self._event("exhausted", "", {"reason": "no point of the ranges is allowed"})
        key, body = found
        self._now.append(_Member(key, body["point"]))
        return self._event("asked", key, body)

    def on_report(self, key: str, epoch: int, value: float | None, ended: bool = False) -> None:
        """Members are judged at the end of a generation only."""

    def on_result(self, key: str, value: float | None) -> SearchEvent | None:
        mine = [member for member in self._now if member.key == key and not member.ended]
        for member in mine:
            member.value, member.ended = value, True
        return self._event("told", key, {"value": value}) if mine else None

    def _first(self, body: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        taken = {member.key for member in self._now}
        for attempt in range(TRIES):
            said = {**body, "point": self._sampler.suggest(f"{len(self._now)}-{attempt}")}
            key = self._key_of(said)
            if key is not None and key not in taken:
                return key, said
        return None

    def _next(self, number: int, body: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """The member goes on, or copies a better one and changes its settings."""
        before = self._done[-1]
        dice = random.Random(f"{self._search.seed} {len(self._done)} {number}")
        ranked = sorted(range(len(before)), key=lambda n: (_rank(before[n].value, self._mode), n))
        many = max(1, int(self._rule.size * self._rule.quantile))
        best = [n for n in ranked[:many] if before[n].value is not None]
        if number not in ranked[-many:] and before[number].value is not None:
            said = {**body, "parent": before[number].key, "point": dict(before[number].point), "how": "goes on"}
            return str(self._key_of(said)), said
        chosen = dice.choice(best)
        said = {**body, "parent": before[chosen].key, "how": f"copies {chosen}"}
        taken = {member.key for member in self._now}
        for _ in range(TRIES):
            point = {
                path: changed(one, before[chosen].point[path], self._rule, dice)
                for path, one in self._search.search.items()
            }
            key = self._key_of({**said, "point": point})
            if key is not None and key not in taken and point != before[chosen].point:  # which goes on itself
                return key, {**said, "point": point}
        said["point"] = dict(before[chosen].point)
        return str(self._key_of(said)), said

    def _event(self, kind: Any, key: str, body: Mapping[str, Any]) -> SearchEvent:
        self._number += 1
        return SearchEvent(self._number - 1, kind, key, body)


def changed(one: Range, value: Any, rule: Population, dice: random.Random) -> Any:
    """A setting after exploring: drawn anew with the rule's probability, else multiplied by one of its factors, and
    kept inside its range; a choice moves to a neighbour in its list."""
    if dice.random() < rule.resample:
        return value_at(one, dice.random())
    if isinstance(one, Choice):
        place = one.choice.index(value) + dice.choice((-1, 1))
        return one.choice[min(max(place, 0), len(one.choice) - 1)]
    return rounded(one, value * dice.choice(rule.factors))


def _rank(value: float | None, mode: str) -> float:
    """Smaller is better; a member that diverged comes last."""
    if value is None:
        return float("inf")
    return -value if mode == "max" else value
