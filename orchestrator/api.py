"""The only place for using the service from Python: load a spec, plan it, submit it, read the results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.launch.estimate import estimate, machines
from orchestrator.launch.submit import Options, Submitted
from orchestrator.launch.submit import submit as launch
from orchestrator.plan.cost import Cost
from orchestrator.settings import Settings, settings
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.spec.load import load
from orchestrator.store.store import open_existing

if TYPE_CHECKING:
    import pandas

__all__ = ["Options", "Settings", "Submitted", "load", "plan", "results", "settings", "submit"]


def plan(
    job: JobSpec, where: Settings | None = None, nodes: int = 1, cpus: float | None = None, gpus: float | None = None
) -> Cost:
    """What is left of the job on `nodes` machines with `cpus` and `gpus` each (none: this machine's), in hours and
    bytes. Starts and records nothing."""
    where = where or settings()
    return estimate(job, where, machines(where, nodes, cpus, gpus))


def submit(job: JobSpec, where: Settings | None = None, options: Options | None = None) -> Submitted:
    """Runs what is missing of the job, as `python -m orchestrator submit` does, and returns when it has ended."""
    return launch(job, where or settings(), options)


def results(job: JobSpec | str, where: Settings | None = None) -> pandas.DataFrame:
    """One row per trial of a job (or of the job with this id prefix or name): settings, figures, state, key."""
    from orchestrator.report.dataframe import results as frame

    store = open_existing(where or settings())
    try:
        return frame(store, store.jobs.find(job if isinstance(job, str) else job_id(job)))
    finally:
        store.close()
