"""Finds the trial behind `{kind: stage, job: ...}`: the winner of a stage of another job.

The reference means the newest job of that name (or the one whose id begins so), and in it the winner of the stage's
group by the stage's own rule; the group must be complete. The trial that was found is recorded with the job that asked.
The same spec, submitted again, starts from the same trial, even if the reference would now resolve to another one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import NotFound, OrchestratorError, SpecError
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.recorded_spec import initial_weights, is_part, replicates, trains_on
from orchestrator.records.rows import PlacedRow, ResolvedWeightsRow
from orchestrator.records.states import JobState, TrialSnapshot, TrialState
from orchestrator.rules import selection
from orchestrator.rules.retention import RESULTS
from orchestrator.rules.selection import barred_trials
from orchestrator.settings import Settings
from orchestrator.spec.diagnostics import offer
from orchestrator.spec.job import JobSpec
from orchestrator.spec.seeds import given_count
from orchestrator.store.store import Store, open_to_look
from tasks.bounds import MAX_LABEL
from workers.trial import TrialSpec

ASSUMED = "not known yet: "
"""Begins the key that `assume_weights` puts where the other job has no weights so far; the reason follows."""
LISTED = 5
"""Trials without a result that an error names."""

log = logging.getLogger(__name__)


def resolve_weights(job: JobSpec, store: Store) -> tuple[JobSpec, list[ResolvedWeightsRow]]:
    """Replaces every reference to a stage of another job by the trial it means; also returns what was found.

    The id of a job is computed from the returned spec: from the trials, not from the references. Raises NotFound,
    naming what is missing, if there is no such job, stage or group, if it is not complete, or if its weights were not
    kept.
    """
    references = references_to_other_jobs(job)
    if not references:
        return job, []
    written = hashlib.sha256(_text(job.model_dump(mode="json", by_alias=True)).encode()).hexdigest()
    recorded = store.lineage.origins(written)
    origins: dict[str, list[ResolvedWeightsRow]] = {}
    for text, init in references.items():
        if text in recorded:
            more = (_key(init, number) for number in itertools.count(1))
            origins[text] = [
                recorded[text],
                *(recorded[key] for key in itertools.takewhile(recorded.__contains__, more)),
            ]
            _log_if_changed(store, init, recorded[text])
        else:
            origins[text] = find_replicates(store, init, written) if _replicates(job) else [find(store, init, written)]
    resolved = _replaced(job, lambda init: [origin.key for origin in origins[_key(init)]])
    return resolved, [origin for rows in origins.values() for origin in rows]


def _replicates(job: JobSpec) -> bool:
    """True if the job has replicates, which start from those of another job; else its trials start from the first."""
    return any((given_count(stage) or 1) > 1 for stage in job.stages)


def assume_weights(job: JobSpec, where: Settings) -> JobSpec:
    """As `resolve_weights`, for an estimate: what cannot be found is assumed to exist once the job is submitted."""
    if not references_to_other_jobs(job):
        return job
    try:
        store = open_to_look(where)
    except NotFound as error:
        reason = str(error).splitlines()[0]
        return _replaced(job, lambda init: [_assumed(f"{_what(init)}: {reason}")])
    try:
        return _replaced(job, lambda init: _found_or_assumed(store, init, _replicates(job)))
    finally:
        store.close()


def assume_all(job: JobSpec) -> JobSpec:
    """As `assume_weights` where nothing is recorded: for checks that do not depend on what other jobs have."""
    return _replaced(job, lambda init: [_assumed(_what(init))]) if references_to_other_jobs(job) else job


def _found_or_assumed(store: Store, init: Mapping[str, Any], replicates: bool) -> list[str]:
    try:
        return [row.key for row in (find_replicates(store, init) if replicates else [find(store, init)])]
    except NotFound as error:
        return [_assumed(str(error))]


def _assumed(reason: str) -> str:
    """What stands for a key: the reason on one line, cut to what a label may have, and still its own."""
    text = ASSUMED + " ".join(reason.split())
    if len(text) <= MAX_LABEL:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{text[: MAX_LABEL - 15]} ... ({digest})"


def assumptions(job: JobSpec) -> list[str]:
    """A line on each assumption that `assume_weights` made in this job."""
    keys = (str(init["trial"]) for init in initial_weights(job.model_dump(mode="json")) if init["kind"] == "trial")
    return [f"assumed: {key.removeprefix(ASSUMED)}" for key in dict.fromkeys(keys) if key.startswith(ASSUMED)]


def assumed_snapshots(keys: Iterable[str]) -> dict[str, TrialSnapshot]:
    """Snapshots of those of these trials that `assume_weights` made up: done, with weights."""
    snapshot = TrialSnapshot(TrialState.done, weights=("assumed", ""))
    return {key: snapshot for key in keys if key.startswith(ASSUMED)}


def find(store: Store, init: Mapping[str, Any], written: str = "") -> ResolvedWeightsRow:
    """The trial that the reference `init` means at present; of a stage with replicates, the first. Raises NotFound.

    `written`: digest of the job that refers to it, for the row.
    """
    return _find(store, init, written, first_only=True)[0]


def find_replicates(store: Store, init: Mapping[str, Any], written: str = "") -> list[ResolvedWeightsRow]:
    """As `find`, with all replicates of the setting that the reference means, by seed."""
    return _find(store, init, written, first_only=False)


def _find(store: Store, init: Mapping[str, Any], written: str, first_only: bool) -> list[ResolvedWeightsRow]:
    what = _what(init)
    try:
        job_id = store.jobs.find(init["job"])
    except NotFound as error:
        raise NotFound(f"{what}: {error}; submit that job first") from error
    spec = store.jobs.spec(job_id)
    stages = {stage["name"]: stage for stage in spec["stages"]}
    stage = init["stage"]
    if stage not in stages:
        raise NotFound(f"{what}: job {job_id} has no such stage; {offer(stage, stages, 'its stages')}")
    groups: dict[str, list[PlacedRow]] = {}
    for row in store.trials.placed(job_id, stage):
        groups.setdefault(row.group, []).append(row)
    group = _group(what, job_id, init.get("group"), groups)
    barred = barred_trials(store.search_log.events(job_id))
    rows = [row for row in groups[group] if (stage, group, row.key) not in barred]
    _refuse_unfinished(store, what, job_id, spec, stage, group, rows)
    winners, candidates = _winner(store, stages[stage], rows)
    wanted = winners[:1] if first_only else winners
    if candidates > 1 and rows[0].metrics and rows[0].metrics[0].better == "neither":
        figure = rows[0].metric
        raise NotFound(f"{what}: has {candidates} settings, and no value of {figure} is better than another")
    if not wanted:
        raise NotFound(f"{what}: no trial of {stage} {group} in job {job_id} ended with a finite figure to compare")
    snapshots = store.trials.snapshots([row.key for row in wanted])
    found = []
    for number, row in enumerate(wanted):
        if row.state is not TrialState.done:
            raise NotFound(f"{what}: {row.name} ({row.key[:12]}) of job {job_id} diverged; choose other settings there")
        if snapshots[row.key].weights is None:
            raise NotFound(_without_weights(what, row, job_id))
        value = math.nan if row.value is None else row.value
        key = _key(init, number)
        found.append(ResolvedWeightsRow(key, written, job_id, stage, group, row.key, row.metric, value, candidates))
    return found


def _group(what: str, job_id: str, asked: str | None, groups: Mapping[str, Any]) -> str:
    if not groups:
        raise NotFound(f"{what}: none of its trials is placed yet; submit job {job_id} again and let it get there")
    if asked is None and len(groups) > 1:
        raise NotFound(f"{what}: it has {len(groups)} groups; name one of them with `group`: {', '.join(groups)}")
    if asked is not None and asked not in groups:
        raise NotFound(f"{what}: the stage has no such group in job {job_id}; {offer(asked, groups, 'its groups')}")
    return asked or next(iter(groups))


def _refuse_unfinished(
    store: Store, what: str, job_id: str, spec: Mapping[str, Any], stage: str, group: str, rows: list[PlacedRow]
) -> None:
    """Raises NotFound if a trial of the group has no result, or is not placed yet.

    `rows`: without trials that this group's own search ended early; one that another job's search stopped is missing
    here like any other.
    """
    unfinished = [row for row in rows if row.state not in RESULTS]
    state = store.jobs.get(job_id).state
    remedy = f"job {job_id} is {state}" + ("" if state is JobState.running else "; submit or retry it first")
    if unfinished:
        names = ", ".join(f"{row.name} ({row.state})" for row in unfinished[:LISTED])
        more = f" and {len(unfinished) - LISTED} more" if len(unfinished) > LISTED else ""
        raise NotFound(f"{what}: {len(unfinished)} of its {len(rows)} trials have no result: {names}{more}; {remedy}")
    decided = any(winner.group == group and stage in winner.sources for winner in store.choices.of(job_id))
    if state is not JobState.done and not decided and _more_to_place(spec, stage, group, len(rows)):
        raise NotFound(f"{what}: not all of its trials are placed yet; {remedy}")


def _more_to_place(spec: Mapping[str, Any], stage: str, group: str, placed: int) -> bool:
    """True if trials of the group may still be placed.

    Trials around a winner, or of one, are placed together; those of a sweep as soon as their initial weights are known.
    A search is over when its job is, or when a stage took its winner.
    """
    body = next(each for each in spec["stages"] if each["name"] == stage)
    if body.get("from") and not any(initial_weights([body["override"], body["sweep"]])):
        return False
    try:
        planner = Planner(JobSpec.model_validate(spec), DurationModel())
    except (ValidationError, OrchestratorError):
        return True  # recorded by another version, whose specs this one cannot plan
    expected = [each.expected for each in planner.progress() if (each.stage, each.group) == (stage, group)]
    return "search" in body["sweep"] or expected != [placed]


def _winner(store: Store, stage: Mapping[str, Any], rows: list[PlacedRow]) -> tuple[list[PlacedRow], int]:
    """The best trial by the stage's rule (with replicates, those of the best setting, by seed), and the number of
    candidates. A group's only trial wins if it is done; its only setting in any case."""
    if not rows:
        return [], 0
    figures = store.trials.figures(row.key for row in rows if row.state is TrialState.done)
    whole = {row.key: row for row in rows if not _is_part(store, stage, row)}
    if len(whole) == 1:
        (only,) = whole.values()
        return ([only] if only.state is TrialState.done else []), 1
    ended = (selection.Candidate(row.key, figures.get(row.key, {}), row.settings, row.seed) for row in whole.values())
    name = str(stage["name"])
    candidates = selection.compared(((name, each) for each in ended), [name] if replicates(stage) else [])
    best = selection.best(candidates, rows[0].metric, rows[0].mode, stage["ties"])
    if len(candidates) == 1:
        (best,) = candidates
    return [whole[each.key] for each in (selection.trials_of(best) if best else ())], len(candidates)


def _is_part(store: Store, stage: Mapping[str, Any], row: PlacedRow) -> bool:
    """True if the trial trained only a part of a member's schedule (population-based training)."""
    return trains_on(stage) and is_part(store.trials.get(row.key).spec)


def _without_weights(what: str, winner: PlacedRow, job_id: str) -> str:
    return (
        f"{what}: its best trial is {winner.name} ({winner.key[:12]}), whose weights were not kept or have been "
        f"removed. To make them: python -m orchestrator pin {winner.key[:12]}, and submit job {job_id} again "
        "(it runs that trial once more and keeps its figures)"
    )


def _log_if_changed(store: Store, init: Mapping[str, Any], recorded: ResolvedWeightsRow) -> None:
    """Keeps the recorded origin and reports if the same reference now resolves to another trial."""
    try:
        now = find(store, init)
    except OrchestratorError:
        return
    if now.key != recorded.key:
        log.info(
            "%s: trial %s of job %s, as when this spec was first submitted; the reference would now resolve to trial "
            "%s of job %s: to use that one, write job: %s",
            _what(init), recorded.key[:12], recorded.from_job, now.key[:12], now.from_job, now.from_job,
        )  # fmt: skip


def check_test_data_unseen(store: Store, origins: Iterable[ResolvedWeightsRow], specs: Iterable[TrialSpec]) -> None:
    """Raises SpecError if weights of other jobs come from a trial that opened what may be test images of this job.

    `specs`: the trials of this job. The trials from which the other job's trial started, directly or not, count too;
    spec/check_test_access.py refuses the same within a job.
    """
    test_rules = sorted({item for spec in specs if spec.task.reads_test for item in spec.task.opens.items()})
    for origin in origins if test_rules else ():
        for key, ancestor in _ancestry(store, origin.key):
            for name, rule in test_rules:
                if ancestor.task.opens.get(name, rule) != rule:
                    raise SpecError([
                        f"initial weights from trial {origin.key[:12]} of job {origin.from_job}: trial {key[:12]} "
                        f"opened images of {name} by task.{ancestor.task.opens[name]}, but this job chooses its test "
                        f"images by task.{rule}, so some of them may be the same: give both the same setting, or leave "
                        f"{name} out of one"
                    ])  # fmt: skip


def _ancestry(store: Store, key: str) -> Iterator[tuple[str, TrialSpec]]:
    """The trial and all trials from whose weights it started, directly or not: keys and specs.

    Leaves out those that are deleted or recorded in an older form of spec, and what only they lead to. Raises SpecError
    for one of a plugin that this process does not have.
    """
    waiting, seen = [key], set[str]()
    while waiting:
        key = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        try:
            recorded = store.trials.get(key).spec
        except NotFound:
            continue
        try:
            spec = TrialSpec.model_validate(recorded)
        except ValidationError:
            if recorded.get("plugins"):  # what it opened is asked of its task, whose code is not here
                modules = ", ".join(plugin["module"] for plugin in recorded["plugins"])
                what = (
                    f"initial weights: trial {key[:12]}, from which they come, ran with the plugins {modules}, without "
                    f"which it cannot be told which images it opened: write plugins: [{modules}] in this spec too"
                )
                raise SpecError([what]) from None
            continue
        yield key, spec
        waiting += spec.parents


# In a spec


def references_to_other_jobs(job: JobSpec) -> dict[str, dict[str, Any]]:
    """The different references to stages of other jobs, wherever they stand in the spec, by job, stage and group."""
    content = [job.trial, [stage.model_dump(mode="json", by_alias=True) for stage in job.stages]]
    return {_key(init): dict(init) for init in initial_weights(content) if _is_reference(init)}


def _is_reference(value: Mapping[str, Any]) -> bool:
    return value.get("kind") == "stage" and value.get("job") is not None and "stage" in value


def _replaced(job: JobSpec, keys_of: Callable[[Mapping[str, Any]], list[str]]) -> JobSpec:
    """The job with each reference replaced by the trial, or the replicates, whose keys `keys_of` returns."""

    def walk(value: Any) -> Any:
        if isinstance(value, Mapping):
            if _is_reference(value):
                keys = keys_of(value)
                several = {"replicates": keys} if len(keys) > 1 else {}
                return {"kind": "trial", "name": value["name"], "trial": keys[0], **several}
            return {name: walk(below) for name, below in value.items()}
        return [walk(below) for below in value] if isinstance(value, list | tuple) else value

    content = job.model_dump(mode="json", by_alias=True)
    return JobSpec.model_validate({**content, "trial": walk(content["trial"]), "stages": walk(content["stages"])})


def _key(init: Mapping[str, Any], replicate: int = 0) -> str:
    """What a reference asks for, as it is recorded; with a number for each replicate after the first."""
    return _text([init["job"], init["stage"], init.get("group"), *([replicate] if replicate else [])])


def _text(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _what(init: Mapping[str, Any]) -> str:
    group = f", group {init['group']}" if init.get("group") else ""
    return f"initial weights {init['name']} (job {init['job']}, stage {init['stage']}{group})"
