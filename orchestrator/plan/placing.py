"""Chooses winners as groups complete, and gives the trials that follow their places."""

from __future__ import annotations

import math
from dataclasses import replace

from orchestrator.plan.durations import DurationModel
from orchestrator.plan.expansion import neighbours, replicated, successors
from orchestrator.plan.ready_queue import ReadyTrials
from orchestrator.plan.state import RESULTS, Decision, GroupState, PlanState, TrialEntry
from orchestrator.plan.trials import PlannedTrial, Sources, WeightSource, made_by_stages, sources_of_weights, trial_name
from orchestrator.spec.job import Stage
from orchestrator.spec.seeds import sets_weights
from orchestrator.spec.trial_fields import settings_of
from tasks.backbones.spec import with_inits
from workers.trial import TrialSpec

Changes = tuple[list[PlannedTrial], list[Decision]]
"""The trials that were placed and the winners that were chosen by one call."""


class Placing:
    """The placed trials and the decisions of a job, in the order in which they were made."""

    def __init__(self, state: PlanState, durations: DurationModel, ready: ReadyTrials) -> None:
        self._state, self._durations, self._ready = state, durations, ready
        self.placed: list[PlannedTrial] = []
        self.decisions: list[Decision] = []

    def mark(self) -> tuple[int, int]:
        """The present point, for `since`."""
        return len(self.placed), len(self.decisions)

    def since(self, mark: tuple[int, int]) -> Changes:
        """The trials placed and the decisions made after `mark`."""
        return self.placed[mark[0] :], self.decisions[mark[1] :]

    def settle(self, changed: list[GroupState]) -> None:
        """Follows up on groups that changed: chooses the winners of complete ones and places trials, until no group
        changes any more."""
        stages = self._state.stages
        while changed:
            group = changed.pop()
            if group.complete:
                for consumer in stages.consumers[group.stage.name]:
                    changed += self._take_winner(consumer, self._state.groups[consumer.name, group.id])
            followers = stages.weight_consumers(group.stage.name)
            if followers and self._state.weights_of(group):
                for name in followers:
                    changed += [other for other in self._state.by_stage[name] if self.place_waiting(other)]

    def place_waiting(self, group: GroupState) -> bool:
        """Places those of the group's waiting trials whose initial weights are known. True if there were any."""
        if not group.waiting:
            return False
        waiting = []
        for trial in group.waiting:
            spec = self._state.resolve_weights(trial.spec, trial.replicate)
            if spec is None:
                waiting.append(trial)
                continue
            for source in sources_of_weights(trial.spec).values():
                self._record_choice_of_weights(group.stage, source)
            self.place(group, trial.position, spec, {**trial.sources, **made_by_stages(trial.spec)})
        placed = len(waiting) < len(group.waiting)
        group.waiting, group.expected = waiting, len(group.trials) + len(waiting)
        return placed

    def place(self, group: GroupState, position: int, spec: TrialSpec, sources: Sources) -> None:
        """Gives the trial its place in the group. A trial that has another place already runs once for both.

        `sources`: see `PlannedTrial`.
        """
        key = spec.key
        if key in group.trials:
            return
        planned = replace(self._planned(group, position, spec, key), sources=sources)
        self.placed.append(planned)
        group.add(planned)
        trial = self._state.trials.get(key)
        if trial is None:
            trial = self._state.trials[key] = TrialEntry(planned, [group])
            for parent in planned.needs:
                self._state.children[parent].append(key)
        else:
            trial.groups.append(group)
            keep = trial.planned.keep_weights or planned.keep_weights
            remaining = max(trial.planned.remaining, planned.remaining)
            trial.planned = replace(trial.planned, keep_weights=keep, remaining=remaining)
            self._ready.requeue(trial)
        group.results += trial.snapshot.state in RESULTS
        self._ready.refresh([key, *planned.needs])

    def _take_winner(self, consumer: Stage, group: GroupState) -> list[GroupState]:
        """Fills `group` of stage `consumer` from the winner of its sources, once all of them are complete. Returns the
        groups that changed."""
        sources = self._state.sources(consumer, group.id)
        if group.waiting is not None or not all(source.complete for source in sources):
            return []
        chosen = self._state.decide(consumer.name, sources)
        if chosen is None:
            return []
        decision, winner = chosen
        stages = self._state.stages
        origin = with_inits(winner.spec, winner.sources) if stages.seeds.several(consumer.name) else winner.spec
        specs = successors(origin, consumer, stages.may_test(consumer), stages.resources(consumer).workers)
        if consumer.neighbourhood:
            specs, left_out = neighbours(specs[0], consumer.neighbourhood, origin)
            decision.rule["neighbourhood"] = consumer.neighbourhood.model_dump(mode="json")
            decision.rule["left_out"] = left_out
        self.decisions.append(decision)
        kept = {path: init for path, init in winner.sources.items() if not sets_weights(consumer, path)}
        group.waiting = replicated(specs, stages.seeds.replicates(consumer), kept)
        self.place_waiting(group)
        return [group]

    def _record_choice_of_weights(self, consumer: Stage, source: WeightSource) -> None:
        """Adds the decision by which a stage starts from the best of several trials, once for each stage and source."""
        group, name = self._state.source_group(source), f"{consumer.name}: weights of {source}"
        if len(group.settings) > 1 and all(decision.stage != name for decision in self.decisions):
            chosen = self._state.decide(name, [group])
            assert chosen is not None, "its winner was just taken"
            self.decisions.append(chosen[0])

    def _planned(self, group: GroupState, position: int, spec: TrialSpec, key: str) -> PlannedTrial:
        """`key`: that of `spec`; computing it is a third of the work of planning a trial."""
        stages, stage = self._state.stages, group.stage
        settings = settings_of(spec, stages.watched[stage.name])
        resources = stages.resources(stage)
        estimate = self._durations.estimate(spec, resources)
        return PlannedTrial(
            key=key,
            spec=spec,
            stage=stage.name,
            group=group.id,
            group_values=group.values,
            settings=settings,
            name=trial_name(stage.name, group.id, settings, stages.named_by[stage.name]),
            position=position,
            needs=spec.parents,
            resources=resources,
            keep_weights=stages.keeps_weights(stage, spec),
            seconds=estimate.seconds,
            measured=estimate.measured,
            remaining=estimate.seconds + _rounds_left(group) * group.longest + group.tail,
        )


def _rounds_left(group: GroupState) -> int:
    """Rounds of a search after the next trial to be placed; 0 if all of the group's trials can run at the same time."""
    done = math.ceil((len(group.trials) + 1) * group.rounds / max(1, group.expected))
    return max(0, group.rounds - done)
