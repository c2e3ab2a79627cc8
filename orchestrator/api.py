"""The service from Python: load a spec, plan it, submit it, read the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.launch.estimate import estimate, machines
from orchestrator.launch.joined_jobs import joined_table as resolved
from orchestrator.launch.joined_jobs import looked_at
from orchestrator.launch.other_jobs import assume_weights
from orchestrator.launch.submit import Options, Submitted
from orchestrator.launch.submit import submit as launch
from orchestrator.plan.cost import Cost
from orchestrator.settings import Settings, settings
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.spec.load import load
from orchestrator.store.store import open_to_look

if TYPE_CHECKING:
    import pandas

    from orchestrator.store.store import Store

__all__ = [
    "Options", "Settings", "Submitted", "claims", "joined_table", "load", "measurements", "plan", "results", "settings",
    "submit", "table",
]  # fmt: skip


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


def results(job: JobSpec | str, where: Settings | None = None) -> pandas.DataFrame:
    """One row per trial of a job: settings, figures, state, key. `job`: its spec, its name, or the start of its id."""
    from orchestrator.report.dataframe import results as frame

    return _frame(frame, job, where)


def table(job: JobSpec | str, where: Settings | None = None) -> pandas.DataFrame:
    """The report's table, a row per cell: mean, interval over seeds, each seed's value. `job`: as for `results`."""
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


def _frame(
    frame: Callable[[Store, str], pandas.DataFrame], job: JobSpec | str, where: Settings | None
) -> pandas.DataFrame:
    store = open_to_look(where or settings())
    try:
        return frame(store, store.jobs.find(job if isinstance(job, str) else job_id(job)))
    finally:
        store.close()


def claims(job: JobSpec | str, where: Settings | None = None) -> pandas.DataFrame:
    """One row per claim of a job: values, difference, interval, adjusted p, verdict, and whether it was written before
    the results. `job`: its spec, its name, or the start of its id."""
    from orchestrator.report.dataframe import claims as frame

    store = open_to_look(where or settings())
    try:
        return frame(store, store.jobs.find(job if isinstance(job, str) else job_id(job)))
    finally:
        store.close()


def measurements(
    job: JobSpec | str,
    figures: str | Sequence[str] | None = None,
    stage: str | None = None,
    where: Settings | None = None,
) -> pandas.DataFrame:
    """One row per value that a trial measured for an item, layer or head: the view `measured` for a job.

    `job`: as for `results`. `figures`: names (attention_distance, cka, ..); None: all. `stage`: its trials alone.
    """
    from orchestrator.report.dataframe import measurements as frame

    return _frame(lambda store, job_id: frame(store, job_id, figures, stage), job, where)
