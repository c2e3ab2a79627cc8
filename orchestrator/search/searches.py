"""Keeps a job's searches in step with its plan: places the trials they suggest, passes them reports and results."""

from __future__ import annotations

import logging
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.plan.planner import Planner
from orchestrator.plan.state import RESULTS, Decision
from orchestrator.plan.trials import GroupId, PlannedTrial
from orchestrator.records.rows import SearchEvent
from orchestrator.records.states import TrialSnapshot
from orchestrator.search.point_search import PointSearch, SearchAlgorithm
from orchestrator.search.population import PopulationSearch
from orchestrator.spec.job import JobSpec
from orchestrator.spec.sweep import Search

log = logging.getLogger(__name__)


@dataclass
class SearchStep:
    """New trials, decisions and search events, which are recorded together."""

    placed: list[PlannedTrial] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    events: list[tuple[GroupId, SearchEvent]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.placed or self.decisions or self.events)

    def add(self, changes: tuple[list[PlannedTrial], list[Decision]]) -> None:
        """Appends the trials and decisions that a call of the planner returned."""
        self.placed += changes[0]
        self.decisions += changes[1]


class Searches:
    """The search algorithm of every group that searches, restored from its recorded events once its group can start.

    The driver records a `SearchStep` before it acts on it. If it dies before it has passed a recorded result to its
    search, the next driver does, in the order in which the trials were suggested.
    """

    def __init__(
        self, job: JobSpec, planner: Planner, recorded: Callable[[], Mapping[GroupId, list[SearchEvent]]]
    ) -> None:
        """`recorded`: reads the job's recorded search events, by group."""
        self._stages = {stage.name: stage.sweep for stage in job.stages if isinstance(stage.sweep, Search)}
        self._open, self._recorded = planner.searches, recorded
        self._algorithms: dict[GroupId, SearchAlgorithm] = {}
        self._metrics: dict[GroupId, str] = {}
        self._groups: dict[str, list[GroupId]] = defaultdict(list)
        """Key of a trial -> the groups whose searches suggested it."""
        self._replicates: dict[GroupId, dict[str, list[str]]] = defaultdict(dict)
        """Of a group whose points run with several seeds: key of each trial -> the keys of its point's, first seed
        first."""
        self._reasons: dict[str, str] = {}
        """Key of a trial that a search stopped -> why."""
        self._history: dict[GroupId, list[SearchEvent]] | None = None
        """Recorded events of groups whose algorithms are not restored yet; None until they are read."""

    def __bool__(self) -> bool:
        """True if the job has a search."""
        return bool(self._stages)

    def suggest(self) -> SearchStep:
        """Starts the searches that can start, and places every trial that they suggest now."""
        step, closed = SearchStep(), bool(self._stages)
        while closed:  # a closed search may complete a group from whose weights another search starts
            closed = False
            for group_id in self._open.groups():
                self._suggest(group_id, step)
                if self._algorithms[group_id].finished():
                    step.add(self._open.close(group_id))
                    closed = True
        return step

    def _suggest(self, group_id: GroupId, step: SearchStep) -> None:
        if group_id not in self._algorithms:
            self._restore(group_id, step)
        algorithm = self._algorithms[group_id]
        while algorithm.can_suggest():
            event = algorithm.suggest()
            step.events.append((group_id, event))
            if event.kind == "exhausted":
                log.info("%s: %s", " ".join(group_id), event.body["reason"])
            else:
                self._place(group_id, event, step)

    def on_report(self, key: str, epoch: int, values: Mapping[str, float], ended: bool) -> SearchStep:
        """Passes on a recorded report. `ended`: the trial has a result, so it cannot be stopped any more."""
        step = SearchStep()
        for group_id in self._groups.get(key, ()):
            value = values.get(self._metrics[group_id])
            event = self._algorithms[group_id].on_report(key, epoch, value, ended)
            if event is not None:
                step.events.append((group_id, event))
                if event.kind == "stopped":
                    self._stop_early(group_id, event, step)
        return step

    def on_result(self, key: str, snapshot: TrialSnapshot) -> SearchStep:
        """Passes on a recorded result; a snapshot without a result changes nothing.

        Of a point with replicates the mean over them, once all have a result; it diverged if one of them did.
        """
        step = SearchStep()
        for group_id in self._groups.get(key, ()) if snapshot.state in RESULTS else ():
            keys = self._replicates[group_id].get(key, [key])
            values = self._open.results_of(group_id, keys, {key: snapshot})
            if not values:
                continue
            finite = [value for value in values if value is not None and math.isfinite(value)]
            mean = statistics.fmean(finite) if len(finite) == len(values) else None
            event = self._algorithms[group_id].on_result(keys[0], mean)
            if event is not None:
                step.events.append((group_id, event))
        return step

    def listens(self, key: str) -> bool:
        """True if reports of the trial may stop it."""
        return any(self._stages[stage].stopping != "none" for stage, _ in self._groups.get(key, ()))

    def unwanted(self, key: str) -> bool:
        """True if every search that uses the trial has stopped it, and no stage wants it in full."""
        return key in self._reasons and not self._open.wanted(key)

    def reason(self, key: str) -> str:
        """Why a search stopped the trial."""
        return self._reasons[key]

    def stopped_while_pending(self) -> dict[str, str]:
        """Trials that searches stopped while no driver ran them, but that are still recorded as pending -> why."""
        return {key: self._reasons[key] for key in self._open.stopped_while_pending() if key in self._reasons}

    def _restore(self, group_id: GroupId, step: SearchStep) -> None:
        if self._history is None:
            self._history = dict(self._recorded())
        middle = self._open.middle(group_id)
        self._metrics[group_id] = middle.metric
        search = self._stages[group_id[0]]
        kind: type[PointSearch | PopulationSearch] = PopulationSearch if search.population else PointSearch
        algorithm: SearchAlgorithm = kind(
            search, middle.metric, middle.mode, middle.rounds, lambda body: self._open.key_at(group_id, body)
        )
        self._algorithms[group_id] = algorithm
        events = self._history.pop(group_id, [])
        for line in algorithm.replay(events):
            log.info("%s: %s", " ".join(group_id), line)
        for event in events:
            if event.kind == "asked":
                self._place(group_id, event, step)
            elif event.kind == "stopped":
                self._stop_early(group_id, event, step)

    def _place(self, group_id: GroupId, event: SearchEvent, step: SearchStep) -> None:
        keys = self._open.keys_at(group_id, event.body)
        step.add(self._open.propose(group_id, event.body))
        for key in keys:
            if group_id not in self._groups[key]:
                self._groups[key].append(group_id)
            if len(keys) > 1:
                self._replicates[group_id][key] = keys

    def _stop_early(self, group_id: GroupId, event: SearchEvent, step: SearchStep) -> None:
        step.add(self._open.stop_early(group_id, event.key))
        value = float(event.body["value"])
        self._reasons[event.key] = (
            f"stopped by the search {' '.join(group_id)} after epoch {event.body['epoch']}: {value:g}"
        )
