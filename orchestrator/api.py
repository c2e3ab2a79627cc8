"""The service from Python: load a spec, plan it, submit it, follow it, read the results, take models away."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import (
    BackendUnreachable,
    BadInput,
    Conflict,
    LeaseLost,
    NotFound,
    OrchestratorError,
    SpecError,
)
from orchestrator.launch.estimate import estimate, machines
from orchestrator.launch.joined_jobs import joined_table as resolved
from orchestrator.launch.joined_jobs import looked_at
from orchestrator.launch.other_jobs import assume_weights
from orchestrator.launch.resume import request_cancel, retried
from orchestrator.launch.submit import Options, Submitted
from orchestrator.launch.submit import submit as launch
from orchestrator.plan.cost import Cost
from orchestrator.records.trial_files import stored_file
from orchestrator.settings import Settings, settings
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.spec.load import load as load_file
from orchestrator.spec.load import load_mapping
from orchestrator.store.store import open_existing, open_to_look

if TYPE_CHECKING:
    import pandas

    from orchestrator.launch.trained_models import TrainedModel
    from orchestrator.store.store import Store

__all__ = [
    "BackendUnreachable", "BadInput", "Conflict", "LeaseLost", "NotFound", "Options", "OrchestratorError", "Settings",
    "SpecError", "Submitted", "cancel", "claims", "curves", "export_weights", "joined_table", "load", "load_model",
    "measurements", "plan", "results", "retry", "settings", "status", "submit", "table", "weights",
]  # fmt: skip


def load(spec: str | Path | Mapping[str, Any], profile: str | None = None, overrides: Sequence[str] = ()) -> JobSpec:
    """The job that a spec describes: a file, or a dictionary of what the file would hold; with one profile and then
    `path=value` overrides applied. Raises SpecError with every mistake."""
    if isinstance(spec, Mapping):
        return load_mapping(spec, profile, overrides)
    return load_file(spec, profile, overrides)


def plan(
    job: JobSpec, where: Settings | None = None, nodes: int = 1, cpus: float | None = None, gpus: float | None = None
) -> Cost:
    """Estimates what is left of the job, and its cost, on `nodes` machines with `cpus` and `gpus` each.

    Without `cpus` and `gpus`: on the cluster at the address of `where`, else on machines like this one. Starts and
    records nothing.
    """
    where = where or settings()
    return estimate(assume_weights(job, where), where, machines(where, nodes, cpus, gpus))


def submit(job: JobSpec, where: Settings | None = None, options: Options | None = None) -> Submitted:
    """Runs what is missing of the job, as `python -m orchestrator submit` does; returns when it has ended.

    Messages on the way go to the logger "orchestrator", at level INFO.
    """
    return launch(job, where or settings(), options)


def retry(job: JobSpec | str, where: Settings | None = None, options: Options | None = None) -> Submitted:
    """Runs a job's failed and cancelled trials again, and those that waited for them, as the command does; returns when
    it has ended. `job`: its spec, its name, or the start of its id, as everywhere below."""
    where = where or settings()
    with contextlib.closing(open_existing(where)) as store:
        spec, _ = retried(store, _identity(store, job))
    return launch(spec, where, options)


def cancel(job: JobSpec | str, where: Settings | None = None) -> str:
    """Asks a job to stop: its running trials write a checkpoint and end. Returns a line on what was done; submitted
    again, the job resumes from there."""
    with contextlib.closing(open_existing(where or settings())) as store:
        return request_cancel(store, _identity(store, job))


def status(job: JobSpec | str, where: Settings | None = None) -> dict[str, Any]:
    """How far a job is, as `status --output json` says it: state, trials by stage, group and state, running trials with
    epoch, loss and time left, `seconds_left` of the job, and what failed."""
    from orchestrator.report.status import status as view

    with _looked(where) as store:
        content: dict[str, Any] = view(store, _identity(store, job)).to_json()
        return content


def results(job: JobSpec | str, where: Settings | None = None) -> pandas.DataFrame:
    """One row per trial in its place: settings, split, value and unit, every figure, dates, state, key."""
    from orchestrator.report.dataframe import results as frame

    return _frame(frame, job, where)


def curves(job: JobSpec | str, stage: str | None = None, where: Settings | None = None) -> pandas.DataFrame:
    """One row per value that a trial of the job (or of one stage) reported after an epoch: loss, rate, figures."""
    from orchestrator.report.dataframe import curves as frame

    return _frame(lambda store, identity: frame(store, identity, stage), job, where)


def table(job: JobSpec | str, where: Settings | None = None) -> pandas.DataFrame:
    """The report's table, a row per cell: mean, interval over seeds, each seed's value."""
    from orchestrator.report.dataframe import table as frame

    return _frame(frame, job, where)


def joined_table(path: str | Path, where: Settings | None = None) -> pandas.DataFrame:
    """The table of several jobs that a file describes (specs/tables/), a row per cell as in `table`, with its job and
    stage; then the published rows. Raises SpecError for mistakes in the file."""
    from orchestrator.report.dataframe import joined as frame

    store = looked_at(where or settings())
    try:
        return frame(store, resolved(path, store))
    finally:
        if store is not None:
            store.close()


def claims(job: JobSpec | str, where: Settings | None = None) -> pandas.DataFrame:
    """One row per claim of a job: values, difference, interval, adjusted p, verdict, and whether it was written before
    the results."""
    from orchestrator.report.dataframe import claims as frame

    return _frame(frame, job, where)


def measurements(
    job: JobSpec | str,
    figures: str | Sequence[str] | None = None,
    stage: str | None = None,
    where: Settings | None = None,
) -> pandas.DataFrame:
    """One row per value that a trial measured for an item, layer or head: the view `measured` for a job.

    `figures`: names (attention_distance, cka, ..); None: all. `stage`: its trials alone.
    """
    from orchestrator.report.dataframe import measurements as frame

    return _frame(lambda store, job_id: frame(store, job_id, figures, stage), job, where)


def weights(job: JobSpec | str, where: Settings | None = None) -> dict[str, Path]:
    """Key of each trial of the job that kept its weights -> the file (safetensors)."""
    where = where or settings()
    with _looked(where) as store:
        keys = [trial.key for trial in store.trials.placed(_identity(store, job))]
        return {key: stored_file(where.storage, path) for key, path in store.weights.paths(keys).items()}


def load_model(trial: str, where: Settings | None = None) -> TrainedModel:
    """The model of a trial (its name, the start of its key, or a group of one trial): `module` in eval mode with its
    weights, `transform` of a PIL image, `class_names`. Raises NotFound where its weights are not kept, BadInput where
    they are damaged."""
    from orchestrator.launch.trained_models import load_model as loaded

    where = where or settings()
    with _looked(where) as store:
        return loaded(store, where, store.find_trial(trial))


def export_weights(trial: str, folder: str | Path, where: Settings | None = None) -> list[str]:
    """Writes the model of a trial into a new folder that timm loads without this project, as `weights export` does;
    returns lines about what is in it."""
    from orchestrator.launch.export_weights import export

    where = where or settings()
    with _looked(where) as store:
        return export(store, where, store.find_trial(trial), Path(folder).absolute())


def _looked(where: Settings | None) -> contextlib.closing[Store]:
    return contextlib.closing(open_to_look(where or settings()))


def _identity(store: Store, job: JobSpec | str) -> str:
    return store.jobs.find(job if isinstance(job, str) else job_id(job))


def _frame(
    frame: Callable[[Store, str], pandas.DataFrame], job: JobSpec | str, where: Settings | None
) -> pandas.DataFrame:
    with _looked(where) as store:
        return frame(store, _identity(store, job))
