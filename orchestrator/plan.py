"""The only place that decides which trials may run now, in what order, and when a group has its winner. No I/O."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator import choice
from orchestrator.errors import SpecError
from orchestrator.job import JobSpec, Stage
from orchestrator.known import Known, TrialState
from orchestrator.speed import Speed
from orchestrator.trials import (
    Draft,
    Planned,
    Stages,
    each_group,
    expand,
    neighbours,
    settings_of,
    source_of_weights,
    started_from,
    successors,
    trial_name,
)
from workers.trial import TrialSpec

PAUSE_AFTER = 3
"""The same error in so many trials of a stage is the code's, not the trial's: the stage pauses."""

PENDING = Known(TrialState.pending)
RESULTS = (TrialState.done, TrialState.diverged)
RETRIABLE = (TrialState.failed, TrialState.cancelled)


@dataclass(frozen=True)
class Decision:
    """Which trial a stage takes from a group, and by what rule."""

    stage: str
    """The stage that takes."""
    group: str
    key: str
    value: float
    metric: str
    edges: list[str]
    rule: dict[str, Any]
    """metric, mode, ties, last; and of a neighbourhood: its fields and what was left out."""
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
    best: float | None
    seconds_left: float
    """Estimated work of the trials that have not ended, the forecast ones included."""


@dataclass
class _Group:
    """A group of a stage: its trials once they are known."""

    stage: Stage
    id: str
    values: dict[str, Any]
    number: int
    expected: int
    longest: float
    """Estimated seconds of its longest trial."""
    tail: float = 0.0
    """Estimated seconds of the longest chain that follows from its last trial."""
    drafts: list[Draft] | None = None
    """Trials that wait for the winner whose weights they start from; None: for the group's own winner."""
    trials: dict[str, Planned] = field(default_factory=dict)
    results: int = 0

    @property
    def placed(self) -> bool:
        return self.drafts is not None and not self.drafts

    @property
    def complete(self) -> bool:
        return self.placed and self.results == len(self.trials)


@dataclass
class _Trial:
    """What the planner holds of a trial, whatever places it has."""

    planned: Planned
    groups: list[_Group]
    known: Known = PENDING
    out: bool = False
    """Handed out, or run by another driver."""
    kept: bool = False
    """Was handed out with the order to keep its weights."""


class Planner:
    """A job in memory: told what is known of its trials, it says what may run, who won, and when it is over.

    Deterministic in the job and in what it was told, in whatever order: placing, decisions, and what is ready.
    """

    def __init__(self, job: JobSpec, speed: Speed) -> None:
        self.job = job
        self.placed: list[Planned] = []
        self.decisions: list[Decision] = []
        self._speed = speed
        self._stages = Stages(job)
        self._groups: dict[tuple[str, str], _Group] = {}
        self._trials: dict[str, _Trial] = {}
        self._outside: dict[str, Known] = {}
        self._children: dict[str, list[str]] = defaultdict(list)
        self._ready: set[str] = set()
        self._held: set[str] = set()
        self._out: set[str] = set()
        self._followers: dict[str, set[str]] = defaultdict(set)
        self._heaps: dict[str, list[tuple[float, int, int, int, str]]] = defaultdict(list)
        self._errors: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._make_groups()
        self._estimate_tails()
        for group in list(self._groups.values()):
            self._place_drafts(group)
        self._settle(list(self._groups.values()))

    # What the engine tells and asks

    def learn(self, key: str, known: Known) -> tuple[list[Planned], list[Decision]]:
        """Takes what is known of a trial; returns what was placed and decided by it.

        Telling the same again changes nothing. `pending` takes back a failure (a retry) but not a trial that this
        planner has handed out: that is what `give_back` is for. A key of another job is kept: trials may start
        from its weights.
        """
        places, decisions = len(self.placed), len(self.decisions)
        trial = self._trials.get(key)
        if trial is None:
            self._outside[key] = known
            self._refresh(self._children[key])
            return [], []
        if known.state is TrialState.pending and trial.out:
            return [], []
        before, trial.known = trial.known, known
        trial.out = known.state is TrialState.running
        self._count_errors(trial, before)
        self._refresh([key, *self._children[key], *trial.planned.needs])
        change = (known.state in RESULTS) - (before.state in RESULTS)
        for group in trial.groups:
            group.results += change
        if change:
            self._settle(list(trial.groups))
        return self.placed[places:], self.decisions[decisions:]

    def next(self, fits: Callable[[Planned], bool]) -> Planned | None:
        """The ready trial with the longest chain before it among those that fit; it counts as handed out from now.

        `fits` is asked once for each kind of resources in the queue: its answer may depend on nothing else.
        """
        heads = [heap for heap in self._heaps.values() if self._clean(heap)]
        for heap in sorted(heads, key=lambda heap: heap[0]):
            trial = self._trials[heap[0][-1]]
            if fits(trial.planned):
                heapq.heappop(heap)
                trial.out, trial.kept = True, trial.planned.keep_weights
                self._refresh([trial.planned.key, *trial.planned.needs])
                return trial.planned
        return None

    def give_back(self, key: str) -> None:
        """A trial that was handed out did not end (released, or its node was lost): it is ready again."""
        trial = self._trials[key]
        trial.out = trial.kept = False
        if trial.known.state is TrialState.running:
            trial.known = replace(trial.known, state=TrialState.pending)
        self._refresh([key, *trial.planned.needs])

    def ready(self) -> int:
        """Trials that could start now, were there room."""
        return len(self._ready)

    def outside(self) -> list[str]:
        """Keys of trials of other jobs whose weights are needed: the engine must `learn` them."""
        return sorted(key for key in self._children if key not in self._trials)

    def finished(self) -> bool:
        """Nothing runs and nothing can be started: the job is done, or `incomplete` says why not."""
        return not self._ready and not self._out

    def paused(self) -> list[str]:
        """A line for each stage of which no trial is handed out, because the same error came up again and again."""
        lines = []
        for stage, errors in self._errors.items():
            for message, keys in errors.items():
                if len(keys) >= PAUSE_AFTER:
                    lines.append(
                        f"stage {stage} is paused: {len(keys)} of its trials failed with the same error: {message}; "
                        f"correct it, then retry {self.job.name}"
                    )
        return lines

    def incomplete(self) -> list[str]:
        """Why groups have no winner or no result, a line each; empty when nothing went wrong so far."""
        reasons = ((group, self._reason(group)) for group in self._groups.values())
        return [f"{group.stage.name} {group.id}: {reason}" for group, reason in reasons if reason] + self.paused()

    def progress(self) -> list[Progress]:
        """Counts per stage and group, in the order of the spec."""
        return [self._progress(group) for group in self._groups.values()]

    # Groups and estimates

    def _make_groups(self) -> None:
        """All groups of all stages; those of stages with `from` still without trials."""
        stand_ins: dict[tuple[str, str], TrialSpec] = {}
        for stage in self.job.stages:
            if stage.from_:
                sources: dict[str, _Group] = {}
                for group in (group for name in stage.from_ for group in self._of(name)):
                    sources.setdefault(group.id, group)
                for source in sources.values():
                    stand_ins[stage.name, source.id] = self._forecast(
                        stage, source, stand_ins[source.stage.name, source.id]
                    )
                continue
            drafts = expand(self.job, stage)
            self._note_givers(stage, [draft.spec for draft in drafts])
            for identity, values, members in each_group(drafts, stage.per):
                longest = max(self._seconds(draft.spec, stage) for draft in members)
                number = len(self._groups)
                self._groups[stage.name, identity] = _Group(
                    stage, identity, values, number, len(members), longest, drafts=members
                )
                stand_ins[stage.name, identity] = members[0].spec
        for (name, _), spec in stand_ins.items():
            if spec.task.reads_test and not self._stages.may_test(self._stages.by_name[name]):
                raise SpecError([f"stage {name}: asks for test data, but another stage starts from it"])

    def _forecast(self, stage: Stage, source: _Group, winner: TrialSpec) -> TrialSpec:
        """A group that waits for a winner, as it would be with the first trial of its source as the winner."""
        specs = successors(winner, stage, may_test=stage.neighbourhood is None)
        if stage.neighbourhood:
            specs = neighbours(specs[0], stage.neighbourhood, winner)[0] or specs
        self._note_givers(stage, specs)
        longest = max(self._seconds(spec, stage) for spec in specs)
        group = _Group(stage, source.id, source.values, len(self._groups), len(specs), longest)
        self._groups[stage.name, source.id] = group
        return specs[0]

    def _note_givers(self, stage: Stage, specs: list[TrialSpec]) -> None:
        """Notes and checks the stages from whose weights trials of `stage` start."""
        for name in dict.fromkeys(source_of_weights(spec) for spec in specs):
            if name is None:
                continue
            groups = self._of(name)
            if len(groups) != 1:
                problem = "it has several groups" if groups else "there is no such stage before this one"
                raise SpecError([f"stage {stage.name}: initial weights from stage {name!r}: {problem}"])
            self._stages.givers.add(name)
            self._followers[name].add(stage.name)

    def _of(self, stage: str) -> list[_Group]:
        return [group for (name, _), group in self._groups.items() if name == stage]

    def _estimate_tails(self) -> None:
        """From the last stage back: what follows from a group's winner, and from a stage's weights."""
        for group in reversed(self._groups.values()):
            followers = [self._groups[taker.name, group.id] for taker in self._stages.takers[group.stage.name]]
            followers += [other for name in self._followers[group.stage.name] for other in self._of(name)]
            group.tail = max((other.longest + other.tail for other in followers), default=0.0)

    def _seconds(self, spec: TrialSpec, stage: Stage) -> float:
        return self._speed.estimate(spec, self._stages.resources(stage)).seconds

    # Placing and deciding

    def _settle(self, changed: list[_Group]) -> None:
        """Draws the consequences of groups that changed, until there are none: winners taken, trials placed."""
        while changed:
            group = changed.pop(0)
            if group.complete:
                for taker in self._stages.takers[group.stage.name]:
                    changed += self._take(taker, self._groups[taker.name, group.id])
            if group.placed and group.stage.name in self._stages.givers and self._weights_of(group):
                for name in self._followers[group.stage.name]:
                    changed += [other for other in self._of(name) if self._place_drafts(other)]

    def _take(self, taker: Stage, group: _Group) -> list[_Group]:
        """Fills `group` from its sources' winner, once all of them are complete; the groups that changed."""
        sources = [self._groups[name, group.id] for name in taker.from_ if (name, group.id) in self._groups]
        if group.drafts is not None or not all(source.complete for source in sources):
            return []
        found = self._choose(taker.name, sources)
        if found is None:
            return []
        decision, winner = found[0], found[1].spec
        specs = successors(winner, taker, self._stages.may_test(taker))
        if taker.neighbourhood:
            specs, left_out = neighbours(specs[0], taker.neighbourhood, winner)
            decision.rule["neighbourhood"] = taker.neighbourhood.model_dump(mode="json")
            decision.rule["left_out"] = left_out
        self.decisions.append(decision)
        group.drafts = [Draft(position, spec) for position, spec in enumerate(specs)]
        group.expected = len(specs)
        self._place_drafts(group)
        return [group]

    def _choose(self, taker: str, sources: list[_Group]) -> tuple[Decision, Planned] | None:
        """The winner over all trials of `sources`; None when no trial has a finite metric."""
        trials = {key: planned for source in sources for key, planned in source.trials.items()}
        if not trials:
            return None
        task = next(iter(trials.values())).spec.task
        ties = self._stages.ties(sources[0].stage.name)
        winner = choice.best(
            (choice.Candidate(key, self._figures(key), planned.settings) for key, planned in trials.items()),
            task.metric,
            task.mode,
            ties,
        )
        if winner is None:
            return None
        grids = dict.fromkeys(name for source in sources for name in self._stages.sweeps(source.stage))
        swept = [trial.settings for name in grids for trial in self._groups[name, sources[0].id].trials.values()]
        axes = dict.fromkeys(path for name in grids for path in self._stages.axes(self._stages.by_name[name]))
        decision = Decision(
            stage=taker,
            group=sources[0].id,
            key=winner.key,
            value=winner.figures[task.metric],
            metric=task.metric,
            edges=choice.edges(winner.settings, choice.axis_values(swept, axes)),
            rule={"metric": task.metric, "mode": task.mode, "ties": list(ties), "last": "key"},
            candidates=len(trials),
            sources=[source.stage.name for source in sources],
        )
        return decision, trials[winner.key]

    def _figures(self, key: str) -> dict[str, float]:
        known = self._trials[key].known
        return dict(known.figures) if known.state is TrialState.done else {}

    def _weights_of(self, group: _Group) -> str | None:
        """Key of the trial that a stage's weights come from: its only one, or its winner once all have ended."""
        if len(group.trials) == 1:
            return next(iter(group.trials))
        found = self._choose(group.stage.name, [group]) if group.complete else None
        return found[1].key if found else None

    def _place_drafts(self, group: _Group) -> bool:
        """Places those trials of the group whose initial weights are known by now; whether there were any."""
        left = []
        for draft in group.drafts or []:
            source = source_of_weights(draft.spec)
            if source is None:
                self._place(group, draft.position, draft.spec)
                continue
            giver = self._of(source)[0]
            key = self._weights_of(giver) if giver.placed else None
            if key is None:
                left.append(draft)
                continue
            if len(giver.trials) > 1:
                self._record_weights(group.stage.name, giver)
            self._place(group, draft.position, started_from(draft.spec, key))
        placed = len(left) < len(group.drafts or [])
        group.drafts = left if group.drafts is not None else None
        return placed

    def _record_weights(self, taker: str, giver: _Group) -> None:
        """The decision by which a stage starts from the best of several trials: once per stage that does."""
        if any(d.stage == taker and d.sources == [giver.stage.name] for d in self.decisions):
            return
        found = self._choose(taker, [giver])
        assert found is not None
        self.decisions.append(found[0])

    def _place(self, group: _Group, position: int, spec: TrialSpec) -> None:
        """Gives the trial its place in the group; a trial that another place has already runs once for both."""
        key, stage = spec.key, group.stage
        if key in group.trials:
            return
        settings = settings_of(spec, self._stages.watched(stage))
        resources = self._stages.resources(stage)
        estimate = self._speed.estimate(spec, resources)
        planned = Planned(
            key=key,
            spec=spec,
            stage=stage.name,
            group=group.id,
            group_values=group.values,
            settings=settings,
            name=trial_name(stage.name, group.id, settings, self._stages.told_apart_by(stage)),
            position=position,
            needs=(spec.parent,) if spec.parent else (),
            resources=resources,
            keep_weights=self._stages.keeps_weights(stage),
            seconds=estimate.seconds,
            measured=estimate.measured,
            remaining=estimate.seconds + group.tail,
        )
        self.placed.append(planned)
        group.trials[key] = planned
        trial = self._trials.get(key)
        if trial is None:
            trial = self._trials[key] = _Trial(planned, [group])
            for parent in planned.needs:
                self._children[parent].append(key)
        else:
            trial.groups.append(group)
            keep = trial.planned.keep_weights or planned.keep_weights
            remaining = max(trial.planned.remaining, planned.remaining)
            trial.planned = replace(trial.planned, keep_weights=keep, remaining=remaining)
            self._ready.discard(key)  # so that it enters the queue at its new place
        group.results += trial.known.state in RESULTS
        self._refresh([key, *planned.needs])

    # What is ready

    def _refresh(self, keys: Iterable[str]) -> None:
        """Brings the queue up to date with the state of these trials."""
        for key in keys:
            trial = self._trials.get(key)
            if trial is None:
                continue
            startable = not trial.out and self._startable(trial)
            held = startable and any(self._is_paused(group.stage.name) for group in trial.groups)
            _put(self._out, key, trial.out)
            _put(self._held, key, held)
            if startable and not held and key not in self._ready:
                group, planned = trial.groups[0], trial.planned
                entry = (-planned.remaining, self._stages.order[planned.stage], group.number, planned.position, key)
                heapq.heappush(self._heaps[planned.resources.model_dump_json()], entry)
            _put(self._ready, key, startable and not held)

    def _startable(self, trial: _Trial) -> bool:
        """Pending with its parents' weights there; or done, and its weights, needed by a child, were not kept."""
        if trial.known.state is TrialState.pending:
            return all(self._gives_weights(parent) for parent in trial.planned.needs)
        if trial.known.state is not TrialState.done or trial.known.weights or trial.kept:
            return False
        children = (self._trials[key] for key in self._children.get(trial.planned.key, ()))
        return any(child.known.state is TrialState.pending and not child.out for child in children)

    def _gives_weights(self, key: str) -> bool:
        known = self._known(key)
        return known is not None and known.state is TrialState.done and known.weights is not None

    def _known(self, key: str) -> Known | None:
        return self._trials[key].known if key in self._trials else self._outside.get(key)

    def _clean(self, heap: list[tuple[float, int, int, int, str]]) -> bool:
        """Drops entries of trials that are no longer ready; whether any entry is left."""
        while heap and heap[0][-1] not in self._ready:
            heapq.heappop(heap)
        return bool(heap)

    # What went wrong

    def _count_errors(self, trial: _Trial, before: Known) -> None:
        """Keeps the count of equal code errors per stage; a stage that pauses or goes on moves its trials."""
        for known, count in ((before, False), (trial.known, True)):
            message = _code_error(known)
            if message is None:
                continue
            for stage in {group.stage.name for group in trial.groups}:
                paused = self._is_paused(stage)
                _put(self._errors[stage][message], trial.planned.key, count)
                if paused != self._is_paused(stage):
                    self._refresh([key for group in self._of(stage) for key in group.trials])

    def _is_paused(self, stage: str) -> bool:
        return any(len(keys) >= PAUSE_AFTER for keys in self._errors.get(stage, {}).values())

    def _reason(self, group: _Group) -> str | None:
        """Why the group will have no winner as things stand, or None."""
        retry = f"retry {self.job.name}"
        failed = [key for key in group.trials if self._trials[key].known.state in RETRIABLE]
        if failed:
            known = self._trials[failed[0]].known
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            cause = _first_line(known.error) or known.error_class or "no cause recorded"
            return f"trial {self._title(failed[0])} {known.state}{more}: {cause}; to run it again: {retry}"
        for key in group.trials:
            if blocked := self._blocked(key):
                return f"trial {self._title(key)} is blocked: {blocked}"
        for draft in group.drafts or []:
            giver = self._of(source_of_weights(draft.spec) or "")[0]
            if self._reason(giver):
                return f"blocked: stage {giver.stage.name} gives no weights"
        taken = any(group.stage.name in d.sources and group.id == d.group for d in self.decisions)
        if group.complete and group.trials and not taken and not self._has_figure(group):
            return "no trial ended with a finite metric (all diverged), so there is no winner: change its settings"
        return None

    def _blocked(self, key: str) -> str | None:
        """Why a pending trial cannot start for want of its parent's weights, or None."""
        trial = self._trials[key]
        if trial.known.state is not TrialState.pending:
            return None
        for parent in trial.planned.needs:
            known = self._known(parent)
            if known is None or parent not in self._trials:
                if known is None or not self._gives_weights(parent):
                    return f"it starts from trial {parent[:8]}, which is not of this job and has no weights"
                continue
            if known.state in (*RETRIABLE, TrialState.diverged):
                return f"it starts from trial {self._title(parent)}, which {_ended(known.state)}"
            if known.state is TrialState.done and not known.weights and self._trials[parent].kept:
                return f"it starts from trial {self._title(parent)}, which ended without the weights it was to keep"
            if cause := self._blocked(parent):
                return cause
        return None

    def _has_figure(self, group: _Group) -> bool:
        return self._choose(group.stage.name, [group]) is not None

    def _title(self, key: str) -> str:
        return f"{self._trials[key].planned.name} ({key[:8]})"

    def _progress(self, group: _Group) -> Progress:
        states = dict.fromkeys(TrialState, 0)
        left = (group.expected - len(group.trials)) * group.longest
        for key, planned in group.trials.items():
            trial = self._trials[key]
            state = TrialState.running if trial.out else trial.known.state
            states[state] += 1
            left += 0.0 if state.ended else planned.seconds
        found = self._choose(group.stage.name, [group])
        value = found[0].value if found else None
        return Progress(group.stage.name, group.id, group.values, group.expected, states, value, left)


def _put(keys: set[str], key: str, inside: bool) -> None:
    if inside:
        keys.add(key)
    else:
        keys.discard(key)


def _code_error(known: Known) -> str | None:
    """The first line of a failure in code, by which equal failures are known."""
    if known.state is TrialState.failed and known.error_class == "code":
        return _first_line(known.error)
    return None


def _first_line(text: str | None) -> str:
    return (text or "").strip().split("\n", 1)[0]


def _ended(state: TrialState) -> str:
    return "was cancelled" if state is TrialState.cancelled else str(state)
