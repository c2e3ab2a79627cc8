"""The only place that finds the trial behind `{kind: stage, job: ...}`: the best of a stage of another job.

The rule: the newest job of that name (or the one whose id begins so); its stage, complete; the stage's group; in it the
winner by the stage's own rule. What was found is recorded with the job that asked. The same spec, submitted again,
starts from the same trial, whatever the other job or a newer one of its name has come to since.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import NotFound, OrchestratorError, SpecError
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.recorded_spec import initial_weights, is_part, trains_on
from orchestrator.records.rows import PlacedRow, ResolvedWeightsRow
from orchestrator.records.states import JobState, TrialSnapshot, TrialState
from orchestrator.rules import selection
from orchestrator.rules.retention import RESULTS
from orchestrator.rules.selection import barred_trials
from orchestrator.settings import Settings
from orchestrator.spec.job import JobSpec
from orchestrator.store.store import Store, open_store
from tasks.spelling import nearest
from workers.trial import TrialSpec

ASSUMED = "not known yet: "
"""Begins the key that `plan` puts where the other job has no weights so far; the reason follows."""
LISTED = 5


def resolve_weights(job: JobSpec, store: Store, say: Callable[[str], None]) -> tuple[JobSpec, list[ResolvedWeightsRow]]:
    """The job with every other job's stage replaced by the trial whose weights it means; and what was found.

    The id of a job is made from what this returns: from the trials, not from the names that led to them. Raises
    NotFound, naming what is missing, when there is no such job, stage or group, when it is not complete, or when the
    weights were not kept.
    """
    asked = elsewhere(job)
    if not asked:
        return job, []
    written = hashlib.sha256(_text(job.model_dump(mode="json", by_alias=True)).encode()).hexdigest()
    before = store.lineage.origins(written)
    found: dict[str, ResolvedWeightsRow] = {}
    for text, init in asked.items():
        if text in before:
            found[text] = before[text]
            _say_what_changed(store, init, before[text], say)
        else:
            found[text] = find(store, init, written)
    return _replaced(job, lambda init: found[_key(init)].key), list(found.values())


def assume_weights(job: JobSpec, where: Settings) -> JobSpec:
    """As `resolve`, for an estimate: what cannot be found is taken to be there once the job is submitted."""
    if not elsewhere(job):
        return job
    try:
        store = open_store(where.database_url, create=False)
    except NotFound as error:
        reason = str(error)
        return _replaced(job, lambda init: f"{ASSUMED}{_what(init)}: {reason}")
    try:
        return _replaced(job, lambda init: _or_assumed(store, init))
    finally:
        store.close()


def _or_assumed(store: Store, init: Mapping[str, Any]) -> str:
    try:
        return find(store, init).key
    except NotFound as error:
        return f"{ASSUMED}{error}"


def assumptions(job: JobSpec) -> list[str]:
    """A line for each of them."""
    keys = (str(init["trial"]) for init in initial_weights(job.model_dump(mode="json")) if init["kind"] == "trial")
    return [f"taken for known: {key.removeprefix(ASSUMED)}" for key in dict.fromkeys(keys) if key.startswith(ASSUMED)]


def assumed_snapshots(keys: Iterable[str]) -> dict[str, TrialSnapshot]:
    """What an estimate takes for known of the trials that `assume` made up."""
    there = TrialSnapshot(TrialState.done, weights=("assumed", ""))
    return {key: there for key in keys if key.startswith(ASSUMED)}


def find(store: Store, init: Mapping[str, Any], written: str = "") -> ResolvedWeightsRow:
    """The trial that `init` means as things are now. Raises NotFound."""
    what = _what(init)
    try:
        job_id = store.jobs.find(init["job"])
    except NotFound as error:
        raise NotFound(f"{what}: {error}; submit that job first") from error
    spec = store.jobs.spec(job_id)
    stages = {stage["name"]: stage for stage in spec["stages"]}
    stage = init["stage"]
    if stage not in stages:
        raise NotFound(f"{what}: job {job_id} has no such stage; {_offer(stage, list(stages))}")
    groups: dict[str, list[PlacedRow]] = {}
    for row in store.trials.placed(job_id, stage):
        groups.setdefault(row.group, []).append(row)
    group = _group(what, job_id, init.get("group"), groups)
    barred = barred_trials(store.search_log.events(job_id))
    rows = [row for row in groups[group] if (stage, group, row.key) not in barred]
    _refuse_unfinished(store, what, job_id, spec, stage, group, rows)
    winner, candidates = _winner(store, stages[stage], rows)
    if winner is None:
        raise NotFound(f"{what}: no trial of {stage} {group} in job {job_id} ended with a figure that can be compared")
    if store.trials.snapshots([winner.key])[winner.key].weights is None:
        raise NotFound(_without_weights(what, winner, job_id))
    value = math.nan if winner.value is None else winner.value
    return ResolvedWeightsRow(_key(init), written, job_id, stage, group, winner.key, winner.metric, value, candidates)


def _group(what: str, job_id: str, asked: str | None, groups: Mapping[str, Any]) -> str:
    if not groups:
        raise NotFound(f"{what}: none of its trials is placed yet; submit job {job_id} again and let it come so far")
    if asked is None and len(groups) > 1:
        raise NotFound(f"{what}: it has {len(groups)} groups; name one of them with `group`: {', '.join(groups)}")
    if asked is not None and asked not in groups:
        raise NotFound(f"{what}: job {job_id} has no such group there; {_offer(asked, list(groups))}")
    return asked or next(iter(groups))


def _refuse_unfinished(
    store: Store, what: str, job_id: str, spec: Mapping[str, Any], stage: str, group: str, rows: list[PlacedRow]
) -> None:
    """Raises NotFound if a trial of the group has no result, or is not placed yet.

    `rows`: without trials that this group's own search ended early; one that another job's search stopped is missing
    here like any other.
    """
    open_ = [row for row in rows if row.state not in RESULTS]
    state = store.jobs.get(job_id).state
    again = f"job {job_id} is {state}" + ("" if state is JobState.running else "; submit or retry it first")
    if open_:
        told = ", ".join(f"{row.name} ({row.state})" for row in open_[:LISTED])
        more = f" and {len(open_) - LISTED} more" if len(open_) > LISTED else ""
        raise NotFound(f"{what}: {len(open_)} of its {len(rows)} trials have no result: {told}{more}; {again}")
    decided = any(winner.group == group and stage in winner.sources for winner in store.choices.of(job_id))
    if state is not JobState.done and not decided and _to_come(spec, stage, group, len(rows)):
        raise NotFound(f"{what}: not all of its trials are placed yet; {again}")


def _to_come(spec: Mapping[str, Any], stage: str, group: str, placed: int) -> bool:
    """Whether trials of the group may not be placed yet. Those around or of a winner are placed together; those of a
    sweep as soon as their initial weights are known; a search is over when its job is, or a stage took its winner."""
    body = next(each for each in spec["stages"] if each["name"] == stage)
    if body.get("from") and not any(initial_weights([body["override"], body["sweep"]])):
        return False
    try:
        planner = Planner(JobSpec.model_validate(spec), DurationModel())
    except (ValidationError, OrchestratorError):
        return True  # recorded by another version, which this one cannot tell
    expected = [each.expected for each in planner.progress() if (each.stage, each.group) == (stage, group)]
    return "search" in body["sweep"] or expected != [placed]


def _winner(store: Store, stage: Mapping[str, Any], rows: list[PlacedRow]) -> tuple[PlacedRow | None, int]:
    """The best trial by the stage's rule, and of how many; the only one of a group is it as long as it is done."""
    if not rows:
        return None, 0
    figures = store.trials.figures(row.key for row in rows if row.state is TrialState.done)
    whole = {row.key: row for row in rows if not _is_part(store, stage, row)}
    if len(whole) == 1:
        (only,) = whole.values()
        return (only if only.state is TrialState.done else None), 1
    candidates = [selection.Candidate(key, figures.get(key, {}), row.settings) for key, row in whole.items()]
    best = selection.best(candidates, rows[0].metric, rows[0].mode, stage["ties"])
    return (whole[best.key] if best else None), len(candidates)


def _is_part(store: Store, stage: Mapping[str, Any], row: PlacedRow) -> bool:
    """True if the trial trained only a part of a member's schedule (population-based training)."""
    return trains_on(stage) and is_part(store.trials.get(row.key).spec)


def _without_weights(what: str, winner: PlacedRow, job_id: str) -> str:
    return (
        f"{what}: its best trial is {winner.name} ({winner.key[:12]}), whose weights were not kept or have been "
        f"removed. To make them: python -m orchestrator pin {winner.key[:12]}, and submit job {job_id} again "
        "(it runs that trial once more and keeps its figures)"
    )


def _say_what_changed(
    store: Store, init: Mapping[str, Any], before: ResolvedWeightsRow, say: Callable[[str], None]
) -> None:
    """A recorded origin stands; whether the words would lead elsewhere by now is said."""
    try:
        now = find(store, init)
    except OrchestratorError:
        return
    if now.key != before.key:
        say(
            f"{_what(init)}: trial {before.key[:12]} of job {before.from_job}, as when this spec was first submitted; "
            f"by now the words mean trial {now.key[:12]} of job {now.from_job}: to start from that, write job: "
            f"{now.from_job}"
        )


# What they have seen


def check_test_data_unseen(store: Store, origins: Iterable[ResolvedWeightsRow], specs: Iterable[TrialSpec]) -> None:
    """Raises SpecError when another job's trial, or one that it started from in turn, opened images that may be test
    images of these trials; check.py refuses the same within a job."""
    wanted = {item for spec in specs if spec.task.reads_test for item in spec.task.opens.items()}
    for origin in origins:
        waiting, visited = [origin.key], set[str]()
        while waiting:
            key = waiting.pop()
            if key in visited:
                continue
            visited.add(key)
            try:
                seen = TrialSpec.model_validate(store.trials.get(key).spec)
            except (NotFound, ValidationError):  # forgotten, or of an older form of spec
                continue
            for name, rule in sorted(wanted):
                if seen.task.opens.get(name, rule) != rule:
                    raise SpecError([
                        f"initial weights from trial {origin.key[:12]} of job {origin.from_job}: trial {key[:12]} "
                        f"opened images of {name} by task.{seen.task.opens[name]}, and test images are chosen here by "
                        f"task.{rule}, which may be some of them: let both have the same, or leave {name} out of one"
                    ])  # fmt: skip
            waiting += seen.parents


# In a spec


def elsewhere(job: JobSpec) -> dict[str, dict[str, Any]]:
    """Every other job's stage that the spec names anywhere, once; none when nothing is to be looked up."""
    inits = _inits([job.trial, [stage.model_dump(mode="json", by_alias=True) for stage in job.stages]])
    return {_key(init): init for init in inits}


def _inits(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, Mapping):
        if value.get("kind") == "stage" and value.get("job") is not None and "stage" in value:
            yield dict(value)
        for below in value.values():
            yield from _inits(below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _inits(below)


def _replaced(job: JobSpec, key_of: Callable[[Mapping[str, Any]], str]) -> JobSpec:
    def walk(value: Any) -> Any:
        if isinstance(value, Mapping):
            if value.get("kind") == "stage" and value.get("job") is not None and "stage" in value:
                return {"kind": "trial", "name": value["name"], "trial": key_of(value)}
            return {name: walk(below) for name, below in value.items()}
        return [walk(below) for below in value] if isinstance(value, list | tuple) else value

    content = job.model_dump(mode="json", by_alias=True)
    return JobSpec.model_validate({**content, "trial": walk(content["trial"]), "stages": walk(content["stages"])})


def _key(init: Mapping[str, Any]) -> str:
    return _text([init["job"], init["stage"], init.get("group")])


def _text(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _what(init: Mapping[str, Any]) -> str:
    group = f", group {init['group']}" if init.get("group") else ""
    return f"initial weights {init['name']} (job {init['job']}, stage {init['stage']}{group})"


def _offer(name: str, known: list[str]) -> str:
    near = nearest(name, known)
    return f"did you mean {near[0]}? " * bool(near) + f"there are: {', '.join(known)}"
