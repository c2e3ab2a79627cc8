"""What the tracking server should show of a job: status, metrics, parameters and tags of each run; without MLflow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.records.rows import ChoiceRow, JobRow, PlacedRow, ReportRow, TrialRow
from orchestrator.records.states import TrialState

RunKey = tuple[str, str, str]
"""(stage, group, trial key); an empty key is the group's own run, the parent of its trials' runs."""
RunStatus = tuple[str, str]
"""(MLflow's status, our state in the tag `state`) of a run."""
Number = tuple[str, float, int, int]
"""(metric, value, milliseconds since 1970, step)."""

PARENT_TAG = "mlflow.parentRunId"
DURATION = "epoch_seconds"
"""The last metric written of every epoch: if MLflow has it, MLflow has the whole epoch."""

# MLflow's limits (mlflow/utils/validation.py of 3.17).
PARAMS_PER_BATCH = 100
METRICS_PER_BATCH = 800  # of 1,000 entities, so that a batch's params and tags have room beside them
NAME_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 8000

_STATUS = {
    TrialState.done: "FINISHED",
    TrialState.diverged: "FAILED",
    TrialState.failed: "FAILED",
    TrialState.cancelled: "KILLED",
    # By a search, on purpose; not FINISHED, so that a filter on that shows only trials that ran in full.
    TrialState.stopped: "KILLED",
}
ENDED = frozenset(_STATUS.values())


def trial_status(row: PlacedRow, alive: bool, shown: RunStatus | None) -> RunStatus | None:
    """The status that the trial's run should show; None while it needs no run. `alive`: its driver is.

    A trial whose driver is gone, or that was given back, is KILLED until it runs again. A trial that waits to be
    repeated keeps showing how its last attempt ended.
    """
    if row.state in _STATUS:
        return _STATUS[row.state], str(row.state)
    if row.state is TrialState.running and alive:
        return "RUNNING", "running"
    if shown is None:
        return None if row.state is TrialState.pending else ("KILLED", "interrupted")
    return ("KILLED", "interrupted") if shown[0] == "RUNNING" else shown


def group_status(rows: Sequence[PlacedRow], alive: set[str], driven: bool, chosen: Iterable[str]) -> RunStatus:
    """The status that a group's own run should show: the worst end of its trials, once all have ended."""
    states = {row.state for row in rows}
    if any(row.key in alive and row.state is TrialState.running for row in rows):
        return "RUNNING", "running"
    if not all(state.ended for state in states):
        return ("RUNNING", "running") if driven else ("KILLED", "interrupted")
    if states == {TrialState.cancelled}:
        return "KILLED", "cancelled"
    if states & {TrialState.failed, TrialState.cancelled} or TrialState.done not in states:
        return "FAILED", "incomplete"
    winners = ", ".join(sorted(key[:8] for key in chosen))
    return "FINISHED", f"winner {winners}" if winners else "complete"


def chosen(rows: Sequence[PlacedRow], winners: Iterable[ChoiceRow]) -> set[str]:
    """Keys of a group's trials whose settings a later stage took."""
    keys = {row.key for row in rows}
    return {
        winner.key
        for winner in winners
        if winner.key in keys and winner.group == rows[0].group and rows[0].stage in winner.sources
    }


def numbers(reports: Iterable[ReportRow], through: int, start_ms: int) -> Iterator[list[Number]]:
    """The metrics of every epoch after `through`, from all reports of the trial.

    The time of a metric is the start of the run plus the seconds of the epochs so far. So a report has the same time
    whichever process writes it, and a curve over time leaves out the time between a trial's attempts.
    """
    seconds = 0.0
    for report in reports:
        seconds += report.seconds
        if report.epoch > through:
            at = start_ms + round(seconds * 1000)
            values = {**report.values, DURATION: report.seconds}
            yield [(name_of(_system_metric(name)), float(value), at, report.epoch) for name, value in values.items()]


def _system_metric(name: str) -> str:
    """MLflow shows metrics under `system/` on a page of their own."""
    return name.replace("system_", "system/", 1) if name.startswith("system_") else name


def batches(epochs: Iterable[list[Number]], final: list[Number]) -> Iterator[list[Number]]:
    """Metrics in as few batches as MLflow allows, epochs undivided where they fit; at least one, even if empty."""
    held: list[Number] = []
    for epoch in [*epochs, final]:
        if len(held) + len(epoch) > METRICS_PER_BATCH and held:
            yield held
            held = []
        held = held + epoch
        while len(held) > METRICS_PER_BATCH:
            yield held[:METRICS_PER_BATCH]
            held = held[METRICS_PER_BATCH:]
    yield held


def final_numbers(trial: TrialRow) -> list[Number]:
    """The figures that the trial ended with, under `final/`: they may be of another split than its curves."""
    at = round((trial.ended or trial.created) * 1000)
    return [(name_of(f"final/{name}"), value, at, trial.epochs) for name, value in trial.figures.items()]


def params(trial: TrialRow, settings: Mapping[str, Any]) -> dict[str, str]:
    """Task, backbone, optimizer and seed by dotted path; settings of a sweep as the report shows them."""
    parts: dict[str, Any] = {name: trial.spec[name] for name in ("task", "backbone", "optim") if name in trial.spec}
    return cut_params({**flat(parts), **settings, "seed": trial.seed})


def cut_params(values: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as text, in names and lengths that MLflow takes; None is left out."""
    return {
        name_of(path): (value if isinstance(value, str) else json.dumps(value))[:PARAM_LENGTH]
        for path, value in values.items()
        if value is not None
    }


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted path; lists stay whole."""
    paths: dict[str, Any] = {}
    for name, inner in value.items():
        path = f"{prefix}{name}"
        if isinstance(inner, Mapping):
            paths.update(flat(inner, f"{path}."))
        else:
            paths[path] = inner
    return paths


def group_tags(job: JobRow, stage: str, group: str, state: str) -> dict[str, str]:
    """Tags of a group's run. A run is found again by its job, stage and group (and trial)."""
    return cut_tags(
        {
            "job": job.id, "stage": stage, "group": group, "level": "group", "profile": job.profile, "state": state,
            "mlflow.source.name": job.name, **_commit(job.git_commit, job.git_dirty),
        }
    )  # fmt: skip


def trial_tags(job: JobRow, row: PlacedRow, trial: TrialRow, parent_run_id: str, state: str) -> dict[str, str]:
    """Tags of a trial's run, as known when it begins. `metric` is what trials are chosen by, `better` its direction,
    `split` what it is measured on."""
    better = row.metrics[0].better if row.metrics else "higher" if row.mode == "max" else "lower"
    return {
        **group_tags(job, row.stage, row.group, state),
        **cut_tags(
            {
                PARENT_TAG: parent_run_id, "level": "trial", "trial": row.key, "seed": trial.seed,
                "metric": row.metric, "better": better, "split": row.split, "plugins": _plugins(trial),
                **_commit(trial.git_commit, trial.git_dirty),
            }
        ),
    }  # fmt: skip


def _plugins(trial: TrialRow) -> str | None:
    """Module and digest of each plugin; None without any."""
    each = [f"{plugin['module']} {plugin['digest'][:12]}" for plugin in trial.spec.get("plugins", ())]
    return ", ".join(each) or None


def end_tags(trial: TrialRow, state: str, before: RunStatus | None) -> dict[str, str]:
    """Tags known when the trial has ended, or has begun again (its commit may then be another)."""
    error = f"{trial.error_class}: {trial.error or ''}".rstrip(": ") if trial.error_class else None
    if error is None and before is not None and before[1] in (TrialState.failed, TrialState.diverged):
        error = ""  # replaces the error of an earlier attempt
    return cut_tags(
        {
            "state": state, "host": trial.host, "device": trial.device, "data_digest": trial.data_digest,
            "error": error, **_commit(trial.git_commit, trial.git_dirty),
        }
    )  # fmt: skip


def _commit(commit: str | None, dirty: bool | None) -> dict[str, Any]:
    return {"git_commit": commit, "mlflow.source.git.commit": commit, "git_dirty": dirty}


def cut_tags(values: Mapping[str, Any]) -> dict[str, str]:
    """Tags as text, in lengths that MLflow takes; None is left out."""
    return {
        name: (json.dumps(value) if isinstance(value, bool) else str(value))[:TAG_LENGTH]
        for name, value in values.items()
        if value is not None
    }


def name_of(name: str) -> str:
    """A name that MLflow accepts: letters, digits and ``_-. :/``, without `..` as a part of its path."""
    plain = re.sub(r"[^\w\-. :/]", "_", name[:NAME_LENGTH], flags=re.ASCII)
    return "/".join(part for part in plain.split("/") if part.strip(".")) or "_"
