"""Makes the groups of all stages when a job is planned, and estimates what follows each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from orchestrator.errors import SpecError
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.expansion import expand, neighbours, replicated, searches, successors
from orchestrator.plan.state import GroupState, PlanState
from orchestrator.plan.trials import GroupId, WeightSource, each_group, made_by_stages, sources_of_weights
from orchestrator.spec.job import JobSpec, Stage
from orchestrator.spec.seeds import sets_weights
from orchestrator.spec.sweep import Search
from tasks.backbones.spec import FieldPath, FromStage, FromTrial
from workers.trial import Span, TrialSpec


def make_groups(job: JobSpec, state: PlanState, durations: DurationModel) -> list[tuple[str, TrialSpec]]:
    """Adds the groups of all stages to `state`, those of stages with `from` still without trials.

    Returns the trials of those stages, each with its stage's name, as they would be with the first trial of each source
    group as its winner.
    Raises SpecError or pydantic's ValidationError for a job that `spec.load` would have refused.
    """
    builder = _Builder(state, durations)
    for stage in job.stages:
        if stage.from_:
            builder.add_forecast_groups(stage)
        elif isinstance(stage.sweep, Search):
            builder.add_searches(job, stage, stage.sweep)
        else:
            builder.add_expanded(job, stage)
    builder.check_test_access()
    _estimate_tails(state)
    return builder.forecasts


class _Builder:
    """Adds groups stage by stage. The first trial of each group stands for its winner in the stages after it."""

    def __init__(self, state: PlanState, durations: DurationModel) -> None:
        self._state, self._durations = state, durations
        self._first: dict[GroupId, TrialSpec] = {}
        self._replicates_of: dict[str, dict[tuple[FieldPath, str], int]] = {}
        """Stage -> steps to the sources of its trials' weights that have replicates, what they are -> their number."""
        self.forecasts: list[tuple[str, TrialSpec]] = []

    def add_expanded(self, job: JobSpec, stage: Stage) -> None:
        """The groups of a stage with one setting or a grid."""
        stages = self._state.stages
        trials = expand(job, stage, stages.seeds.replicates(stage), stages.may_test(stage))
        self._add_weight_edges(stage, [trial.spec for trial in trials])
        for group_id, values, members in each_group(trials, stage.per):
            self._first[stage.name, group_id] = members[0].spec
            group = self._add(stage, group_id, values, [trial.spec for trial in members])
            group.waiting = members

    def add_searches(self, job: JobSpec, stage: Stage, search: Search) -> None:
        """The groups of a search, without trials: the search proposes them one by one."""
        seeds = self._state.stages.seeds.replicates(stage)
        groups = searches(job, stage, seeds)
        self._add_weight_edges(stage, [each.middle for each in groups])
        for each in groups:
            generations, trial = 1, each.middle
            self._first[stage.name, each.group] = trial
            if search.population is not None:
                part = min(trial.rounds, search.population.every_epochs)
                generations = trial.rounds // part
                trial = trial.model_copy(update={"span": Span(first_epoch=0, last_epoch=part)})
            group = self._add(stage, each.group, each.values, [trial])
            group.waiting, group.search = [], each
            group.expected = search.trials * generations * len(seeds or [0])
            group.rounds = math.ceil(search.trials / search.at_once) * generations

    def add_forecast_groups(self, stage: Stage) -> None:
        """The groups of a stage with `from`, one for each group id of its sources."""
        sources: dict[str, GroupState] = {}
        for source in (group for name in stage.from_ for group in self._state.by_stage[name]):
            sources.setdefault(source.id, source)
        for source in sources.values():
            winner = self._first[source.full_id]
            workers = self._state.stages.resources(stage).workers
            centres = successors(winner, stage, stage.neighbourhood is None, workers)
            specs = neighbours(centres[0], stage.neighbourhood, winner)[0] if stage.neighbourhood else centres
            self._add_weight_edges(stage, centres)
            self.forecasts += [(stage.name, spec) for spec in centres]
            trials = replicated(specs, self._state.stages.seeds.replicates(stage))
            self._add(stage, source.id, source.values, [trial.spec for trial in trials])
            self._first[stage.name, source.id] = centres[0]

    def check_test_access(self) -> None:
        """Raises SpecError if trials of a stage that must not read test do so. Needs the groups of all stages."""
        for (name, _), spec in self._first.items():
            if spec.task.reads_test and not self._state.stages.may_test(self._state.stages.by_name[name]):
                why = "another stage starts from its trials, or it tries several settings that the report does not show"
                raise SpecError([f"stage {name}: asks for test data, but {why}"])

    def _add(self, stage: Stage, group_id: str, values: dict[str, object], specs: list[TrialSpec]) -> GroupState:
        resources = self._state.stages.resources(stage)
        longest = max((self._durations.estimate(spec, resources).seconds for spec in specs), default=0.0)
        group = GroupState(stage, group_id, values, len(self._state.groups), len(specs), longest)
        self._state.add(group)
        return group

    def _add_weight_edges(self, stage: Stage, specs: list[TrialSpec]) -> None:
        """Checks and records the stages from whose weights trials of `stage` start, also through winners."""
        for source in dict.fromkeys(source for spec in specs for source in sources_of_weights(spec).values()):
            self._check_source(stage, source)
            self._state.stages.add_weights_edge(source.stage, stage.name)
        counts = self._replicates_of.setdefault(stage.name, {})
        for name in stage.from_:
            inherited = self._replicates_of.get(name, {}).items()
            counts |= {at: sources for at, sources in inherited if not sets_weights(stage, at[0])}
        for spec in specs:
            counts |= {(steps, text): count for steps, text, count in self._replicates(spec)}
        self._check_counts(stage, counts)

    def _replicates(self, spec: TrialSpec) -> Iterator[tuple[FieldPath, str, int]]:
        """Of each of the trial's sources of weights that a stage made: the steps to it, what it is, its replicates."""
        for steps, init in made_by_stages(spec).items():
            if isinstance(init, FromTrial):
                yield steps, f"{init.name} of another job", len(init.replicates)
            elif isinstance(init, FromStage):
                yield steps, f"stage {init.stage}", len(self._state.stages.seeds.of[init.stage])

    def _check_counts(self, stage: Stage, counts: Mapping[tuple[FieldPath, str], int]) -> None:
        """Replicates start from as many replicates: the first from the first, the second from the second."""
        own = len(self._state.stages.seeds.of[stage.name])
        for (_, source), count in counts.items():
            if min(count, own) > 1 and (count != own or stage.replicates is None):
                what = f"runs {own} seeds, but starts from {source}, which has {count}, and each starts from one"
                raise SpecError([f"stage {stage.name}: {what}; write replicates: {count}"])

    def _check_source(self, stage: Stage, source: WeightSource) -> None:
        groups = [group.id for group in self._state.by_stage[source.stage]]
        problem = ""
        if not groups:
            problem = "there is no such stage before this one"
        elif source.group is None and len(groups) > 1:
            problem = f"it has {len(groups)} groups; name one with `group`: {', '.join(groups)}"
        elif source.group not in (None, *groups):
            problem = f"it has no group {source.group!r}; it has: {', '.join(groups)}"
        if problem:
            raise SpecError([f"stage {stage.name}: initial weights from stage {source.stage!r}: {problem}"])


def _estimate_tails(state: PlanState) -> None:
    """From the last stage back: the longest chain that follows from a group's winner or from a stage's weights."""
    for group in reversed(state.groups.values()):
        name = group.stage.name
        following = [state.groups[consumer.name, group.id] for consumer in state.stages.consumers[name]]
        following += [other for consumer in state.stages.weight_consumers(name) for other in state.by_stage[consumer]]
        group.tail = max((other.rounds * other.longest + other.tail for other in following), default=0.0)
