"""Decides which trials' weights are kept, and why; those of a trial without a reason may be deleted. No I/O."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from orchestrator.records.recorded_spec import initial_weights, is_search, last_stages, replicates, stages_by_name
from orchestrator.records.states import TrialState
from orchestrator.rules import selection

RESULTS = (TrialState.done, TrialState.diverged)
"""Final states: the trial will not run again and needs no initial weights."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The part of a trial that the rules need."""

    key: str
    name: str
    parents: tuple[str, ...]
    """Keys of the trials whose weights it starts from or reads."""
    state: TrialState
    weights: str | None
    """The recorded path of its weights; None if they are not kept."""
    token: int
    ended: float | None


@dataclass(frozen=True, slots=True)
class PlacedTrial:
    """A trial's place in a job."""

    job: str
    stage: str
    group: str
    key: str


@dataclass(frozen=True)
class Job:
    """A job and its recorded spec. Until it is done it may still run trials."""

    id: str
    done: bool
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class GroupCandidates:
    """The trials of a group that ended with figures, and the metric by which the best of them is chosen."""

    metric: str
    mode: str
    candidates: list[selection.Candidate]


@dataclass
class RetentionFacts:
    """The state of the store at one moment."""

    trials: dict[str, Trial] = field(default_factory=dict)
    """By key."""
    places: list[PlacedTrial] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    """By id."""
    chosen: list[PlacedTrial] = field(default_factory=list)
    """Recorded choices: the stage that took the winner, the group, and the winner."""
    pins: dict[str, str] = field(default_factory=dict)
    """Key of a trial, or id of a job -> why it is pinned."""
    candidates: dict[tuple[str, str, str], GroupCandidates] = field(default_factory=dict)
    """By (job, stage, group): at least the groups in which a trial has weights."""


class Reason(NamedTuple):
    """A reason to keep weights; `kind` is one of pinned, needed, unfinished, chosen, best, last."""

    kind: str
    text: str


def reasons(facts: RetentionFacts) -> dict[str, list[Reason]]:
    """The reasons to keep each trial's weights (by key), strongest first; trials without a reason are left out.

    Pinned; needed by a trial that may still run; unfinished: needed by a later stage or a search of a job that is not
    done; chosen by a stage; best of its group; last: the end of its job.
    """
    by_key: dict[str, list[Reason]] = defaultdict(list)
    for rule in (_pinned, _needed, _unfinished, _chosen, _best, _last):
        for key, text in rule(facts):
            reason = Reason(rule.__name__[1:], text)
            if key in facts.trials and reason not in by_key[key]:
                by_key[key].append(reason)
    return dict(by_key)


def _pinned(facts: RetentionFacts) -> Iterator[tuple[str, str]]:
    def text(why: str) -> str:
        return f"pinned: {why}" if why else "pinned"

    for target, why in facts.pins.items():
        if target in facts.trials:
            yield target, text(why)
    for place in facts.places:
        if place.job in facts.pins:
            yield place.key, f"job {place.job} is {text(facts.pins[place.job])}"


def _needed(facts: RetentionFacts) -> Iterator[tuple[str, str]]:
    """The parents of trials that may run; if a parent has no weights and must itself run again, its parents too."""
    for trial in facts.trials.values():
        runs_again = trial.key in facts.pins and trial.state is TrialState.done and trial.weights is None
        if trial.state in RESULTS and not runs_again:
            continue
        waiting, visited = list(trial.parents), set[str]()
        while waiting:
            parent = facts.trials.get(waiting.pop())
            if parent is None or parent.key in visited:
                continue
            visited.add(parent.key)
            yield parent.key, f"{trial.state} {trial.name} starts from it"
            if parent.weights is None:
                waiting += parent.parents


def _unfinished(facts: RetentionFacts) -> Iterator[tuple[str, str]]:
    """For jobs that are not done: the trials that stages start from, and all trials of searches."""
    by_stage: dict[tuple[str, str], str] = {}
    for job in facts.jobs.values():
        if job.done:
            continue
        for init in initial_weights(job.spec):
            if init.get("kind") == "trial":
                for key in init.get("replicates") or [init["trial"]]:
                    yield str(key), f"job {job.id} is not done and starts from it"
            elif not init.get("job"):
                by_stage[job.id, str(init["stage"])] = f"job {job.id} is not done and starts from its stage"
        for stage in job.spec.get("stages", ()):
            if is_search(stage):
                by_stage[job.id, stage["name"]] = f"the search of job {job.id} may continue from it"
    for place in facts.places:
        if (place.job, place.stage) in by_stage:
            yield place.key, by_stage[place.job, place.stage]


def _chosen(facts: RetentionFacts) -> Iterator[tuple[str, str]]:
    for place in facts.chosen:
        yield place.key, f"chosen by {place.stage} for {place.group} in job {place.job}"


def _best(facts: RetentionFacts) -> Iterator[tuple[str, str]]:
    for (job, stage, group), of_group in facts.candidates.items():
        body = stages_by_name(facts.jobs[job].spec).get(stage, {}) if job in facts.jobs else {}
        count = replicates(body)
        settings = selection.compared(((stage, each) for each in of_group.candidates), [stage] if count else [])
        whole = [each for each in settings if not count or len(selection.trials_of(each)) == count]
        kind = "best" if len(settings) > 1 else "only one"
        for some in (settings, whole):  # until all seeds of a setting have ended, its mean is that of some of them
            winner = selection.best(some, of_group.metric, of_group.mode, body.get("ties", ()))
            for each in selection.trials_of(winner) if winner else ():
                yield each.key, f"{kind} of {stage} {group} in job {job}"


def _last(facts: RetentionFacts) -> Iterator[tuple[str, str]]:
    ends = {(job.id, stage) for job in facts.jobs.values() for stage in last_stages(job.spec)}
    for place in facts.places:
        if (place.job, place.stage) in ends and facts.trials[place.key].state is TrialState.done:
            yield place.key, f"the end of job {place.job}"


def tied_for_first(values: Mapping[str, float | None], mode: str) -> list[str]:
    """The keys with the best finite value. A tie rule needs the other figures of these trials only."""
    known = {key: value for key, value in values.items() if value is not None and math.isfinite(value)}
    if not known:
        return []
    top = (max if mode == "max" else min)(known.values())
    return [key for key, value in known.items() if value == top]
