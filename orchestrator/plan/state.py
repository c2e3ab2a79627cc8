"""The only place that holds where a job's groups and trials stand, and what follows for each alone. No I/O."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from orchestrator.plan.expansion import SearchGroup
from orchestrator.plan.stage_graph import StageGraph
from orchestrator.plan.trials import PlannedTrial, WaitingTrial, WeightSource
from orchestrator.records.rows import Edge
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.rules import selection
from orchestrator.spec.job import Stage

PENDING = TrialSnapshot(TrialState.pending)
RESULTS = (TrialState.done, TrialState.diverged)
RETRIABLE = (TrialState.failed, TrialState.cancelled)


@dataclass(frozen=True)
class Decision:
    """Which trial was taken from a group, and by what rule."""

    stage: str
    """The stage that takes; "grid: weights of pretrain" when it takes initial weights from the best of several."""
    group: str
    key: str
    value: float
    metric: str
    edges: list[Edge]
    rule: dict[str, Any]
    """metric, mode, ties, last; and of a neighbourhood: neighbourhood (its fields) and left_out (a line a value)."""
    candidates: int
    sources: list[str]


@dataclass
class Progress:
    """Counts of a stage's group. `expected` is a forecast until the group's trials are placed."""

    stage: str
    group: str
    group_values: dict[str, Any]
    expected: int
    states: dict[TrialState, int]
    """Of the placed trials; what was handed out counts as running."""
    best: float | None
    """Best metric so far."""
    seconds_left: float
    """Estimated work of the trials that have not ended, the forecast ones included."""


@dataclass
class GroupState:
    """A group of a stage: its trials once they are known."""

    stage: Stage
    id: str
    values: dict[str, Any]
    number: int
    """In the order of the spec, over all stages."""
    expected: int
    longest: float
    """Estimated seconds of its longest trial."""
    tail: float = 0.0
    """Estimated seconds of the longest chain that follows when the group is complete."""
    drafts: list[WaitingTrial] | None = None
    """Trials that wait for the winner whose weights they start from; None: for the group's own winner."""
    search: SearchGroup | None = None
    """Of a search that may still ask for points: what its trials share."""
    rounds: int = 1
    """How often its longest trial fits into the time that the group takes at least: of a search, trials / at_once."""
    trials: dict[str, PlannedTrial] = field(default_factory=dict)
    stopped_early: set[str] = field(default_factory=set)
    """Trials that a search ended early: results here that cannot win."""
    partial: set[str] = field(default_factory=set)
    """Trials that end before their schedule does (parts of a population's member): results that cannot win."""
    results: int = 0
    """How many of its trials ended with a result."""

    @property
    def placed(self) -> bool:
        return self.drafts is not None and not self.drafts and self.search is None

    @property
    def complete(self) -> bool:
        return self.placed and self.results == len(self.trials)


@dataclass
class TrialEntry:
    """A trial, whatever places it has."""

    planned: PlannedTrial
    """In its first place; kept weights and remaining chain are those of all its places together."""
    groups: list[GroupState]
    known: TrialSnapshot = PENDING
    dispatched: bool = False
    """Given to the engine, which has not said anything of it since."""
    weights_requested: bool = False
    """It was given to the engine with the order to keep its weights."""

    @property
    def in_flight(self) -> bool:
        return self.dispatched or self.known.state is TrialState.running

    @property
    def waiting(self) -> bool:
        """Not ended for all who want it: pending, or stopped by a search while another place wants it in full."""
        if self.known.state is TrialState.pending or self.known.state is TrialState.stopped:
            return any(self.planned.key not in group.stopped_early for group in self.groups)
        return False


class PlanState:
    """Groups by (stage, id), trials by key, and the states of trials of other jobs that ours start from."""

    def __init__(self, stages: StageGraph) -> None:
        self.stages = stages
        self.groups: dict[tuple[str, str], GroupState] = {}
        self.of: dict[str, list[GroupState]] = defaultdict(list)
        self.trials: dict[str, TrialEntry] = {}
        self.outside: dict[str, TrialSnapshot] = {}
        self.children: dict[str, list[str]] = defaultdict(list)

    def add(self, group: GroupState) -> None:
        self.groups[group.stage.name, group.id] = group
        self.of[group.stage.name].append(group)

    def sources(self, stage: Stage, group: str) -> list[GroupState]:
        """The groups of this id that `stage` takes from."""
        return [self.groups[name, group] for name in stage.from_ if (name, group) in self.groups]

    def known(self, key: str) -> TrialSnapshot | None:
        return self.trials[key].known if key in self.trials else self.outside.get(key)

    def gives_weights(self, key: str) -> bool:
        known = self.known(key)
        return known is not None and known.state is TrialState.done and known.weights is not None

    def startable(self, trial: TrialEntry) -> bool:
        """It waits or is wanted once more, and its parents' weights are there."""
        if trial.in_flight or not (trial.waiting or self.wanted_again(trial)):
            return False
        return all(self.gives_weights(parent) for parent in trial.planned.needs)

    def wanted_again(self, trial: TrialEntry) -> bool:
        """Done, but its weights were not kept or have been removed, and they are pinned or needed: by a child that
        waits, or that is itself wanted again."""
        if trial.known.state is not TrialState.done or trial.known.weights or trial.weights_requested:
            return False
        if trial.known.pinned:
            return True
        children = (self.trials[key] for key in self.children.get(trial.planned.key, ()))
        return any((child.waiting or self.wanted_again(child)) and not child.in_flight for child in children)

    def best(self, groups: list[GroupState]) -> selection.Candidate | None:
        """The best trial of these groups so far, by the tie rule of the first of them."""
        trials = candidates_of(groups)
        if not trials:
            return None
        task = next(iter(trials.values())).spec.task
        candidates = [selection.Candidate(key, self._figures(key), planned.settings) for key, planned in trials.items()]
        return selection.best(candidates, task.metric, task.mode, groups[0].stage.ties)

    def decide(self, taker: str, groups: list[GroupState]) -> tuple[Decision, PlannedTrial] | None:
        """The winner over all trials of complete groups; None when no trial has a finite metric."""
        winner = self.best(groups)
        if winner is None:
            return None
        trials = candidates_of(groups)
        task = next(iter(trials.values())).spec.task
        roots = dict.fromkeys(name for group in groups for name in self.stages.sweeps(group.stage))
        swept = [planned.settings for name in roots for planned in self.groups[name, groups[0].id].trials.values()]
        axes = dict.fromkeys(path for name in roots for path in self.stages.grid_axes(self.stages.by_name[name]))
        ranges, choices = self.stages.ranges(roots)
        decision = Decision(
            stage=taker,
            group=groups[0].id,
            key=winner.key,
            value=winner.figures[task.metric],
            metric=task.metric,
            edges=selection.edges(winner.settings, {**selection.axis_values(swept, axes), **choices}, ranges),
            rule={"metric": task.metric, "mode": task.mode, "ties": list(groups[0].stage.ties), "last": "key"},
            candidates=len(trials),
            sources=[group.stage.name for group in groups],
        )
        return decision, trials[winner.key]

    def giver(self, source: WeightSource) -> GroupState:
        """The group that weights come from."""
        return self.of[source.stage][0] if source.group is None else self.groups[source.stage, source.group]

    def weights_of(self, group: GroupState) -> str | None:
        """Key of the trial that a stage's weights come from: its only one, or its winner once all have ended."""
        if group.placed and len(group.trials) == 1:
            return next(iter(group.trials))
        winner = self.best([group]) if group.complete else None
        return winner.key if winner else None

    def progress(self, group: GroupState) -> Progress:
        states = dict.fromkeys(TrialState, 0)
        left = (group.expected - len(group.trials)) * group.longest
        for key, planned in group.trials.items():
            trial = self.trials[key]
            state = TrialState.running if trial.in_flight else trial.known.state
            if state is TrialState.stopped and key not in group.stopped_early:
                state = TrialState.pending  # stopped by another search: here it is wanted in full
            elif state is TrialState.pending and key in group.stopped_early:
                state = TrialState.stopped
            states[state] += 1
            left += 0.0 if state.ended else planned.seconds
        best = self.best([group])
        value = best.figures[next(iter(group.trials.values())).spec.task.metric] if best else None
        return Progress(group.stage.name, group.id, group.values, group.expected, states, value, left)

    def _figures(self, key: str) -> dict[str, float]:
        known = self.trials[key].known
        return dict(known.figures) if known.state is TrialState.done else {}


def candidates_of(groups: list[GroupState]) -> dict[str, PlannedTrial]:
    """Trials of these groups that may win."""
    return {
        key: planned
        for group in groups
        for key, planned in group.trials.items()
        if key not in group.stopped_early and key not in group.partial
    }
