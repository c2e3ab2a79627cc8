"""The only place that stands for searches when a job is costed: their history, then the middle of their ranges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.plan.planner import GroupId, Planner
from orchestrator.records.rows import SearchEvent
from orchestrator.spec.job import JobSpec
from orchestrator.spec.search_space import value_at
from orchestrator.spec.sweep import Search

History = Mapping[GroupId, Sequence[SearchEvent]]
"""The recorded events of a job's searches, as `store.search_log.events` returns them."""


class Forecast:
    """Stands for the searches of a job: what they asked for, and for what is to come the middle of their ranges."""

    def __init__(self, job: JobSpec, planner: Planner, history: History) -> None:
        self._sweeps = {stage.name: stage.sweep for stage in job.stages if isinstance(stage.sweep, Search)}
        self._planner, self._history = planner, history
        self._out: dict[GroupId, set[str]] = {}
        self._asked: dict[GroupId, int] = {}
        self._keys: dict[GroupId, list[str]] = defaultdict(list)
        self.forecast = 0
        """Points that no search has asked for yet."""

    def follow(self) -> None:
        """Repeats what was recorded of every search that can have begun."""
        for place in self._planner.searching() if self._sweeps else ():
            if place in self._out:
                continue
            self._out[place], self._asked[place] = set(), 0
            for event in self._history.get(place, ()):
                if event.kind == "asked":
                    self._propose(place, event.body)
                elif event.kind == "stopped":
                    self._planner.bar(place, event.key)
                    self._out[place].discard(event.key)
                elif event.kind == "exhausted":
                    self._planner.close(place)

    def suggest(self) -> None:
        """As many points as each search may have out."""
        self.follow()
        for place in self._planner.searching() if self._sweeps else ():
            search, trials = self._sweeps[place[0]], self._planner.expected(place)
            while self._asked[place] < trials and len(self._out[place]) < search.at_once:
                self.forecast += 1
                self._propose(place, self._stand_in(place, search))
            if self._asked[place] >= trials:
                self._planner.close(place)

    def _stand_in(self, place: GroupId, search: Search) -> dict[str, Any]:
        """A trial of its own that costs what the middle of the ranges does."""
        middle, number = self._planner.middle(place), self._asked[place]
        point = {path: value_at(one, 0.5) for path, one in search.search.items()}
        point["seed"] = middle.seed + 1_000_000 + number
        if search.population is None:
            return {"point": point}
        part, size = search.population.every_epochs, search.population.size
        generation = number // size
        parent = self._keys[place][number - size] if generation else None
        return {"point": point, "span": [generation * part, (generation + 1) * part], "parent": parent}

    def ended(self, key: str) -> None:
        for out in self._out.values():
            out.discard(key)

    def _propose(self, place: GroupId, body: Mapping[str, Any]) -> None:
        self._planner.propose(place, body)
        key = self._planner.key_at(place, body)
        self._asked[place] += 1
        self._keys[place].append(str(key))
        self._out[place].add(str(key))
