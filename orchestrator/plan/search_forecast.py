"""Stands in for searches when a cost is estimated: recorded points first, then the middle of their ranges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.plan.planner import Planner
from orchestrator.plan.trials import GroupId
from orchestrator.records.rows import SearchEvent
from orchestrator.spec.job import JobSpec
from orchestrator.spec.search_space import middle
from orchestrator.spec.seeds import given_count
from orchestrator.spec.sweep import Search

History = Mapping[GroupId, Sequence[SearchEvent]]
"""The recorded events of a job's searches, as `store.search_log.events` returns them."""


class SearchForecast:
    """Proposes the trials of a job's searches to its planner."""

    def __init__(self, job: JobSpec, planner: Planner, history: History) -> None:
        self._sweeps = {stage.name: stage.sweep for stage in job.stages if isinstance(stage.sweep, Search)}
        self._open, self._history = planner.searches, history
        self._replicates = {stage.name: given_count(stage) or 1 for stage in job.stages}
        self._in_flight: dict[GroupId, set[str]] = {}
        self._keys: dict[GroupId, list[str]] = defaultdict(list)
        """Of each point, its trial with the first seed."""
        self.points = 0
        """Points that no search has asked for yet."""

    def replay(self) -> None:
        """Repeats the recorded events of every search that can begin now."""
        for group in self._open.groups() if self._sweeps else ():
            if group in self._in_flight:
                continue
            self._in_flight[group] = set()
            for event in self._history.get(group, ()):
                if event.kind == "asked":
                    self._propose(group, event.body)
                elif event.kind == "stopped":
                    self._open.stop_early(group, event.key)
                    self._in_flight[group].discard(event.key)
                elif event.kind == "exhausted":
                    self._open.close(group)

    def suggest(self) -> None:
        """Proposes as many points as each search may run at once."""
        self.replay()
        for group in self._open.groups() if self._sweeps else ():
            search, keys, seeds = self._sweeps[group[0]], self._keys[group], self._replicates[group[0]]
            trials = self._open.expected(group) // seeds
            while len(keys) < trials and len(self._in_flight[group]) + seeds <= search.at_once * seeds:
                self.points += 1
                self._propose(group, self._made_up(group, search))
            if len(keys) >= trials:
                self._open.close(group)

    def on_end(self, key: str) -> None:
        """A trial has ended."""
        for keys in self._in_flight.values():
            keys.discard(key)

    def _made_up(self, group: GroupId, search: Search) -> dict[str, Any]:
        """The event for a point in the middle of the ranges, with seeds of its own so that no two trials are equal."""
        number = len(self._keys[group])
        point = middle(search.search)
        point["seed"] = self._open.middle(group).seed + 1_000_000 + number * self._replicates[group[0]]
        if search.population is None:
            return {"point": point}
        part, size = search.population.every_epochs, search.population.size
        generation = number // size
        parent = self._keys[group][number - size] if generation else None
        return {"point": point, "span": [generation * part, (generation + 1) * part], "parent": parent}

    def _propose(self, group: GroupId, body: Mapping[str, Any]) -> None:
        self._open.propose(group, body)
        keys = self._open.keys_at(group, body)
        self._keys[group].append(keys[0])
        self._in_flight[group].update(keys)
