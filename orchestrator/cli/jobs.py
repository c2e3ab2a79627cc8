"""Commands that plan, check, run, resume and cancel jobs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options import (
    INTERRUPTED,
    UNFINISHED,
    a_spec,
    echo,
    flags,
    output,
    places,
    say,
    say_retry,
    show,
    working,
)
from orchestrator.cli.streams import output_may_be_unread
from orchestrator.settings import Settings, shown

if TYPE_CHECKING:
    from orchestrator.launch.submit import Submitted
    from orchestrator.spec.job import JobSpec


def load(spec: Path, profile: str | None, overrides: Sequence[str]) -> JobSpec:
    """Reads a spec. Raises SpecError with all its mistakes."""
    with working(f"reading {spec}"):
        from orchestrator import spec as specs

        return specs.load(spec, profile, overrides)


@click.command()
@a_spec
@places("tracking_uri", "data_root", "storage", "address")
@click.option("--cpus", type=click.IntRange(1), help="CPUs of the local cluster (none: all).")
@click.option("--no-tracking", is_flag=True, help="Do not write to MLflow; `track --sync` can do it later.")
@click.option("--no-ship", is_flag=True, help="Do not send this project to the cluster: its image has it.")
@click.option("-q", "--quiet", is_flag=True, help="No live table and no progress lines.")
def submit(
    spec: Path, profile: str | None, overrides: tuple[str, ...], where: Settings, cpus: int | None, no_tracking: bool,
    no_ship: bool, quiet: bool,
) -> None:  # fmt: skip
    """Run the missing trials of a job and print its table. Submitting a finished job again starts nothing."""
    job = load(spec, profile, overrides)
    drive(job, where, cpus, not no_tracking, not no_ship, quiet)


@click.command()
@click.argument("job")
@places("tracking_uri", "data_root", "storage", "address")
@click.option("--cpus", type=click.IntRange(1), help="CPUs of the local cluster (none: all).")
@click.option("--no-tracking", is_flag=True, help="Do not write to MLflow.")
@click.option("--no-ship", is_flag=True, help="Do not send this project to the cluster: its image has it.")
@click.option("-q", "--quiet", is_flag=True, help="No live table and no progress lines.")
def retry(job: str, where: Settings, cpus: int | None, no_tracking: bool, no_ship: bool, quiet: bool) -> None:
    """Run a job's failed and cancelled trials again, and the trials that waited for them."""
    from orchestrator.launch.resume import retried
    from orchestrator.store.store import open_existing

    store = open_existing(where)
    identity = store.jobs.find(job)
    with working("checking the recorded trials"):
        spec, count = retried(store, identity)
    store.close()
    say(f"{identity}: {count} failed or cancelled trials are pending again")
    drive(spec, where, cpus, not no_tracking, not no_ship, quiet)


def drive(job: JobSpec, where: Settings, cpus: int | None, tracking: bool, ship: bool, quiet: bool) -> None:
    """Runs a job under the live table, prints its report, and exits with its code."""
    from orchestrator.cli.progress import Live
    from orchestrator.launch.submit import Options
    from orchestrator.launch.submit import submit as run

    live = Live(quiet)
    try:
        with live:
            done = run(job, where, Options(cpus, tracking, ship, live))
    except KeyboardInterrupt:
        say(f"interrupted; to take over the trials that still run:\n  {again()}")
        sys.exit(INTERRUPTED)
    sys.exit(finish(done, where))


def again() -> str:
    """The command line of this process, to be run again: its flags name the store and the storage of the job."""
    given = [shown(argument) for argument in sys.argv[1:]]
    remedy = "" if given == sys.argv[1:] else "\n  (*** stands for a user and password: set DATABASE_URL instead)"
    return shlex.join(["python", "-m", "orchestrator", *given]) + remedy


def finish(done: Submitted, where: Settings) -> int:
    """Prints the report and the last lines of a submit. Returns its exit code."""
    from orchestrator.records.states import JobState
    from orchestrator.report.build import build
    from orchestrator.report.publish import text
    from orchestrator.store.store import open_to_look

    store = open_to_look(where)
    with output_may_be_unread():
        echo(text(build(store, done.job_id, full=False), "text", where))
    job = store.jobs.get(done.job_id)
    store.close()
    tally = done.tally
    say(f"{done.job_id}: {done.state}; {tally.started} trials started, {tally.already_done} already done")
    if done.tracking:
        say(done.tracking)
    say_retry(job, where)
    others = " ".join(path.suffix for form, path in done.files.items() if form != "html")
    say(f"report:  {done.files['html']}  (and {others} beside it)")
    say(f"MLflow and Ray in a browser:  python -m orchestrator ui{flags(where, 'tracking_uri', 'address')}")
    if done.state in (JobState.interrupted, JobState.cancelled):
        say(f"resume with:\n  {again()}")
        return INTERRUPTED
    return 0 if done.state is JobState.done else UNFINISHED


@click.command()
@a_spec
@places("data_root", "address")
@output
@click.option("--nodes", type=click.IntRange(1), default=1, help="Number of machines, each with --cpus and --gpus.")
@click.option("--cpus", type=float, help="CPUs of a machine [this one's].")
@click.option("--gpus", type=float, help="GPUs of a machine [this one's].")
def plan(
    spec: Path, profile: str | None, overrides: tuple[str, ...], where: Settings, form: str, nodes: int,
    cpus: float | None, gpus: float | None,
) -> None:  # fmt: skip
    """Show what is left to run of a job and what it would cost. Starts and records nothing."""
    from orchestrator.cli.cost_table import lines
    from orchestrator.launch.estimate import estimate, machines
    from orchestrator.launch.model_problems import check_claims
    from orchestrator.launch.notes import missing
    from orchestrator.launch.other_jobs import assume_weights

    written = load(spec, profile, overrides)
    with working("reading data sets and what is recorded, and simulating the job"):
        notes = check_claims(written, spec)
        job = assume_weights(written, where)
        cost = estimate(job, where, machines(where, nodes, cpus, gpus))
    for line in notes:
        say(line)
    absent = missing(job, where.data_root)
    if form == "json":
        claims = [claim.model_dump(mode="json") for claim in job.claims]
        reference = job.report.reference
        published = reference.model_dump(mode="json") if reference else None
        show({**cost.to_json(), "missing": absent, "claims": claims, "published": published})
    else:
        below = ["", *(f"missing here: {line}" for line in absent)] if absent else []
        echo("\n".join([lines(job, cost), *below]))


@click.command()
@a_spec
@places("data_root")
def validate(spec: Path, profile: str | None, overrides: tuple[str, ...], where: Settings) -> None:
    """Check a spec in all its profiles and build its models without memory: lists every mistake with its line, or names
    the job. Notes on standard error say which data and weights this machine lacks, and what tables will note."""
    from orchestrator.launch.model_problems import check_models
    from orchestrator.launch.notes import caveats, missing
    from orchestrator.launch.other_jobs import references_to_other_jobs
    from orchestrator.spec.job import job_id
    from orchestrator.spec.load import load_checking_profiles

    with working(f"checking {spec} in all its profiles, and building its models"):
        job = load_checking_profiles(spec, profile, overrides)
        notes = check_models(job, spec)
    for line in notes:
        say(line)
    for line in [*caveats(job), *(f"missing here: {each}" for each in missing(job, where.data_root))]:
        say(f"note: {line}")
    by_others = f"{job.name} (its id depends on the trials of other jobs that it starts from)"
    name = by_others if references_to_other_jobs(job) else job_id(job)
    echo(f"{spec}: valid; job {name}, stages {', '.join(stage.name for stage in job.stages)}")


@click.command()
@click.option("--table", is_flag=True, help="Of a table file (report --table) instead.")
@click.option("--markdown", "as_text", is_flag=True, help="All fields with their descriptions, to be read.")
def schema(table: bool, as_text: bool) -> None:
    """Print the JSON Schema of a spec file, for editors."""
    from orchestrator.spec.json_schema import json_schema, table_schema

    if as_text:
        from orchestrator.spec.field_reference import markdown

        if table:
            raise click.UsageError("--markdown is of a spec: leave --table out")
        echo(markdown(), end=False)
        return
    show(table_schema() if table else json_schema())


@click.command()
@click.argument("job")
@places()
def cancel(job: str, where: Settings) -> None:
    """Stop a job: its running trials write a checkpoint and end. Submitted again, it resumes from there."""
    from orchestrator.launch.resume import request_cancel
    from orchestrator.store.store import open_existing

    store = open_existing(where)
    say(request_cancel(store, store.jobs.find(job)))
