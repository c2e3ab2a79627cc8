"""The only place that says how jobs and trials stand: what `ls` and `status` print, as data and as text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.records.recorded_spec import expected, label, lookup, sources
from orchestrator.report import figures
from orchestrator.report.cells import best_first
from orchestrator.report.formatting import WIDTH, aligned, duration, moment
from orchestrator.report.json_values import to_json
from orchestrator.report.wording import field_title

if TYPE_CHECKING:
    from orchestrator.records.rows import JobRow, PlacedRow
    from orchestrator.store.store import Store

LISTED = 10
"""Failed trials that are named; the data have all."""


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
    return sum(count for state, count in job.counts.items() if state in ("failed", "cancelled"))


def status(store: Store, job_id: str) -> View:
    """How far a job is: by stage, and by row and column of its table. NotFound: no such job."""
    job = store.jobs.get(job_id)
    spec = store.jobs.spec(job_id)
    placed = store.trials.placed(job_id)
    slots = sum(driver.slots for driver in store.leases.drivers() if driver.job_id == job.id)
    counts = _stage_counts(spec, placed)
    left = seconds_left(spec, placed, counts, slots) if job.state in ("running", "queued", "interrupted") else None
    matrix = _matrix(spec, placed)
    failed = [_failure(trial) for trial in placed if trial.state in ("failed", "cancelled")]
    content = {**_job(job), "stages": counts, "groups": matrix, "seconds_left": left, "failed": failed}
    lines = [f"{job.id}  {job.state}" + (f"  {job.message}" if job.message else "")]
    lines += [f"submitted {moment(job.created)}, {_done(job)} placed trials ended"]
    if left is not None:
        lines[-1] += f", about {duration(left)} left" + ("" if job.state == "running" else " once it runs again")
    lines += ["", *_stage_lines(counts), "", *_matrix_lines(spec, matrix), *_failed_lines(failed, job.id)]
    return View(content, lines)


def _stage_counts(spec: Mapping[str, Any], placed: Iterable[PlacedRow]) -> list[dict[str, Any]]:
    by_stage: dict[str, list[PlacedRow]] = {stage["name"]: [] for stage in spec["stages"]}
    for trial in placed:
        by_stage[trial.stage].append(trial)
    told = []
    for stage, trials in by_stage.items():
        states = Counter(str(trial.state) for trial in trials)
        seconds = [trial.seconds for trial in trials if trial.seconds is not None]
        told.append(
            {
                "stage": stage,
                "placed": len(trials),
                "expected": _expected_trials(spec, stage, trials),
                "states": {name: states[name] for name in _STATES if states[name]},
                "seconds": math.fsum(seconds),
                "mean_seconds": math.fsum(seconds) / len(seconds) if seconds else None,
            }
        )
    return told


_STATES = ("done", "diverged", "stopped", "running", "pending", "failed", "cancelled")
ENDED = ("done", "diverged", "stopped")


def _expected_trials(spec: Mapping[str, Any], stage: str, trials: Sequence[PlacedRow]) -> int:
    """Placed trials, and for groups that have none yet as many as the spec makes of a winner."""
    stages = {one["name"]: one for one in spec["stages"]}
    body = stages[stage]
    each = _points(body["sweep"], body.get("override", {}).get("optim.epochs", lookup(spec["trial"], "optim.epochs")))
    if not body.get("from"):
        return max(len(trials), each)
    if near := body.get("neighbourhood"):
        moves = [len(set(one["multiply"]) - {1.0}) + len(set(one["add"]) - {0.0}) for one in near["near"].values()]
        each = sum(moves) if near["shape"] == "star" else math.prod(1 + count for count in moves) - 1
    groups = max(len(expected(spec, sources(stages, stage))), 1)
    have = Counter(trial.group for trial in trials)
    return len(trials) + each * max(0, groups - len(have))


def _points(sweep: Mapping[str, Any], epochs: Any) -> int:
    """Settings of a sweep. A spaced axis says its count last: {logspace: [low, high, count]}."""
    each: float = sum(
        math.prod(len(axis) if isinstance(axis, list) else int(next(iter(axis.values()))[2]) for axis in axes.values())
        for axes in sweep.get("grid") or [sweep.get("each", {})]
    )
    population = sweep.get("population")
    generations = 1 if not population else max(1, int(epochs) // population["every_epochs"])
    return int(each * sweep.get("trials", 1) * generations)


def seconds_left(
    spec: Mapping[str, Any], placed: Sequence[PlacedRow], counts: Sequence[Mapping[str, Any]], slots: int
) -> float | None:
    """Trials to come times what trials of their stage took so far (of all stages, where it has none), over the
    slots in use. None while no trial has ended. `plan` says it better before a job starts."""
    took = [count["mean_seconds"] for count in counts if count["mean_seconds"] is not None]
    if not took:
        return None
    work = 0.0
    for count in counts:
        ended = sum(count["states"].get(state, 0) for state in (*ENDED, "failed", "cancelled"))
        mean = count["mean_seconds"] if count["mean_seconds"] is not None else sum(took) / len(took)
        work += mean * max(0, count["expected"] - ended)
    for trial in placed:
        if trial.state == "running" and trial.epochs:
            mean = next(count["mean_seconds"] for count in counts if count["stage"] == trial.stage)
            work -= (mean or 0.0) * min(1.0, trial.epoch / trial.epochs)
    running = sum(count["states"].get("running", 0) for count in counts)
    return float(max(0.0, work) / max(1, slots, running))


def _matrix(spec: Mapping[str, Any], placed: Iterable[PlacedRow]) -> list[dict[str, Any]]:
    """By row and column of the table: states over all stages that lead to it, best on val so far, the table's value."""
    table, stages = spec["report"], {stage["name"]: stage for stage in spec["stages"]}
    last = table.get("stage") or list(stages)[-1]
    chain = sources(stages, last)
    cells: dict[tuple[str, str], list[PlacedRow]] = {}
    for values in expected(spec, chain):
        cells[_at(spec, values, {})] = []
    for trial in placed:
        if trial.stage in chain:
            cells.setdefault(_at(spec, trial.group_values, trial.settings), []).append(trial)
    told = []
    for (row, column), trials in cells.items():
        states = Counter(str(trial.state) for trial in trials)
        told.append(
            {
                "row": row,
                "column": column,
                "states": {name: states[name] for name in _STATES if states[name]},
                "metric": trials[0].metric if trials else "",
                "digits": figures.metric_of(trials[0]).digits if trials else 0,
                "best": _best([t for t in trials if t.stage != last]),
                "table": _best([t for t in trials if t.stage == last]),
            }
        )
    return told


def _at(spec: Mapping[str, Any], values: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[str, str]:
    found = []
    for path in (spec["report"]["rows"], spec["report"]["columns"]):
        value = values.get(path, settings.get(path))
        found.append(label(lookup(spec["trial"], path) if value is None else value))
    return found[0], found[1]


def _best(trials: Iterable[PlacedRow]) -> float | None:
    """The best value, in its metric's unit."""
    ranked = best_first(trials)
    return figures.scaled(ranked[0].value, figures.metric_of(ranked[0])) if ranked else None


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


def _matrix_lines(spec: Mapping[str, Any], matrix: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = list(dict.fromkeys(cell["row"] for cell in matrix))
    columns = list(dict.fromkeys(cell["column"] for cell in matrix))
    at = {(cell["row"], cell["column"]): cell for cell in matrix}
    last = spec["report"].get("stage") or spec["stages"][-1]["name"]
    body = [[row, *(_cell_text(at.get((row, column)), last) for column in columns)] for row in rows]
    return aligned([field_title(spec["report"]["rows"]), *columns], body, WIDTH)


def _cell_text(cell: Mapping[str, Any] | None, last: str) -> str:
    if cell is None:
        return "–"
    states = cell["states"]
    ended = sum(states.get(state, 0) for state in ENDED)
    parts = [f"{ended}/{sum(states.values())}" if states else "not placed yet"]
    parts += [f"▸{states['running']}"] if states.get("running") else []
    lost = states.get("failed", 0) + states.get("cancelled", 0)
    parts += [f"✕{lost} failed"] if lost else []
    for name, value in (("best", cell["best"]), (last, cell["table"])):
        parts += [] if value is None else [f"{name} {value:.{cell['digits']}f}"]
    return " ".join(parts)


def _failure(trial: PlacedRow) -> dict[str, Any]:
    return {
        "name": trial.name, "key": trial.key, "state": str(trial.state), "error_class": trial.error_class,
        "error": trial.error,
    }  # fmt: skip


def _failed_lines(failed: Sequence[Mapping[str, Any]], job_id: str) -> list[str]:
    if not failed:
        return []
    lines = ["", "Failed"]
    for one in failed[:LISTED]:
        first = (one["error"] or "").split("\n", 1)[0]
        lines.append(f"  ✕ {one['name']} {one['key'][:8]}: {one['error_class'] or one['state']}: {first}")
    if len(failed) > LISTED:
        lines.append(f"  and {len(failed) - LISTED} more")
    return [*lines, f"  run them again: python -m orchestrator retry {job_id}"]
