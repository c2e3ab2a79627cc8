"""The only place that keeps a job's searches in step with its plan: places what they ask for, tells them results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.plan.planner import Planner
from orchestrator.plan.state import RESULTS, Decision
from orchestrator.plan.trials import GroupId, PlannedTrial
from orchestrator.records.rows import SearchEvent
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.search.point_search import PointSearch, SearchAlgorithm
from orchestrator.search.population import PopulationSearch
from orchestrator.spec.job import JobSpec
from orchestrator.spec.sweep import Search


@dataclass
class SearchStep:
    """What followed from a search: to be recorded together."""

    placed: list[PlannedTrial] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    events: list[tuple[GroupId, SearchEvent]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.placed or self.decisions or self.events)

    def add(self, said: tuple[list[PlannedTrial], list[Decision]]) -> None:
        self.placed += said[0]
        self.decisions += said[1]


class Searches:
    """One decider for every group that searches, made from its recorded events as soon as its group can begin.

    The driver records a `SearchStep` before it acts on it. What it had recorded of trials but not told to their search
    when it died is told by the next one, in the order in which the trials were asked for.
    """

    def __init__(
        self,
        job: JobSpec,
        planner: Planner,
        recorded: Callable[[], Mapping[GroupId, list[SearchEvent]]],
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._stages = {stage.name: stage.sweep for stage in job.stages if isinstance(stage.sweep, Search)}
        self._open, self._recorded, self._say = planner.searches, recorded, say
        self._deciders: dict[GroupId, SearchAlgorithm] = {}
        self._metrics: dict[GroupId, str] = {}
        self._places: dict[str, list[GroupId]] = defaultdict(list)
        self._reasons: dict[str, str] = {}
        self._history: dict[GroupId, list[SearchEvent]] | None = None

    def __bool__(self) -> bool:
        return bool(self._stages)

    def suggest(self) -> SearchStep:
        """Begins the searches that can, and asks for every point that is wanted now."""
        step, closed = SearchStep(), bool(self._stages)
        while closed:  # which may complete a group whose weights another search begins with
            closed = False
            for place in self._open.groups():
                self._suggest(place, step)
                if self._deciders[place].finished():
                    step.add(self._open.close(place))
                    closed = True
        return step

    def _suggest(self, place: GroupId, step: SearchStep) -> None:
        if place not in self._deciders:
            self._begin(place, step)
        decider = self._deciders[place]
        while decider.can_suggest():
            event = decider.suggest()
            step.events.append((place, event))
            if event.kind == "exhausted":
                self._say(f"{' '.join(place)}: {event.body['reason']}")
            else:
                self._placed(place, event, step)

    def on_report(self, key: str, epoch: int, values: Mapping[str, float], ended: bool) -> SearchStep:
        """Takes a recorded report. `ended`: the trial's result is there, so it is not stopped any more."""
        step = SearchStep()
        for place in self._places.get(key, ()):
            event = self._deciders[place].on_report(key, epoch, values.get(self._metrics[place]), ended)
            if event is not None:
                step.events.append((place, event))
                if event.kind == "stopped":
                    self._stop_early(place, event, step)
        return step

    def on_result(self, key: str, known: TrialSnapshot) -> SearchStep:
        """Takes a recorded result; anything else is none."""
        step = SearchStep()
        for place in self._places.get(key, ()) if known.state in RESULTS else ():
            value = known.figures.get(self._metrics[place]) if known.state is TrialState.done else None
            event = self._deciders[place].on_result(key, value)
            if event is not None:
                step.events.append((place, event))
        return step

    def listens(self, key: str) -> bool:
        """Whether reports of the trial may stop it."""
        return any(self._stages[stage].stopping != "none" for stage, _ in self._places.get(key, ()))

    def unwanted(self, key: str) -> bool:
        """Whether the trial was ended by all who wanted it."""
        return key in self._reasons and not self._open.wanted(key)

    def reason(self, key: str) -> str:
        return self._reasons[key]

    def left(self) -> dict[str, str]:
        """Trials that were ended while nobody ran them -> why."""
        return {key: self._reasons[key] for key in self._open.stopped_while_pending() if key in self._reasons}

    def _begin(self, place: GroupId, step: SearchStep) -> None:
        if self._history is None:
            self._history = dict(self._recorded())
        middle = self._open.middle(place)
        task = middle.task
        self._metrics[place] = task.metric
        search = self._stages[place[0]]
        kind: type[PointSearch | PopulationSearch] = PopulationSearch if search.population else PointSearch
        decider: SearchAlgorithm = kind(
            search, task.metric, task.mode, middle.rounds, lambda body: self._open.key_at(place, body)
        )
        self._deciders[place] = decider
        events = self._history.pop(place, [])
        for line in decider.replay(events):
            self._say(f"{' '.join(place)}: {line}")
        for event in events:
            if event.kind == "asked":
                self._placed(place, event, step)
            elif event.kind == "stopped":
                self._stop_early(place, event, step)

    def _placed(self, place: GroupId, event: SearchEvent, step: SearchStep) -> None:
        step.add(self._open.propose(place, event.body))
        if place not in self._places[event.key]:
            self._places[event.key].append(place)

    def _stop_early(self, place: GroupId, event: SearchEvent, step: SearchStep) -> None:
        step.add(self._open.stop_early(place, event.key))
        value = float(event.body["value"])
        self._reasons[event.key] = (
            f"stopped by the search {' '.join(place)} after epoch {event.body['epoch']}: {value:g}"
        )
