"""The progress of jobs, as `ls` and `status` print it: as data and as text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.records.recorded_spec import base_value, expected, label, lookup, replicates, setting_at, sources
from orchestrator.records.states import TrialState
from orchestrator.report.figures import UNKNOWN, has_direction, metric_of
from orchestrator.report.formatting import WIDTH, aligned, duration, moment
from orchestrator.report.json_values import to_json
from orchestrator.report.matrix import ENDED, LOST, Part, arrange, best, cell_text
from orchestrator.report.replicates import best_first
from orchestrator.report.running import lines as running_lines
from orchestrator.report.running import running
from orchestrator.report.time_left import seconds_left
from orchestrator.report.wording import field_title

if TYPE_CHECKING:
    from orchestrator.records.rows import JobRow, PlacedRow
    from orchestrator.store.store import Store

LISTED = 10
"""Failed trials that are named; JSON has all."""


@dataclass(frozen=True)
class View:
    """Something to print: `content` is plain data, `lines` the same for people."""

    content: Any
    lines: Sequence[str]

    def to_json(self) -> Any:
        """Plain JSON values; numbers that are not finite as text."""
        return to_json(self.content)

    def text(self) -> str:
        return "\n".join(self.lines)


def ls(store: Store) -> View:
    """All jobs, newest first."""
    jobs = store.jobs.all()
    rows = [
        [job.id, str(job.state), job.profile or "–", _done(job), str(_lost(job) or "–"), moment(job.created),
         job.message]
        for job in jobs
    ]  # fmt: skip
    header = ["job", "state", "profile", "ended", "failed", "submitted", ""]
    lines = aligned(header, rows, max(WIDTH, 160)) if rows else ["no jobs yet: python -m orchestrator submit SPEC"]
    return View([_job(job) for job in jobs], lines)


def _job(job: JobRow) -> dict[str, Any]:
    return {
        "id": job.id, "name": job.name, "profile": job.profile, "state": str(job.state), "message": job.message,
        "priority": job.priority, "cancel_requested": job.cancel, "created": moment(job.created),
        "updated": moment(job.updated), "trials": job.trials,
        "states": {str(state): count for state, count in job.counts.items()},
        "git_commit": job.git_commit, "git_dirty": job.git_dirty,
    }  # fmt: skip


def _done(job: JobRow) -> str:
    ended = sum(count for state, count in job.counts.items() if state in ENDED)
    return f"{ended} of {job.trials}"


def _lost(job: JobRow) -> int:
    return sum(count for state, count in job.counts.items() if state in LOST)


def status(store: Store, job_id: str, flags: str = "") -> View:
    """The progress of a job by stage, and by row and column of its table, and its running trials. NotFound: no such
    job. `flags`: what a command needs to find this store, with a space before it.

    A trial whose driver is gone is recorded as running until another driver takes it; the lines show it as pending,
    the data count it as `without_driver` too.
    """
    job = store.jobs.get(job_id)
    spec = store.jobs.spec(job_id)
    placed = store.trials.placed(job_id)
    counts = _stage_counts(spec, placed)
    left = seconds_left(store, job)
    stages = {stage["name"]: stage for stage in spec["stages"]}
    last = spec["report"].get("stage") or list(stages)[-1]
    parts = _parts(spec, placed, sources(stages, last))
    failed = [_failure(trial) for trial in placed if trial.state in LOST]
    content = {**_job(job), "stages": counts, "groups": _groups(parts, last), "seconds_left": left, "failed": failed}
    placed, moved = _pending_without_driver(store, placed) if job.state not in ("done", "incomplete") else (placed, 0)
    content["without_driver"] = moved
    now = running(store, placed)
    content["running"] = now
    if moved:
        counts, parts = _stage_counts(spec, placed), _parts(spec, placed, sources(stages, last))
    lines = [f"{job.id}  {job.state}" + (f"  {job.message}" if job.message else "")]
    lines += [f"submitted {moment(job.created)}, {_done(job)} placed trials ended"]
    if left is not None:
        lines[-1] += f", about {duration(left)} left" + ("" if job.state == "running" else " once it runs again")
    if moved:
        lines += [
            f"{moved} of the pending trials began and lost their driver: the next submit takes over those that still "
            "run, and resumes the others from their checkpoints"
        ]
    table = _table_lines(parts, last, field_title(spec["report"]["rows"]))
    lines += ["", *_stage_lines(counts), "", *table, *running_lines(now), *_failed_lines(failed, job.id, flags)]
    return View(content, lines)


def _pending_without_driver(store: Store, placed: Sequence[PlacedRow]) -> tuple[list[PlacedRow], int]:
    """The trials, with those whose driver is gone as pending, which is how the next driver finds them; their number."""
    lost = {run.key for run in store.leases.running() if not run.alive}
    orphans = {trial.key for trial in placed if trial.key in lost and trial.state == "running"}
    return [replace(t, state=TrialState.pending) if t.key in orphans else t for t in placed], len(orphans)


def _stage_counts(spec: Mapping[str, Any], placed: Iterable[PlacedRow]) -> list[dict[str, Any]]:
    by_stage: dict[str, list[PlacedRow]] = {stage["name"]: [] for stage in spec["stages"]}
    for trial in placed:
        by_stage[trial.stage].append(trial)
    counts = []
    for stage, trials in by_stage.items():
        states = Counter(str(trial.state) for trial in trials)
        seconds = [trial.seconds for trial in trials if trial.seconds is not None]
        counts.append(
            {
                "stage": stage,
                "placed": len(trials),
                "expected": _expected_trials(spec, stage, trials),
                "states": {name: states[name] for name in _STATES if states[name]},
                "seconds": math.fsum(seconds),
                "mean_seconds": math.fsum(seconds) / len(seconds) if seconds else None,
            }
        )
    return counts


_STATES = ("done", "diverged", "stopped", "running", "pending", "failed", "cancelled")


def _expected_trials(spec: Mapping[str, Any], stage: str, trials: Sequence[PlacedRow]) -> int:
    """Placed trials, and for groups that have none yet as many as the spec makes of a winner."""
    stages = {each["name"]: each for each in spec["stages"]}
    body = stages[stage]
    count = _points(body["sweep"], body.get("override", {}).get("optim.epochs", lookup(spec["trial"], "optim.epochs")))
    seeds = max(1, replicates(body))
    if not body.get("from"):
        return max(len(trials), count * seeds)
    if near := body.get("neighbourhood"):
        moves = [len(set(each["multiply"]) - {1.0}) + len(set(each["add"]) - {0.0}) for each in near["near"].values()]
        count = sum(moves) if near["shape"] == "star" else math.prod(1 + move for move in moves) - 1
    groups = max(len(expected(spec, sources(stages, stage))), 1)
    have = Counter(trial.group for trial in trials)
    return len(trials) + count * seeds * max(0, groups - len(have))


def _points(sweep: Mapping[str, Any], epochs: Any) -> int:
    """Settings of a sweep. A spaced axis says its count last: {logspace: [low, high, count]}."""
    each: float = sum(
        math.prod(len(axis) if isinstance(axis, list) else int(next(iter(axis.values()))[2]) for axis in axes.values())
        for axes in sweep.get("grid") or [sweep.get("each", {})]
    )
    population = sweep.get("population")
    generations = 1 if not population else max(1, int(epochs or 0) // population["every_epochs"])
    return int(each * sweep.get("trials", 1) * generations)


def _parts(spec: Mapping[str, Any], placed: Iterable[PlacedRow], chain: Sequence[str]) -> list[Part]:
    """The trials of the stages that lead to the table, by cell and stage; also cells that have none yet."""
    trials: dict[tuple[str, str, str], list[PlacedRow]] = {}
    for values in expected(spec, chain):
        trials[(*position(spec, values, {}), chain[-1])] = []
    for trial in placed:
        if trial.stage in chain:
            place = position(spec, trial.group_values, trial.settings)
            trials.setdefault((*place, trial.stage), []).append(trial)
    parts = []
    for (row, column, stage), members in trials.items():
        states = Counter(str(trial.state) for trial in members)
        ranked = best_first(members)
        metric = metric_of(ranked[0].trials[0]) if ranked else UNKNOWN
        decided = len(ranked) == 1 or (ranked and has_direction(ranked[0].trials[0]))
        parts.append(Part(row, column, stage, states, ranked[0].value if decided else None, metric))
    return parts


def _groups(parts: Iterable[Part], last: str) -> list[dict[str, Any]]:
    """By row and column of the table: states over all stages, the best value before the last stage, the last one's."""
    _, _, cells = arrange(parts)
    groups = []
    for (row, column), members in cells.items():
        states = sum((Counter(part.states) for part in members), Counter[str]())
        choosing = best(part for part in members if part.stage != last)
        table = best(part for part in members if part.stage == last)
        groups.append(
            {
                "row": row,
                "column": column,
                "states": {name: states[name] for name in _STATES if states[name]},
                "metric": next((part.figure.name for part in members if part.figure.name), ""),
                "best": choosing[0] if choosing else None,
                "table": table[0] if table else None,
            }
        )
    return groups


def position(spec: Mapping[str, Any], values: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[str, str]:
    """Row and column of a group or trial."""
    texts = []
    for path in (spec["report"]["rows"], spec["report"]["columns"]):
        value = setting_at(values, path, setting_at(settings, path))
        texts.append(label(base_value(spec["trial"], path) if value is None else value))
    return texts[0], texts[1]


def _stage_lines(counts: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = []
    for count in counts:
        states = count["states"]
        ended = sum(states.get(state, 0) for state in ENDED)
        about = "" if count["expected"] == count["placed"] else "about "
        mean = count["mean_seconds"]
        rows.append(
            [count["stage"], f"{ended} of {about}{count['expected']}",
             *(str(states.get(name) or "–") for name in ("running", "pending", "diverged", "stopped")),
             str(states.get("failed", 0) + states.get("cancelled", 0) or "–"),
             "–" if mean is None else duration(mean)]
        )  # fmt: skip
    header = ["stage", "ended", "running", "pending", "diverged", "stopped", "failed", "each takes"]
    if not any(count["states"].get("stopped") for count in counts):  # only searches stop trials
        header, rows = [h for h in header if h != "stopped"], [[*row[:5], *row[6:]] for row in rows]
    return aligned(header, rows, WIDTH)


def _table_lines(parts: Sequence[Part], last: str, corner: str) -> list[str]:
    rows, columns, cells = arrange(parts)
    body = [[row, *(cell_text(cells.get((row, column), ()), last) for column in columns)] for row in rows]
    return aligned([corner, *columns], body, WIDTH)


def _failure(trial: PlacedRow) -> dict[str, Any]:
    return {
        "name": trial.name, "key": trial.key, "state": str(trial.state), "error_class": trial.error_class,
        "error": trial.error,
    }  # fmt: skip


def _failed_lines(failed: Sequence[Mapping[str, Any]], job_id: str, flags: str) -> list[str]:
    if not failed:
        return []
    lines = ["", "Failed"]
    for trial in failed[:LISTED]:
        first = (trial["error"] or "").split("\n", 1)[0]
        lines.append(f"  ✕ {trial['name']} {trial['key'][:8]}: {trial['error_class'] or trial['state']}: {first}")
    if len(failed) > LISTED:
        lines.append(f"  and {len(failed) - LISTED} more")
    return [*lines, f"  run them again: python -m orchestrator retry {job_id}{flags}"]
