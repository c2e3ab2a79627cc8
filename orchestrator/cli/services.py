"""Commands for MLflow and the dashboards: track, ui."""

from __future__ import annotations

import os
from functools import partial

import click

from orchestrator.cli.options import places, say, working
from orchestrator.settings import Settings


@click.command()
@places("tracking_uri", "storage")
@click.option("--sync", "job", metavar="JOB", help="Write to MLflow once what the store has and MLflow lacks.")
@click.option("--follow", "beside", metavar="JOB", hidden=True, help="Run by a driver beside itself.")
def track(where: Settings, job: str | None, beside: str | None) -> None:
    """Write to the tracking server what it lacks of a job."""
    from orchestrator.errors import BackendUnreachable
    from orchestrator.report.layer_files import files_of_stage
    from orchestrator.report.svg.heat_map import picture
    from orchestrator.store.store import open_existing

    if not (beside or job):
        raise click.UsageError("name a job: track --sync JOB")
    store = open_existing(where)
    if beside:
        from orchestrator.tracking.process import follow

        done = follow(
            store, beside, where.tracking_uri, where.folder, os.getppid(), picture, storage=where.storage,
            figures=partial(files_of_stage, store, beside),
        )  # fmt: skip
    else:
        from orchestrator.tracking.mlflow_mirror import sync

        identity = store.jobs.find(str(job))
        figures = partial(files_of_stage, store, identity)
        with working(f"writing {identity} to MLflow"):
            done = sync(
                store, identity, where.tracking_uri, where.folder, picture, storage=where.storage, figures=figures
            )
    if done.problem:
        raise BackendUnreachable(done.problem)
    say(f"MLflow: {done.runs} runs made, {done.metrics} metric values written, {done.closed} runs closed")


@click.command()
@click.argument("job", required=False)
@places("tracking_uri", "address")
@click.option("--port", type=click.IntRange(0, 65535), default=5000, help="Port of the MLflow UI; 0: a free one.")
@click.option("--open", "opens", is_flag=True, help="Open it in the browser.")
def ui(job: str | None, where: Settings, port: int, opens: bool) -> None:
    """Serve the MLflow UI, at the runs of JOB [the newest], and the Ray dashboard, on this machine's loopback address,
    until Ctrl-C."""
    from orchestrator.cli.ui import serve

    serve(where, port, say, _job_name(where, job), opens)


def _job_name(where: Settings, job: str | None) -> str | None:
    """The name of a job, which is that of its experiment; None where no job was submitted yet."""
    from orchestrator.errors import NotFound
    from orchestrator.store.store import open_to_look

    try:
        store = open_to_look(where)
    except NotFound:
        if job is not None:
            raise
        return None
    jobs = store.jobs.all()
    if job is not None:
        identity = store.jobs.find(job)
        return next(each.name for each in jobs if each.id == identity)
    return jobs[0].name if jobs else None
