"""Decides which trials of a job may run now, in what order, and who won."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestrator.plan.durations import DurationModel
from orchestrator.plan.failures import incomplete_reason
from orchestrator.plan.groups import make_groups
from orchestrator.plan.open_searches import OpenSearches
from orchestrator.plan.placing import Changes, Placing
from orchestrator.plan.ready_queue import ReadyTrials
from orchestrator.plan.stage_graph import StageGraph
from orchestrator.plan.state import PENDING, RESULTS, PlanState, Progress
from orchestrator.plan.time_left import seconds_left
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.recorded_spec import initial_weights
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.spec.job import JobSpec
from workers.trial import TrialSpec


class Planner:
    """A job in memory. Given the snapshots of its trials, it says which may run, who won, and when the job is over.

    Placed trials, decisions and ready trials follow from the job and the snapshots alone, in whatever order they came.
    """

    def __init__(self, job: JobSpec, durations: DurationModel) -> None:
        """Raises SpecError or pydantic's ValidationError for a job that `spec.load` would have refused."""
        self.job = job
        self._state = PlanState(StageGraph(job))
        self._ready = ReadyTrials(self._state)
        self._placing = Placing(self._state, durations, self._ready)
        self.searches = OpenSearches(self._state, self._placing, self._ready)
        self._forecasts = make_groups(job, self._state, durations)
        for group in self._state.groups.values():
            self._placing.place_waiting(group)
        self.placed = self._placing.placed
        self.decisions = self._placing.decisions

    def update(self, key: str, snapshot: TrialSnapshot) -> Changes:
        """Records the snapshot of a trial. Returns what was placed and decided in consequence.

        The same snapshot again changes nothing. `pending` takes back a failure (a retry) and a trial that another
        driver ran, but not one that this planner has dispatched, which is what `give_back` is for. The snapshot of a
        trial of another job counts for the trials that start from its weights.
        """
        mark = self._placing.mark()
        trial = self._state.trials.get(key)
        if trial is None:
            self._state.outside[key] = snapshot
            self._ready.refresh(self._state.children.get(key, ()))
            return [], []
        if snapshot.state is TrialState.pending and trial.dispatched:
            return [], []
        before, trial.snapshot, trial.dispatched = trial.snapshot, snapshot, False
        self._ready.on_change(trial, before)
        change = (snapshot.state in RESULTS) - (before.state in RESULTS)
        for group in trial.groups:
            group.results += change if key not in group.stopped_early else 0
        if change:
            self._placing.settle(list(trial.groups))
        return self._placing.since(mark)

    def next(self, fits: Callable[[PlannedTrial], bool]) -> PlannedTrial | None:
        """Dispatches the ready trial with the longest remaining chain among those that fit.

        `fits` is called once for each kind of resources in the queue: its answer may depend on nothing else.
        """
        return self._ready.next(fits)

    def give_back(self, key: str) -> None:
        """Makes a trial ready again that was dispatched or adopted and did not end (released, or its node was lost)."""
        trial = self._state.trials[key]
        trial.dispatched = trial.weights_requested = False
        if trial.snapshot.state is TrialState.running:
            trial.snapshot = PENDING
        self._ready.refresh([key, *trial.planned.needs])

    def ready(self) -> int:
        """How many trials could start now if there were room."""
        return len(self._ready)

    def outside(self) -> list[str]:
        """Keys of trials of other jobs whose weights are needed, by trials that are not placed yet too: the engine must
        `update` them."""
        needed = {*self._state.children, *_named(self.job)}
        return sorted(key for key in needed if key not in self._state.trials)

    def finished(self) -> bool:
        """True if nothing runs and nothing can start: the job is done, or `incomplete` says why not."""
        return self._ready.idle

    def paused(self) -> list[str]:
        """A line for each stage that is paused because the same error came up again and again."""
        return self._ready.errors.lines()

    def incomplete(self) -> list[str]:
        """A line for each group without a winner or result, with the reason; empty if nothing has gone wrong."""
        taken = {(source, decision.group) for decision in self.decisions for source in decision.sources}
        reasons = [
            (group, incomplete_reason(self._state, group, group_id in taken))
            for group_id, group in self._state.groups.items()
        ]
        lines = [f"{group.stage.name} {group.id}: {reason}" for group, reason in reasons if reason]
        return lines + self._ready.errors.paused_stages()

    def progress(self) -> list[Progress]:
        """Counts per stage and group, in the order of the spec."""
        return [self._state.progress(group) for group in self._state.groups.values()]

    def seconds_left(
        self, slots: int, pace: Callable[[str], float], begun: Mapping[str, float], start_s: float = 0.0
    ) -> float:
        """Seconds until the job ends on so many slots; the other arguments as those of `time_left.seconds_left`."""
        return seconds_left(self._state, slots, pace, begun, start_s)

    def specs(self) -> list[TrialSpec]:
        """The placed trials, and one for each group of a search without trials: what the job needs to begin."""
        groups = self._state.groups.values()
        empty_searches = [group.search.middle for group in groups if group.search and not group.trials]
        return [planned.spec for planned in self.placed] + empty_searches

    def foreseen(self) -> list[TrialSpec]:
        """The trials that wait for weights or winners, as they would be with the first trial of a group as its winner:
        what the job needs later."""
        groups = self._state.groups.values()
        return [trial.spec for group in groups for trial in group.waiting or ()] + [spec for _, spec in self._forecasts]

    def in_stage(self, stage: str) -> list[TrialSpec]:
        """The trials of a stage: those not placed yet as `foreseen` has them, of a search one for each group."""
        groups = [group for group in self._state.groups.values() if group.stage.name == stage]
        return [
            *(planned.spec for planned in self.placed if planned.stage == stage),
            *(trial.spec for group in groups for trial in group.waiting or ()),
            *(group.search.middle for group in groups if group.search and not group.trials),
            *(spec for name, spec in self._forecasts if name == stage),
        ]


def _named(job: JobSpec) -> set[str]:
    """Keys of the trials of other jobs that the job starts from, as its stages name them."""
    content = [job.trial, [stage.model_dump(mode="json", by_alias=True) for stage in job.stages]]
    trials = [init for init in initial_weights(content) if init["kind"] == "trial"]
    return {str(key) for init in trials for key in init.get("replicates") or [init["trial"]]}
