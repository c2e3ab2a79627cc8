"""Simulates how the trials of a job fill a cluster, to predict when the job ends and what it occupies."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping

from orchestrator.plan.durations import DurationModel, model_id
from orchestrator.plan.planner import Planner
from orchestrator.plan.resource_fit import FreeResources
from orchestrator.plan.search_forecast import History, SearchForecast
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.spec.job import JobSpec
from workers.trial import TrialSpec

Snapshots = Callable[[list[str]], Mapping[str, TrialSnapshot]]
"""Keys of trials -> what is recorded of them, unknown keys left out: `store.trials.snapshots`."""


class ModelSizes:
    """The number of parameters of trials' models: as recorded, else as computed, once for each model."""

    def __init__(self, durations: DurationModel, parameters: Callable[[TrialSpec], int | None] | None) -> None:
        self._durations = durations
        self._parameters = parameters
        self._computed: dict[str, int | None] = {}
        self.complete = True
        """False once a size was asked for that is neither recorded nor can be computed."""

    def of(self, planned: PlannedTrial) -> int:
        """Parameters of the trial's model; 0 if unknown."""
        count = self._durations.parameters(planned.spec)
        if count is None and self._parameters is not None:
            model = model_id(planned.spec)
            if model not in self._computed:
                self._computed[model] = self._parameters(planned.spec)
            count = self._computed[model]
        if count is None:
            self.complete = False
            return 0
        return count


class Simulation:
    """A job run by its planner against a simulated clock; without `room`, on a cluster without limits."""

    def __init__(
        self,
        job: JobSpec,
        snapshots: Snapshots,
        durations: DurationModel,
        room: FreeResources | None,
        sizes: ModelSizes,
        history: History,
    ) -> None:
        self.planner = Planner(job, durations)
        self._searches = SearchForecast(job, self.planner, history)
        self.done: set[str] = set()
        """Keys of this job's trials that have a result before the simulation starts."""
        self.remaining_part: dict[str, float] = {}
        """Key of a trial that has begun -> part of it that is still to run, 0 to 1."""
        self.ran: list[PlannedTrial] = []
        """The simulated trials, in the order in which they start."""
        self.seconds: dict[str, float] = {}
        """Key -> simulated duration."""
        self.end = 0.0
        """Seconds until the last trial ends."""
        self.peak = 0
        """Most parameters of trials that run at the same time."""
        self._apply_snapshots(snapshots)
        self.known_groups = {(planned.stage, planned.group) for planned in self.planner.placed}
        """Groups whose trials do not depend on simulated results."""
        self.known_groups -= set(self.planner.searches.groups())
        self._run(room, sizes)

    @property
    def forecast_points(self) -> int:
        """Trials of searches whose points are made up."""
        return self._searches.points

    def _apply_snapshots(self, snapshots: Snapshots) -> None:
        """Updates the planner with what is recorded, also of the trials that it places in consequence."""
        count = 0
        self._searches.replay()
        while count < len(self.planner.placed):
            new = {planned.key: planned.spec for planned in self.planner.placed[count:]}
            count = len(self.planner.placed)
            outside = set(self.planner.outside())
            for key, snapshot in snapshots(sorted({*new, *outside})).items():
                if snapshot.state in (TrialState.done, TrialState.diverged):
                    self.done |= {key} - outside
                    self.planner.update(key, snapshot)
                    self._searches.on_end(key)
                elif snapshot.state in (TrialState.running, TrialState.stopped) and snapshot.epochs:
                    self.remaining_part[key] = remaining_part(snapshot, new[key].first_round if key in new else 0)
            self._searches.replay()

    def _run(self, room: FreeResources | None, sizes: ModelSizes) -> None:
        parameters = 0
        running: dict[str, PlannedTrial] = {}
        ends: list[tuple[float, int, str]] = []
        while True:
            self._searches.suggest()
            while planned := self.planner.next(lambda trial: room is None or room.fits(trial.resources)):
                if room:
                    room.take(planned.key, planned.resources)
                seconds = planned.seconds * self.remaining_part.get(planned.key, 1.0)
                self.ran.append(planned)
                self.seconds[planned.key] = seconds
                running[planned.key] = planned
                parameters += sizes.of(planned)
                heapq.heappush(ends, (self.end + seconds, len(self.ran), planned.key))
            if not ends:
                return
            self.peak = max(self.peak, parameters)
            self.end, _, key = heapq.heappop(ends)
            ended = running.pop(key)
            parameters -= sizes.of(ended)
            self.planner.update(key, _forecast_result(ended))
            self._searches.on_end(key)
            if room:
                room.release(key)


def remaining_part(snapshot: TrialSnapshot, first_round: int) -> float:
    """The part of a trial's own rounds (from `first_round` on) that is still to run, 0 to 1."""
    return (snapshot.epochs - max(snapshot.epoch, first_round)) / (snapshot.epochs - first_round)


def _forecast_result(planned: PlannedTrial) -> TrialSnapshot:
    """A result worse than any recorded one; the first trial of a group has the best of them."""
    worst = 1e12 + planned.position
    figure = -worst if planned.spec.mode == "max" else worst
    return TrialSnapshot(TrialState.done, figures={planned.spec.metric: figure}, weights=("forecast", ""))
