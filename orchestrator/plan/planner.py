"""The only place that decides which trials of a job may run now, in what order, and who won. No I/O."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.expansion import at_point, expand, neighbours, searches, successors
from orchestrator.plan.failures import RepeatedErrors, incomplete_reason
from orchestrator.plan.ready_queue import Queue
from orchestrator.plan.stage_graph import StageGraph
from orchestrator.plan.state import PENDING, RESULTS, Decision, GroupState, PlanState, Progress, TrialEntry
from orchestrator.plan.trials import PlannedTrial, WaitingTrial, each_group, source_of_weights, started_from, trial_name
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.spec.job import JobSpec, Stage
from orchestrator.spec.sweep import Search
from orchestrator.spec.trial_fields import settings_of
from workers.trial import Span, TrialSpec

GroupId = tuple[str, str]
"""(stage, group id)"""


class Planner:
    """A job in memory: told what is known of its trials, it says what may run, who won, and when it is over.

    Deterministic in the job and in what it was told, in whatever order: what is placed, decided and ready.
    """

    def __init__(self, job: JobSpec, speed: DurationModel) -> None:
        """Raises SpecError or pydantic's ValidationError for a job that `spec.load` would have refused."""
        self.job = job
        self.placed: list[PlannedTrial] = []
        self.decisions: list[Decision] = []
        self._speed = speed
        self._stages = StageGraph(job)
        self._board = PlanState(self._stages)
        self._queue = Queue()
        self._out: set[str] = set()
        self._errors = RepeatedErrors()
        self._forecasts: list[TrialSpec] = []
        self._followers: dict[str, set[str]] = defaultdict(set)  # stage -> stages that start from its weights
        self._make_groups()
        self._estimate_tails()
        for group in self._board.groups.values():
            self._place_drafts(group)

    # What the engine tells and asks

    def update(self, key: str, known: TrialSnapshot) -> tuple[list[PlannedTrial], list[Decision]]:
        """Takes what is known of a trial; returns what was placed and decided by it.

        Telling the same again changes nothing. `pending` takes back a failure (a retry) and a trial that another
        driver ran, but not one that this planner has handed out: that is what `give_back` is for. A key that is no
        trial of this job is kept: trials may start from its weights.
        """
        places, decisions = len(self.placed), len(self.decisions)
        trial = self._board.trials.get(key)
        if trial is None:
            self._board.outside[key] = known
            self._refresh(self._board.children.get(key, ()))
            return [], []
        if known.state is TrialState.pending and trial.dispatched:
            return [], []
        before, trial.known, trial.dispatched = trial.known, known, False
        for stage in self._errors.count(trial, before):
            self._refresh(key for group in self._board.of[stage] for key in group.trials)
        self._refresh([key, *self._board.children.get(key, ()), *trial.planned.needs])
        change = (known.state in RESULTS) - (before.state in RESULTS)
        for group in trial.groups:
            group.results += change if key not in group.stopped_early else 0
        if change:
            self._settle(list(trial.groups))
        return self.placed[places:], self.decisions[decisions:]

    def next(self, fits: Callable[[PlannedTrial], bool]) -> PlannedTrial | None:
        """The ready trial with the longest remaining chain among those that fit; it counts as handed out from now.

        `fits` is asked once for each kind of resources in the queue: its answer may depend on nothing else.
        """
        planned = self._queue.next(fits)
        if planned is None:
            return None
        trial = self._board.trials[planned.key]
        trial.dispatched, trial.weights_requested = True, planned.keep_weights or trial.known.pinned
        self._refresh([planned.key])
        return planned

    def give_back(self, key: str) -> None:
        """A trial that was handed out or adopted did not end (released, or its node was lost): it is ready again."""
        trial = self._board.trials[key]
        trial.dispatched = trial.weights_requested = False
        if trial.known.state is TrialState.running:
            trial.known = PENDING
        self._refresh([key, *trial.planned.needs])

    def ready(self) -> int:
        """Trials that could start now, were there room."""
        return len(self._queue)

    def outside(self) -> list[str]:
        """Keys of trials of other jobs whose weights are needed: the engine must `learn` them."""
        return sorted(key for key in self._board.children if key not in self._board.trials)

    def finished(self) -> bool:
        """Nothing runs and nothing can be started: the job is done, or `incomplete` says why not."""
        return not len(self._queue) and not self._out

    def paused(self) -> list[str]:
        """A line for each stage of which nothing is handed out, because the same error came up again and again."""
        return self._errors.lines(self.job.name)

    def incomplete(self) -> list[str]:
        """Why groups have no winner or no result, a line each; empty when nothing went wrong so far."""
        taken = {(source, decision.group) for decision in self.decisions for source in decision.sources}
        groups = self._board.groups.items()
        reasons = [(group, incomplete_reason(self._board, group, place in taken)) for place, group in groups]
        return [f"{group.stage.name} {group.id}: {reason}" for group, reason in reasons if reason] + self.paused()

    def progress(self) -> list[Progress]:
        """Counts per stage and group, in the order of the spec."""
        return [self._board.progress(group) for group in self._board.groups.values()]

    # What searches tell and ask

    def specs(self) -> list[TrialSpec]:
        """Of the placed trials, and one for each group of a search that has none yet: what the job needs to begin."""
        open_ = [group.search.middle for group in self._board.groups.values() if group.search and not group.trials]
        return [planned.spec for planned in self.placed] + open_

    def foreseen(self) -> list[TrialSpec]:
        """Of trials that wait for weights or winners, as they would be with the first trial of a group as its winner:
        what the job needs later."""
        groups = self._board.groups.values()
        return [draft.spec for group in groups for draft in group.drafts or ()] + self._forecasts

    def searching(self) -> list[GroupId]:
        """Groups of searches in which points may be asked for: their initial weights are known, and `close` is to
        come."""
        found = [(place, group.search) for place, group in self._board.groups.items() if group.search]
        return [place for place, search in found if self._begun(search.middle) is not None]

    def middle(self, place: GroupId) -> TrialSpec:
        """The trial in the middle of an open search's ranges."""
        search = self._board.groups[place].search
        assert search is not None, "its search is open"
        return search.middle

    def expected(self, place: GroupId) -> int:
        """Trials of the group, as far as that is known before its search is over."""
        return self._board.groups[place].expected

    def key_at(self, place: GroupId, body: Mapping[str, Any]) -> str | None:
        """Key of the trial that a search's event describes; None where the values of its point do not go together."""
        spec = self._searched(place, body)
        return None if spec is None else spec.key

    def propose(self, place: GroupId, body: Mapping[str, Any]) -> tuple[list[PlannedTrial], list[Decision]]:
        """Places the trial that a search asked for."""
        spec, group, before = self._searched(place, body), self._board.groups[place], len(self.placed)
        assert spec is not None, "the search has asked for its key"
        if spec.last_epoch < spec.optim.epochs:
            group.partial.add(spec.key)
        self._place(group, len(group.trials), spec)
        return self.placed[before:], []

    def bar(self, place: GroupId, key: str) -> tuple[list[PlannedTrial], list[Decision]]:
        """The trial is a result of this group as it is, and will not win: it need not go on for this group's sake."""
        group, trial = self._board.groups[place], self._board.trials[key]
        places, decisions = len(self.placed), len(self.decisions)
        if key not in group.stopped_early:
            group.stopped_early.add(key)
            group.results += trial.known.state not in RESULTS
            self._refresh([key, *trial.planned.needs])
            self._settle([group])
        return self.placed[places:], self.decisions[decisions:]

    def close(self, place: GroupId) -> tuple[list[PlannedTrial], list[Decision]]:
        """The search asks for nothing more: the group is complete when its trials are."""
        group, places, decisions = self._board.groups[place], len(self.placed), len(self.decisions)
        group.search, group.expected = None, len(group.trials)
        self._settle([group])
        return self.placed[places:], self.decisions[decisions:]

    def wanted(self, key: str) -> bool:
        """Whether some group wants the trial in full."""
        trial = self._board.trials.get(key)
        return trial is not None and any(key not in group.stopped_early for group in trial.groups)

    def left_by_searches(self) -> list[str]:
        """Keys of trials that nobody wants any more and that nobody runs, but that are not recorded as stopped."""
        barred = {key for group in self._board.groups.values() for key in group.stopped_early}
        states = ((key, self._board.trials[key]) for key in sorted(barred))
        return [
            key for key, at in states if at.known.state is TrialState.pending and not at.in_flight and not at.waiting
        ]

    def _searched(self, place: GroupId, body: Mapping[str, Any]) -> TrialSpec | None:
        search = self._board.groups[place].search
        assert search is not None, "its search is open"
        spec = at_point(search.fields, body["point"])
        if spec is not None and "span" in body:
            first, last = body["span"]
            spec = spec.model_copy(update={"span": Span(first_epoch=first, last_epoch=last)})
            if body["parent"] is not None:
                return started_from(spec, body["parent"])
        return None if spec is None else self._begun(spec)

    def _begun(self, spec: TrialSpec) -> TrialSpec | None:
        """The trial with its initial weights resolved, once they can be."""
        source = source_of_weights(spec)
        if source is None:
            return spec
        key = self._board.weights_of(self._board.giver(source))
        return None if key is None else started_from(spec, key)

    # Groups and estimates

    def _make_groups(self) -> None:
        """All groups of all stages; those of stages with `from` still without trials."""
        stand_ins: dict[tuple[str, str], TrialSpec] = {}
        for stage in self.job.stages:
            if stage.from_:
                sources: dict[str, GroupState] = {}
                for group in (group for name in stage.from_ for group in self._board.of[name]):
                    sources.setdefault(group.id, group)
                for source in sources.values():
                    winner = stand_ins[source.stage.name, source.id]
                    stand_ins[stage.name, source.id] = self._forecast(stage, source, winner)
                continue
            if isinstance(stage.sweep, Search):
                self._make_searches(stage, stage.sweep, stand_ins)
                continue
            drafts = expand(self.job, stage)
            self._note_givers(stage, [draft.spec for draft in drafts])
            for identity, values, members in each_group(drafts, stage.per):
                stand_ins[stage.name, identity] = members[0].spec
                self._add(stage, identity, values, [draft.spec for draft in members]).drafts = members
        for (name, _), spec in stand_ins.items():
            if spec.task.reads_test and not self._stages.may_test(self._stages.by_name[name]):
                why = "another stage starts from its trials, or it tries several settings"
                raise SpecError([f"stage {name}: asks for test data, but {why}"])

    def _make_searches(self, stage: Stage, search: Search, stand_ins: dict[tuple[str, str], TrialSpec]) -> None:
        """Adds the groups of a search, without trials: those are proposed one by one."""
        found = searches(self.job, stage)
        self._note_givers(stage, [one.middle for one in found])
        for one in found:
            stand_ins[stage.name, one.group] = one.middle
            generations, trial = 1, one.middle
            if search.population is not None:
                generations = max(1, trial.optim.epochs // search.population.every_epochs)
                span = Span(first_epoch=0, last_epoch=min(trial.optim.epochs, search.population.every_epochs))
                trial = trial.model_copy(update={"span": span})
            group = self._add(stage, one.group, one.values, [trial])
            group.drafts, group.search = [], one
            group.expected = search.trials * generations
            group.rounds = math.ceil(search.trials / search.at_once) * generations

    def _forecast(self, stage: Stage, source: GroupState, winner: TrialSpec) -> TrialSpec:
        """Adds a group that waits for a winner, as it would be with the first trial of its source as the winner."""
        centres = successors(winner, stage, may_test=stage.neighbourhood is None)
        specs = neighbours(centres[0], stage.neighbourhood, winner)[0] if stage.neighbourhood else centres
        self._note_givers(stage, centres)
        self._forecasts += centres
        self._add(stage, source.id, source.values, specs)
        return centres[0]

    def _add(self, stage: Stage, identity: str, values: dict[str, object], specs: list[TrialSpec]) -> GroupState:
        resources = self._stages.resources(stage)
        longest = max((self._speed.estimate(spec, resources).seconds for spec in specs), default=0.0)
        group = GroupState(stage, identity, values, len(self._board.groups), len(specs), longest)
        self._board.add(group)
        return group

    def _note_givers(self, stage: Stage, specs: list[TrialSpec]) -> None:
        """Notes and checks the stages from whose weights trials of `stage` start."""
        for source in dict.fromkeys(source_of_weights(spec) for spec in specs):
            if source is None:
                continue
            groups = [group.id for group in self._board.of[source.stage]]
            problem = ""
            if not groups:
                problem = "there is no such stage before this one"
            elif source.group is None and len(groups) > 1:
                problem = f"it has {len(groups)} groups; name one with `group`: {', '.join(groups)}"
            elif source.group not in (None, *groups):
                problem = f"it has no group {source.group!r}; it has: {', '.join(groups)}"
            if problem:
                raise SpecError([f"stage {stage.name}: initial weights from stage {source.stage!r}: {problem}"])
            self._stages.weight_sources.add(source.stage)
            self._followers[source.stage].add(stage.name)

    def _estimate_tails(self) -> None:
        """From the last stage back: what follows from a group's winner, and from a stage's weights."""
        for group in reversed(self._board.groups.values()):
            name = group.stage.name
            after = [self._board.groups[taker.name, group.id] for taker in self._stages.consumers[name]]
            after += [other for follower in self._followers[name] for other in self._board.of[follower]]
            group.tail = max((other.rounds * other.longest + other.tail for other in after), default=0.0)

    # Placing and deciding

    def _settle(self, changed: list[GroupState]) -> None:
        """Draws the consequences of groups that changed, until there are none: winners taken, trials placed."""
        while changed:
            group = changed.pop()
            if group.complete:
                for taker in self._stages.consumers[group.stage.name]:
                    changed += self._take(taker, self._board.groups[taker.name, group.id])
            if self._followers[group.stage.name] and self._board.weights_of(group):
                for name in sorted(self._followers[group.stage.name]):
                    changed += [other for other in self._board.of[name] if self._place_drafts(other)]

    def _take(self, taker: Stage, group: GroupState) -> list[GroupState]:
        """Fills `group` from its sources' winner, once all of them are complete; the groups that changed."""
        sources = self._board.sources(taker, group.id)
        if group.drafts is not None or not all(source.complete for source in sources):
            return []
        found = self._board.decide(taker.name, sources)
        if found is None:
            return []
        decision, winner = found
        specs = successors(winner.spec, taker, self._stages.may_test(taker))
        if taker.neighbourhood:
            specs, left_out = neighbours(specs[0], taker.neighbourhood, winner.spec)
            decision.rule["neighbourhood"] = taker.neighbourhood.model_dump(mode="json")
            decision.rule["left_out"] = left_out
        self.decisions.append(decision)
        group.drafts = [WaitingTrial(position, spec) for position, spec in enumerate(specs)]
        self._place_drafts(group)
        return [group]

    def _place_drafts(self, group: GroupState) -> bool:
        """Places those trials of the group whose initial weights are known by now; whether there were any."""
        if not group.drafts:
            return False
        left = []
        for draft in group.drafts:
            source = source_of_weights(draft.spec)
            if source is None:
                self._place(group, draft.position, draft.spec)
                continue
            giver = self._board.giver(source)
            key = self._board.weights_of(giver)
            if key is None:
                left.append(draft)
                continue
            if len(giver.trials) > 1:
                self._record_weights(f"{group.stage.name}: weights of {source}", giver)
            self._place(group, draft.position, started_from(draft.spec, key))
        placed = len(left) < len(group.drafts)
        group.drafts, group.expected = left, len(group.trials) + len(left)
        return placed

    def _record_weights(self, taker: str, giver: GroupState) -> None:
        """The decision by which a stage starts from the best of several trials: once for each stage that does."""
        if all(decision.stage != taker for decision in self.decisions):
            found = self._board.decide(taker, [giver])
            assert found is not None, "its winner was just taken"
            self.decisions.append(found[0])

    def _place(self, group: GroupState, position: int, spec: TrialSpec) -> None:
        """Gives the trial its place in the group; a trial that another place has already runs once for both."""
        key, stage = spec.key, group.stage
        if key in group.trials:
            return
        settings = settings_of(spec, self._stages.watched[stage.name])
        resources = self._stages.resources(stage)
        estimate = self._speed.estimate(spec, resources)
        planned = PlannedTrial(
            key=key,
            spec=spec,
            stage=stage.name,
            group=group.id,
            group_values=group.values,
            settings=settings,
            name=trial_name(stage.name, group.id, settings, self._stages.named_by[stage.name]),
            position=position,
            needs=(spec.parent,) if spec.parent else (),
            resources=resources,
            keep_weights=self._stages.keeps_weights(stage, spec),
            seconds=estimate.seconds,
            measured=estimate.measured,
            remaining=estimate.seconds + self._rounds_left(group) * group.longest + group.tail,
        )
        self.placed.append(planned)
        group.trials[key] = planned
        trial = self._board.trials.get(key)
        if trial is None:
            trial = self._board.trials[key] = TrialEntry(planned, [group])
            for parent in planned.needs:
                self._board.children[parent].append(key)
        else:
            trial.groups.append(group)
            keep = trial.planned.keep_weights or planned.keep_weights
            remaining = max(trial.planned.remaining, planned.remaining)
            trial.planned = replace(trial.planned, keep_weights=keep, remaining=remaining)
            self._queue.remove(key)  # so that it takes its new place
        group.results += trial.known.state in RESULTS
        self._refresh([key, *planned.needs])

    def _rounds_left(self, group: GroupState) -> int:
        """Rounds of a search after the trial that is placed now; 0 where all of a group's trials can run at once."""
        done = math.ceil((len(group.trials) + 1) * group.rounds / max(1, group.expected))
        return max(0, group.rounds - done)

    # What is ready

    def _refresh(self, keys: Iterable[str]) -> None:
        """Brings the queue up to date with the state of these trials (keys of other jobs' trials are passed over)."""
        for key in keys:
            trial = self._board.trials.get(key)
            if trial is None:
                continue
            if trial.dispatched or (trial.in_flight and self.wanted(key)):
                self._out.add(key)
            else:
                self._out.discard(key)
            paused = any(self._errors.paused(group.stage.name) for group in trial.groups)
            if paused or not self._board.startable(trial):
                self._queue.remove(key)
            elif key not in self._queue:
                self._queue.put(trial.planned, trial.groups[0].number)
            if trial.known.state is TrialState.done and trial.known.weights is None:
                self._refresh(trial.planned.needs)  # whether it is wanted again decides whether they are
