"""What the tracking server should show of a job: status, metrics, parameters and tags of each run; without MLflow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.records.rows import ChoiceRow, JobRow, PlacedRow, ReportRow, TrialRow
from orchestrator.records.states import TrialState
from orchestrator.tracking.group_view import Best, curve
from orchestrator.tracking.names import NAMES_TAG, Names, described, duration, named

RunKey = tuple[str, str, str]
"""(stage, group, trial key); an empty key is the group's own run, the parent of its trials' runs."""
RunStatus = tuple[str, str]
"""(MLflow's status, our state in the tag `state`) of a run."""
Number = tuple[str, float, int, int]
"""(metric, value, milliseconds since 1970, step)."""

PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
"""The description of a run, which MLflow shows above its charts."""

# MLflow's limits (mlflow/utils/validation.py of 3.17).
PARAMS_PER_BATCH = 100
METRICS_PER_BATCH = 800  # of 1,000 entities, so that a batch's params and tags have room beside them
NAME_LENGTH = 250
PARAM_LENGTH = 6000
TAG_LENGTH = 8000
DATASET_NAME, DATASET_DIGEST, DATASET_SOURCE = 500, 36, 65535

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


def numbers(
    row: PlacedRow, reports: Iterable[ReportRow], through: int, start_ms: int, names: Names
) -> Iterator[list[Number]]:
    """The metrics of every epoch after `through`, from all reports of the trial.

    The time of a metric is the start of the run plus the seconds of the epochs so far. So a report has the same time
    whichever process writes it, and a curve over time leaves out the time between a trial's attempts.
    """
    seconds = 0.0
    for report in reports:
        seconds += report.seconds
        if report.epoch > through:
            at = start_ms + round(seconds * 1000)
            values = [*named(row, report.values, names), (duration(names), report.seconds)]
            yield [(name_of(name), value, at, report.epoch) for name, value in values]


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


def final_numbers(row: PlacedRow, trial: TrialRow, reports: Sequence[ReportRow], names: Names) -> list[Number]:
    """The figures that the trial ended with. In the first form of names under `final/`; in the second those that its
    last report does not have already."""
    at = round((trial.ended or trial.created) * 1000)
    if names is Names.plain:
        return [(name_of(f"final/{name}"), value, at, trial.epochs) for name, value in trial.figures.items()]
    last = reports[-1].values if reports and reports[-1].epoch == trial.epochs else {}
    rest = {name: value for name, value in trial.figures.items() if last.get(name) != value}
    return [(name_of(name), value, at, trial.epochs) for name, value in named(row, rest, names, figures=True)]


def group_numbers(
    rows: Sequence[PlacedRow], through: int, found: Best | None, figures: Mapping[str, float], names: Names
) -> list[Number]:
    """The best value of a group over the number of its trials that are done, after the first `through`; and, once it is
    complete, `figures` of its best setting."""
    numbers = []
    last: float | None = None
    for done, value, at in curve(rows):
        last = value
        if done > through:
            numbers += _of_group(rows[0], {rows[0].metric: value}, at, done, names)
    if found is not None:
        rest = {name: value for name, value in figures.items() if name != rows[0].metric or value != last}
        numbers += _of_group(found.rows[0], rest, found.at, found.done, names)
    return numbers


def _of_group(row: PlacedRow, values: Mapping[str, float], at: float, step: int, names: Names) -> list[Number]:
    prefix = "best/" if names is Names.plain else ""
    of_names = named(row, values, names, figures=True)
    return [(name_of(f"{prefix}{name}"), value, round(at * 1000), step) for name, value in of_names]


def group_note(found: Best, complete: bool) -> str:
    """The description of a group's run."""
    row, many = found.rows[0], f"{found.settings} settings" if found.settings > 1 else "one setting"
    seeds = f", mean over {len(found.rows)} seeds" if len(found.rows) > 1 else ""
    so_far = "" if complete else " so far"
    settings = ", ".join(f"{path} {value}" for path, value in found.chosen.items())
    what = f"Best of {many}{so_far}{seeds}" + (f": {settings}" if settings else "")
    trials = ", ".join(each.key[:8] for each in found.rows)
    return f"{what}. Trial {trials}.\n\n{described(row, [row.metric])}"


@dataclass(frozen=True)
class DataSet:
    """The data of a trial as MLflow lists them beside its run."""

    name: str
    digest: str
    """The first 36 digits of the SHA-256 of what was trained and evaluated on: MLflow takes no more."""
    source: str
    """JSON: the data set as the spec names it, and the whole digest."""
    context: str
    """The splits: train, val"""


def data_set(trial: TrialRow) -> DataSet | None:
    """The data of a trial that has opened them."""
    if not trial.data_digest:
        return None
    task = trial.spec.get("task") or {}
    written = task.get("dataset", task.get("kind", "data"))
    name = written if isinstance(written, str) else str(written.get("name") or written.get("path") or "own data")
    source = json.dumps({"dataset": written, "sha256": trial.data_digest}, sort_keys=True)
    context = ", ".join(dict.fromkeys([str(task.get("train", "train")), trial.split]))
    return DataSet(name[:DATASET_NAME], trial.data_digest[:DATASET_DIGEST], source[:DATASET_SOURCE], context)


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


def group_tags(job: JobRow, stage: str, group: str, state: str, names: Names) -> dict[str, str]:
    """Tags of a group's run. A run is found again by its job, stage and group (and trial)."""
    return cut_tags(
        {
            NAMES_TAG: str(names) if names is not Names.plain else None,
            "job": job.id, "stage": stage, "group": group, "level": "group", "profile": job.profile, "state": state,
            "mlflow.source.name": job.name, **_commit(job.git_commit, job.git_dirty),
        }
    )  # fmt: skip


def trial_tags(
    job: JobRow, row: PlacedRow, trial: TrialRow, parent_run_id: str, state: str, names: Names
) -> dict[str, str]:
    """Tags of a trial's run, as known when it begins. `metric` is what trials are chosen by, `better` its direction,
    `split` what it is measured on."""
    better = row.metrics[0].better if row.metrics else "higher" if row.mode == "max" else "lower"
    return {
        **group_tags(job, row.stage, row.group, state, names),
        **cut_tags(
            {
                PARENT_TAG: parent_run_id, "level": "trial", "trial": row.key, "seed": trial.seed,
                "metric": row.metric, "better": better, "split": row.split,
                "plugins": _plugins(trial),
                NOTE_TAG: described(row, [m.name for m in row.metrics] or [row.metric])
                if names is not Names.plain else None,
                **_commit(trial.git_commit, trial.git_dirty),
            }
        ),
    }  # fmt: skip


def _plugins(trial: TrialRow) -> str | None:
    """Module and digest of each plugin; None without any."""
    each = [f"{plugin['module']} {plugin['digest'][:12]}" for plugin in trial.spec.get("plugins", ())]
    return ", ".join(each) or None


def end_tags(trial: TrialRow, state: str, before: RunStatus | None, weights: str | None = None) -> dict[str, str]:
    """Tags known when the trial has ended, or has begun again (its commit may then be another). `weights`: where the
    file of its weights lies, if they are kept."""
    error = f"{trial.error_class}: {trial.error or ''}".rstrip(": ") if trial.error_class else None
    if error is None and before is not None and before[1] in (TrialState.failed, TrialState.diverged):
        error = ""  # replaces the error of an earlier attempt
    return cut_tags(
        {
            "state": state, "host": trial.host, "device": trial.device, "data_digest": trial.data_digest,
            "error": error, "weights": weights,
            "weights.sha256": trial.weights[1] if trial.weights and weights else None,
            **_commit(trial.git_commit, trial.git_dirty),
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
