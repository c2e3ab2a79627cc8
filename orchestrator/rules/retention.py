"""The only place that says which weights are kept and why: a trial without a reason here may lose its own. No I/O."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from orchestrator.records.recorded_spec import _searches, _stages, initial_weights, last_stages
from orchestrator.records.states import TrialState
from orchestrator.rules import selection

RESULTS = (TrialState.done, TrialState.diverged)
"""States in which a trial needs no initial weights any more; in every other one it may still (be made to) run."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What the rules look at."""

    key: str
    name: str
    parent: str | None
    state: TrialState
    weights: str | None
    """Path of its weights, as the store has it."""
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
    """A job that may still go on keeps what its later stages start from."""

    id: str
    done: bool
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class GroupCandidates:
    """The trials of a group that ended with figures, and the rule by which the best of them is found."""

    metric: str
    mode: str
    candidates: list[selection.Candidate]


@dataclass
class RetentionFacts:
    """What the store says, as of one moment."""

    trials: dict[str, Trial] = field(default_factory=dict)
    places: list[PlacedTrial] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    chosen: list[PlacedTrial] = field(default_factory=list)
    """Recorded decisions: the stage that took, the group, and the trial."""
    pins: dict[str, str] = field(default_factory=dict)
    """Key of a trial, or id of a job -> why."""
    rivals: dict[tuple[str, str, str], GroupCandidates] = field(default_factory=dict)
    """By job, stage and group: at least those groups of which a trial has weights."""


class Reason(NamedTuple):
    """Why weights are kept: `kind` is one of pinned, needed, unfinished, chosen, best, last."""

    kind: str
    text: str


def reasons(facts: RetentionFacts) -> dict[str, list[Reason]]:
    """Why each trial's weights are kept, strongest first; a trial that is not named has no claim to them.

    Pinned; needed by a trial that may still run; needed by a later stage of a job that is not done, or by a search
    that goes on; chosen by a stage; best of its group; last, as the end of its job.
    """
    found: dict[str, list[Reason]] = defaultdict(list)
    for rule in (_pinned, _needed, _unfinished, _chosen, _best, _last):
        for key, text in rule(facts):
            reason = Reason(rule.__name__[1:], text)
            if key in facts.trials and reason not in found[key]:
                found[key].append(reason)
    return dict(found)


def _pinned(facts: RetentionFacts) -> Iterator[tuple[str, str]]:
    def told(why: str) -> str:
        return f"pinned: {why}" if why else "pinned"

    for target, why in facts.pins.items():
        if target in facts.trials:
            yield target, told(why)
    for place in facts.places:
        if place.job in facts.pins:
            yield place.key, f"job {place.job} is {told(facts.pins[place.job])}"


def _needed(facts: RetentionFacts) -> Iterator[tuple[str, str]]:
    """Parents of trials that may run: and, where the parent has no weights itself and must run again, its parents."""
    for trial in facts.trials.values():
        made_again = trial.key in facts.pins and trial.state is TrialState.done and trial.weights is None
        if trial.state in RESULTS and not made_again:
            continue
        parent = facts.trials.get(trial.parent or "")
        while parent is not None:
            yield parent.key, f"{trial.state} {trial.name} starts from it"
            if parent.weights is not None:
                break
            parent = facts.trials.get(parent.parent or "")


def _unfinished(facts: RetentionFacts) -> Iterator[tuple[str, str]]:
    """Of jobs that are not done: what stages start from, and all trials of searches, which may go on from any."""
    held: dict[tuple[str, str], str] = {}
    for job in facts.jobs.values():
        if job.done:
            continue
        for init in initial_weights(job.spec):
            if init.get("kind") == "trial":
                yield str(init["trial"]), f"job {job.id} is not done and starts from it"
            elif not init.get("job"):
                held[job.id, str(init["stage"])] = f"job {job.id} is not done and starts from its stage"
        for stage in job.spec.get("stages", ()):
            if _searches(stage):
                held[job.id, stage["name"]] = f"the search of job {job.id} may go on from it"
    for place in facts.places:
        if (place.job, place.stage) in held:
            yield place.key, held[place.job, place.stage]


def _chosen(facts: RetentionFacts) -> Iterator[tuple[str, str]]:
    for place in facts.chosen:
        yield place.key, f"chosen by {place.stage} for {place.group} in job {place.job}"


def _best(facts: RetentionFacts) -> Iterator[tuple[str, str]]:
    for (job, stage, group), rivals in facts.rivals.items():
        body = _stages(facts.jobs[job].spec).get(stage, {}) if job in facts.jobs else {}
        winner = selection.best(rivals.candidates, rivals.metric, rivals.mode, body.get("ties", ()))
        if winner is not None and len(rivals.candidates) > 1:
            yield winner.key, f"best of {stage} {group} in job {job}"
        elif winner is not None:
            yield winner.key, f"only one of {stage} {group} in job {job}"


def _last(facts: RetentionFacts) -> Iterator[tuple[str, str]]:
    ends = {(job.id, stage) for job in facts.jobs.values() for stage in last_stages(job.spec)}
    for place in facts.places:
        if (place.job, place.stage) in ends and facts.trials[place.key].state is TrialState.done:
            yield place.key, f"the end of job {place.job}"


def tied_for_first(values: Mapping[str, float | None], mode: str) -> list[str]:
    """Keys with the best finite value: only for these does a tie rule need more than the value."""
    known = {key: value for key, value in values.items() if value is not None and math.isfinite(value)}
    if not known:
        return []
    top = (max if mode == "max" else min)(known.values())
    return [key for key, value in known.items() if value == top]
