"""The commands. Data on stdout, messages on stderr; heavy imports wait for the command that needs them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.avgdist import avgdist
from orchestrator.cli.cleanup import gc, pin, unpin
from orchestrator.cli.data import data
from orchestrator.cli.options import a_spec, output, places, printed, say, show
from orchestrator.cli.settings_table import settings as table_7
from orchestrator.cli.weights import weights
from orchestrator.errors import OrchestratorError
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from orchestrator.launch.submit import Submitted
    from orchestrator.spec.job import JobSpec

INTERRUPTED = 130
UNFINISHED = 1


def load(spec: Path, profile: str | None, overrides: Sequence[str]) -> JobSpec:
    from orchestrator import spec as specs

    return specs.load(spec, profile, overrides)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Studies of visual pre-training: one spec, its trials on Ray, curves in MLflow, results in SQL, the tables."""


@cli.command()
@a_spec
@places("tracking_uri", "data_root", "storage", "address")
@click.option("--cpus", type=click.IntRange(1), help="CPUs of the local cluster (none: all).")
@click.option("--no-tracking", is_flag=True, help="Leave MLflow alone; `track --sync` can fill it in later.")
@click.option("--no-ship", is_flag=True, help="The cluster's image has this project: do not send it.")
@click.option("-q", "--quiet", is_flag=True, help="No live table, no progress lines.")
def submit(
    spec: Path, profile: str | None, overrides: tuple[str, ...], where: Settings, cpus: int | None, no_tracking: bool,
    no_ship: bool, quiet: bool,
) -> None:  # fmt: skip
    """Run what is missing of a job, and print its table. The same spec again starts nothing."""
    job = load(spec, profile, overrides)
    drive(job, where, cpus, not no_tracking, not no_ship, quiet)


@cli.command()
@click.argument("job")
@places("tracking_uri", "data_root", "storage", "address")
@click.option("--cpus", type=click.IntRange(1), help="CPUs of the local cluster (none: all).")
@click.option("--no-tracking", is_flag=True, help="Leave MLflow alone.")
@click.option("--no-ship", is_flag=True, help="The cluster's image has this project: do not send it.")
@click.option("-q", "--quiet", is_flag=True, help="No live table, no progress lines.")
def retry(job: str, where: Settings, cpus: int | None, no_tracking: bool, no_ship: bool, quiet: bool) -> None:
    """Run a job's failed and cancelled trials again, and what waited for them; nothing else."""
    from orchestrator.spec.job import JobSpec
    from orchestrator.store.reading import read_only_store

    store = read_only_store(where)
    identity = store.find_job(job)
    count = store.retry(identity)
    spec = JobSpec.model_validate(store.job_spec(identity))
    store.close()
    say(f"{identity}: {count} failed or cancelled trials are pending again")
    drive(spec, where, cpus, not no_tracking, not no_ship, quiet)


def drive(job: JobSpec, where: Settings, cpus: int | None, tracking: bool, ship: bool, quiet: bool) -> None:
    """Runs a job under the live table, prints the end, and leaves with its exit code."""
    from orchestrator.cli.progress import Live
    from orchestrator.launch.submit import Options
    from orchestrator.launch.submit import submit as run

    live = Live(quiet)
    try:
        with live:
            done = run(job, where, Options(cpus, tracking, ship, live, live.say))
    except KeyboardInterrupt:
        say(f"interrupted; trials that still run are found again by:\n  {again()}")
        sys.exit(INTERRUPTED)
    sys.exit(finish(done, where))


def again() -> str:
    """This very command: its flags say where things are, and that is where the job goes on."""
    return shlex.join(["python", "-m", "orchestrator", *sys.argv[1:]])


def finish(done: Submitted, where: Settings) -> int:
    """The last lines of a submit; its exit code."""
    from orchestrator.records.rows import JobState
    from orchestrator.report.build import build
    from orchestrator.report.publish import text
    from orchestrator.store.reading import read_only_store

    store = read_only_store(where)
    click.echo(text(build(store, done.job_id, full=False), "text", where))
    store.close()
    tally = done.tally
    say(f"{done.job_id}: {done.state}; {tally.started} trials started, {tally.found} were there already")
    if done.message:
        say(done.message)
    if done.tracking:
        say(done.tracking)
    say(f"report:  {done.files['html']}  (and .md .csv .tex .json beside it)")
    runs = "" if where.folder == Path("runs").absolute() else f" --runs {where.folder}"
    say(f"MLflow and Ray in a browser:  python -m orchestrator ui{runs}")
    if done.state is JobState.interrupted:
        say(f"resume with:\n  {again()}")
        return INTERRUPTED
    return 0 if done.state is JobState.done else UNFINISHED


@cli.command()
@a_spec
@places("data_root", "address")
@output
@click.option("--nodes", type=click.IntRange(1), default=1, help="Plan for so many machines like the following.")
@click.option("--cpus", type=float, help="CPUs of a machine [this one's].")
@click.option("--gpus", type=float, help="GPUs of a machine [this one's].")
def plan(
    spec: Path, profile: str | None, overrides: tuple[str, ...], where: Settings, form: str, nodes: int,
    cpus: float | None, gpus: float | None,
) -> None:  # fmt: skip
    """What a job would run and cost from here on. Starts and records nothing."""
    from orchestrator.launch.estimate import estimate, lines, machines
    from orchestrator.launch.other_jobs import assume

    job = assume(load(spec, profile, overrides), where)
    cost = estimate(job, where, machines(where, nodes, cpus, gpus))
    if form == "json":
        show(cost.to_json())
    else:
        click.echo(lines(job, cost))


@cli.command()
@a_spec
def validate(spec: Path, profile: str | None, overrides: tuple[str, ...]) -> None:
    """Check a spec: every mistake with its line, or what it would be."""
    from orchestrator.launch.other_jobs import elsewhere
    from orchestrator.spec.job import job_id

    job = load(spec, profile, overrides)
    by_others = f"{job.name} (its id follows from the trials of other jobs that it starts from)"
    name = by_others if elsewhere(job) else job_id(job)
    click.echo(f"{spec}: valid; job {name}, stages {', '.join(stage.name for stage in job.stages)}")


@cli.command()
def schema() -> None:
    """The JSON Schema of a spec file, for editors."""
    from orchestrator.spec.json_schema import json_schema

    show(json_schema())


@cli.command("ls")
@places()
@output
def list_jobs(where: Settings, form: str) -> None:
    """All jobs, newest first."""
    from orchestrator.report import status as views
    from orchestrator.store.reading import read_only_store

    printed(views.ls(read_only_store(where)), form)


@cli.command()
@click.argument("job", required=False)
@places()
@output
def status(job: str | None, where: Settings, form: str) -> None:
    """How a job stands (none given: the newest)."""
    from orchestrator.report import status as views
    from orchestrator.store.reading import read_only_store

    store = read_only_store(where)
    printed(views.status(store, store.find_job(job) if job else newest(store)), form)


def newest(store: Any) -> str:
    from orchestrator.errors import NotFound

    jobs = store.jobs()
    if not jobs:
        raise NotFound("no job was submitted here yet: python -m orchestrator submit SPEC")
    return str(max(jobs, key=lambda job: job.created).id)


@cli.command()
@click.argument("name", metavar="JOB|TRIAL")
@places("storage")
@output
@click.option("--parameters", is_flag=True, help="Of a trial: learning rate and weight decay of every parameter.")
def describe(name: str, where: Settings, form: str, parameters: bool) -> None:
    """Everything about a job or a trial."""
    from orchestrator.errors import NotFound
    from orchestrator.report import describe as everything
    from orchestrator.store.reading import read_only_store

    store = read_only_store(where)
    if parameters:
        from orchestrator.cli.parameter_groups import table

        printed(table(store, store.find_trial(name)), form)
        return
    try:
        view: Any = everything.job(store, store.find_job(name))
    except NotFound:
        view = everything.trial(store, store.find_trial(name), where.storage)
    printed(view, form)


@cli.command()
@click.argument("trial")
@places("storage")
@click.option("-f", "--follow", is_flag=True, help="Go on printing while the trial runs.")
def logs(trial: str, where: Settings, follow: bool) -> None:
    """What a trial's attempts wrote."""
    import time

    from orchestrator.errors import NotFound
    from orchestrator.store.reading import read_only_store
    from workers.trial import trial_folder

    store = read_only_store(where)
    key = store.find_trial(trial)
    path = trial_folder(where.storage, key) / "log.txt"
    if not path.exists():
        raise NotFound(f"trial {key[:12]} has written no log yet ({path})")
    with open(path, encoding="utf-8", errors="replace") as log:
        while True:
            click.echo(log.read(), nl=False)
            if not follow or store.known([key])[key].state.ended:
                break
            time.sleep(1.0)
        click.echo(log.read(), nl=False)


@cli.command()
@click.argument("job")
@places()
def cancel(job: str, where: Settings) -> None:
    """Stop a job: its running trials write a checkpoint and leave. Submitted again, it goes on from there."""
    from orchestrator.records.rows import JobState
    from orchestrator.store.reading import read_only_store

    store = read_only_store(where)
    identity = store.find_job(job)
    state = store.job(identity).state
    if state in (JobState.done, JobState.incomplete, JobState.cancelled):
        say(f"{identity} is {state} already")
        return
    store.request_cancel(identity)
    if any(driver.job_id == identity for driver in store.drivers()):
        say(f"{identity}: its driver was asked to stop")
    else:
        store.set_job_state(identity, JobState.cancelled)
        say(f"{identity}: cancelled (no driver was running)")


@cli.command()
@click.argument("job", required=False)
@places("tracking_uri")
@click.option(
    "-f", "--format", "form", type=click.Choice(["text", "html", "md", "csv", "tex", "json"]), default="text",
    help="What to print.",
)  # fmt: skip
@click.option("--verify", "check", is_flag=True, help="Rebuild everything from SQL; differences are listed, exit 1.")
def report(job: str | None, where: Settings, form: str, check: bool) -> None:
    """The job's table, choices and warnings (none given: the newest). Files are written on submit and by html."""
    from orchestrator.report import publish
    from orchestrator.report.build import build
    from orchestrator.store.reading import read_only_store

    store = read_only_store(where)
    identity = store.find_job(job) if job else newest(store)
    if check:
        from orchestrator.report.verify import verify

        written = publish.saved(where, identity)
        if written is None:
            say("no saved report to compare with: checking the recorded choices alone")
        differences = verify(store, identity, written)
        for line in differences:
            click.echo(line)
        if differences:
            sys.exit(UNFINISHED)
        click.echo(f"{identity}: every number and every choice follows from the recorded figures")
        return
    click.echo(publish.text(build(store, identity, full=form != "text"), form, where), nl=form == "text")
    if form == "html" and sys.stdout.isatty():
        say(f"written: {publish.publish(store, identity, where)['html']}")


@cli.command()
@places("tracking_uri", "storage")
@click.option("--sync", "job", metavar="JOB", help="Bring MLflow up to date with the store, once.")
@click.option("--follow", "beside", metavar="JOB", hidden=True, help="What a driver runs beside itself.")
def track(where: Settings, job: str | None, beside: str | None) -> None:
    """Fill in at the tracking server what it lacks of a job."""
    from orchestrator.errors import BackendUnreachable
    from orchestrator.report.svg.heat_map import picture
    from orchestrator.store.reading import read_only_store

    if not (beside or job):
        raise click.UsageError("say which job: track --sync JOB")
    store = read_only_store(where)
    if beside:
        from orchestrator.tracking.process import follow

        done = follow(store, beside, where.tracking_uri, where.folder, os.getppid(), picture, storage=where.storage)
    else:
        from orchestrator.tracking.mlflow_mirror import sync

        done = sync(store, store.find_job(str(job)), where.tracking_uri, where.folder, picture, storage=where.storage)
    if done.problem:
        raise BackendUnreachable(done.problem)
    say(f"MLflow: {done.runs} runs made, {done.metrics} metric values written, {done.closed} runs closed")


@cli.command()
@places("tracking_uri", "address")
@click.option("--port", type=int, default=5000, help="Of the MLflow UI.")
def ui(where: Settings, port: int) -> None:
    """Open the MLflow UI and the Ray dashboard on this machine's loopback address, until Ctrl-C."""
    from orchestrator.cli.ui import serve

    serve(where, port, say)


cli.add_command(avgdist)
cli.add_command(data)
cli.add_command(gc)
cli.add_command(pin)
cli.add_command(table_7)
cli.add_command(unpin)
cli.add_command(weights)


def main() -> None:
    """Runs a command; what the user can act on is printed as one message, without a traceback."""
    try:
        code = cli.main(standalone_mode=False)
    except OrchestratorError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(INTERRUPTED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
