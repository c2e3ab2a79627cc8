"""The state of a job's groups and trials in memory, and what follows from it for each of them alone."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from orchestrator.plan.expansion import SearchGroup
from orchestrator.plan.stage_graph import StageGraph
from orchestrator.plan.trials import (
    GroupId,
    PlannedTrial,
    WaitingTrial,
    WeightSource,
    metric_rows,
    sources_of_weights,
    with_weights_of,
)
from orchestrator.records.rows import Edge, MetricRow
from orchestrator.records.states import SUBMISSION, TrialSnapshot, TrialState
from orchestrator.rules import selection
from orchestrator.spec.job import Stage
from tasks.backbones.spec import FromTrial, inits
from workers.trial import TrialSpec

PENDING = TrialSnapshot(TrialState.pending)
RESULTS = (TrialState.done, TrialState.diverged)
RETRIABLE = (TrialState.failed, TrialState.cancelled)


@dataclass(frozen=True)
class Decision:
    """The winner of a group, and the rule by which it was chosen."""

    stage: str
    """The stage that takes it; "grid: weights of pretrain" if it takes initial weights from the best of several."""
    group: str
    key: str
    """Of a setting with several seeds: its trial with the first one."""
    value: float
    """Of the metric; the mean over the seeds."""
    metric: str
    edges: list[Edge]
    rule: dict[str, Any]
    """metric, mode, ties, last; with several seeds also seeds, and values: the winner's metric at each. Of a
    neighbourhood also its fields (neighbourhood) and a line for each value that was left out (left_out)."""
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
    """Of the placed trials; dispatched ones count as running."""
    best: float | None
    """Best value so far of the metric that trials are chosen by, as recorded."""
    metric: MetricRow | None
    """None while the group has no trial."""


@dataclass
class GroupState:
    """A group of a stage, and its trials once they are known."""

    stage: Stage
    id: str
    values: dict[str, Any]
    number: int
    """In the order of the spec, over all stages."""
    expected: int
    """How many trials it has or is expected to have."""
    longest: float
    """Estimated seconds of its longest trial."""
    tail: float = 0.0
    """Estimated seconds of the longest chain that follows once the group is complete."""
    waiting: list[WaitingTrial] | None = None
    """Trials that wait for the weights they start from; None while the group waits for its own winner."""
    search: SearchGroup | None = None
    """The open search that proposes its trials; None without a search, or once it is closed."""
    rounds: int = 1
    """Number of sequential rounds: 1 for a grid, trials / at_once for a search."""
    trials: dict[str, PlannedTrial] = field(default_factory=dict)
    settings: dict[str, list[str]] = field(default_factory=dict)
    """What its choices are made of -> the keys of its trials: each trial by itself or, in a stage with replicates, the
    seeds of each setting in their order."""
    stopped_early: set[str] = field(default_factory=set)
    """Trials that a search stopped early: they count as finished and cannot win."""
    partial: set[str] = field(default_factory=set)
    """Trials that end before their schedule does (parts of a population's member): they cannot win."""
    results: int = 0
    """How many of its trials have ended with a result."""

    @property
    def full_id(self) -> GroupId:
        return self.stage.name, self.id

    def add(self, planned: PlannedTrial) -> None:
        """Adds a placed trial."""
        self.trials[planned.key] = planned
        if self.stage.replicates is None:
            self.settings[planned.key] = [planned.key]
            return
        keys = self.settings.setdefault(selection.setting_id(planned.settings), [])
        keys.append(planned.key)
        keys.sort(key=lambda key: self.trials[key].spec.seed)

    @property
    def placed(self) -> bool:
        return self.waiting is not None and not self.waiting and self.search is None

    @property
    def complete(self) -> bool:
        return self.placed and self.results == len(self.trials)


@dataclass
class TrialEntry:
    """A trial with all groups that it belongs to."""

    planned: PlannedTrial
    """In its first place; `keep_weights` and `remaining` are those of all its places together."""
    groups: list[GroupState]
    snapshot: TrialSnapshot = PENDING
    dispatched: bool = False
    """Given to the engine, which has not reported on it since."""
    weights_requested: bool = False
    """Given to the engine with the order to keep its weights."""

    @property
    def in_flight(self) -> bool:
        return self.dispatched or self.snapshot.state is TrialState.running

    @property
    def wanted(self) -> bool:
        """True if some group wants the trial in full."""
        return any(self.planned.key not in group.stopped_early for group in self.groups)

    @property
    def unfinished(self) -> bool:
        """True if the trial has to run: pending, or stopped by one group's search while another group wants it."""
        return self.snapshot.state in (TrialState.pending, TrialState.stopped) and self.wanted


class PlanState:
    """Groups by id, trials by key, and the states of trials of other jobs whose weights this job needs."""

    def __init__(self, stages: StageGraph) -> None:
        self.stages = stages
        self.groups: dict[GroupId, GroupState] = {}
        self.by_stage: dict[str, list[GroupState]] = defaultdict(list)
        self.trials: dict[str, TrialEntry] = {}
        self.outside: dict[str, TrialSnapshot] = {}
        """Key of a trial of another job -> its snapshot."""
        self.children: dict[str, list[str]] = defaultdict(list)
        """Key of a trial -> keys of the trials that need its weights."""

    def add(self, group: GroupState) -> None:
        self.groups[group.full_id] = group
        self.by_stage[group.stage.name].append(group)

    def sources(self, stage: Stage, group: str) -> list[GroupState]:
        """The groups of this id from which `stage` takes its winner."""
        return [self.groups[name, group] for name in stage.from_ if (name, group) in self.groups]

    def snapshot(self, key: str) -> TrialSnapshot | None:
        return self.trials[key].snapshot if key in self.trials else self.outside.get(key)

    def has_weights(self, key: str) -> bool:
        snapshot = self.snapshot(key)
        return snapshot is not None and snapshot.state is TrialState.done and snapshot.weights is not None

    def can_start(self, trial: TrialEntry) -> bool:
        """True if the trial has to run (again) and the weights it starts from exist."""
        if trial.in_flight or not (trial.unfinished or self.must_rerun(trial)):
            return False
        return all(self.has_weights(parent) for parent in trial.planned.needs)

    def must_rerun(self, trial: TrialEntry) -> bool:
        """True if the trial is done, its weights were not kept or have been removed, and they are needed: pinned, or
        for a child that has to run."""
        if trial.snapshot.state is not TrialState.done or trial.snapshot.weights or trial.weights_requested:
            return False
        if trial.snapshot.pinned:
            return True
        children = (self.trials[key] for key in self.children.get(trial.planned.key, ()))
        return any((child.unfinished or self.must_rerun(child)) and not child.in_flight for child in children)

    def best(self, groups: list[GroupState]) -> selection.Candidate | None:
        """The best setting of these groups so far, by the tie rule of the first group; its key is that of its trial
        with the first seed."""
        candidates = self._candidates(groups)
        if not candidates:
            return None
        spec = _trials_of(groups)[candidates[0].key].spec
        return selection.best(candidates, spec.metric, spec.mode, groups[0].stage.ties)

    def decide(self, consumer: str, groups: list[GroupState]) -> tuple[Decision, PlannedTrial] | None:
        """The winner over all settings of complete groups, with its trial of the first seed; None if no setting has a
        finite metric at each of its seeds."""
        winner = self.best(groups)
        if winner is None:
            return None
        planned = _trials_of(groups)[winner.key]
        spec = planned.spec
        sweeps = dict.fromkeys(name for group in groups for name in self.stages.sweeps(group.stage))
        swept = [planned.settings for name in sweeps for planned in self.groups[name, groups[0].id].trials.values()]
        axes = dict.fromkeys(path for name in sweeps for path in self.stages.grid_axes(self.stages.by_name[name]))
        rule = {"metric": spec.metric, "mode": spec.mode, "ties": list(groups[0].stage.ties), "last": "key"}
        decision = Decision(
            stage=consumer,
            group=groups[0].id,
            key=winner.key,
            value=winner.figures[spec.metric],
            metric=spec.metric,
            edges=selection.edges(winner.settings, selection.axis_values(swept, axes), self.stages.ranges(sweeps)),
            rule={**rule, **selection.seeds_of(winner, spec.metric)},
            candidates=len(self._candidates(groups)),
            sources=[group.stage.name for group in groups],
        )
        return decision, planned

    def _candidates(self, groups: list[GroupState]) -> list[selection.Candidate]:
        """The settings of these groups that may win; one that several groups have counts once."""
        found: dict[str, selection.Candidate] = {}
        for group in groups:
            barred = group.stopped_early | group.partial
            for keys in group.settings.values():
                if keys[0] not in found and barred.isdisjoint(keys):
                    found[keys[0]] = self._candidate(group, keys)
        return list(found.values())

    def _candidate(self, group: GroupState, keys: list[str]) -> selection.Candidate:
        if group.stage.replicates is None:
            return selection.Candidate(keys[0], self._figures(keys[0]), group.trials[keys[0]].settings)
        trials = [group.trials[key] for key in keys]
        return selection.mean_of(
            selection.Candidate(each.key, self._figures(each.key), each.settings, each.spec.seed) for each in trials
        )

    def source_group(self, source: WeightSource) -> GroupState:
        """The group that weights come from."""
        return self.by_stage[source.stage][0] if source.group is None else self.groups[source.stage, source.group]

    def weights_of(self, group: GroupState, replicate: int = 0) -> str | None:
        """Key of the trial whose weights a group passes on to a replicate: its only setting's, or that of its winner
        once all have ended."""
        keys: list[str] | None = None
        if group.placed and len(group.settings) == 1:
            (keys,) = group.settings.values()
        elif group.complete and (winner := self.best([group])):
            keys = next(keys for keys in group.settings.values() if keys[0] == winner.key)
        return None if keys is None else keys[replicate if len(keys) > 1 else 0]

    def resolve_weights(self, spec: TrialSpec, replicate: int = 0) -> TrialSpec | None:
        """The trial with its sources of weights resolved to trials; None while one of those is not known.

        `replicate`: which of its setting's seeds it has. It starts from that replicate of a stage that has several.
        """
        keys = {steps: init.replicates[replicate] for steps, init in inits(spec)
                if isinstance(init, FromTrial) and init.replicates}  # fmt: skip
        for steps, source in sources_of_weights(spec).items():
            key = self.weights_of(self.source_group(source), replicate)
            if key is None:
                return None
            keys[steps] = key
        return with_weights_of(spec, keys)

    def progress(self, group: GroupState) -> Progress:
        states = dict.fromkeys(TrialState, 0)
        for key in group.trials:
            trial = self.trials[key]
            state = TrialState.running if trial.in_flight else trial.snapshot.state
            if state is TrialState.stopped and key not in group.stopped_early:
                state = TrialState.pending  # stopped by another search; this group wants it in full
            elif state is TrialState.pending and key in group.stopped_early:
                state = TrialState.stopped
            states[state] += 1
        metric = metric_rows(next(iter(group.trials.values())).spec)[0] if group.trials else None
        undecided = metric is not None and metric.better == "neither" and len(group.settings) > 1
        best = None if undecided else self.best([group])
        value = best.figures[metric.name] if best and metric else None
        return Progress(group.stage.name, group.id, group.values, group.expected, states, value, metric)

    def has_result(self, key: str) -> bool:
        """True if the trial ended with a finite value of the metric that trials are chosen by, or with a submission in
        its place, where labels are not public."""
        snapshot = self.trials[key].snapshot
        if snapshot.state is TrialState.done and snapshot.facts.get(SUBMISSION):
            return True
        value = self._figures(key).get(self.trials[key].planned.spec.metric)
        return value is not None and math.isfinite(value)

    def _figures(self, key: str) -> dict[str, float]:
        snapshot = self.trials[key].snapshot
        return dict(snapshot.figures) if snapshot.state is TrialState.done else {}


def _trials_of(groups: list[GroupState]) -> dict[str, PlannedTrial]:
    """The trials of these groups, each in the first of its places."""
    return {key: planned for group in reversed(groups) for key, planned in group.trials.items()}
