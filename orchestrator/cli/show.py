"""Commands that show jobs, trials and reports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.options import UNFINISHED, echo, output, places, printed, say, say_retry, working
from orchestrator.settings import Settings


@click.command("ls")
@places()
@output
def list_jobs(where: Settings, form: str) -> None:
    """List all jobs, newest first."""
    from orchestrator.report import status as views
    from orchestrator.store.store import open_to_look

    printed(views.ls(open_to_look(where)), form)


def newest(store: Any) -> str:
    """The id of the job that was submitted last. Raises NotFound for a store without jobs."""
    from orchestrator.errors import NotFound

    jobs = store.jobs.all()
    if not jobs:
        raise NotFound("no job was submitted here yet; to submit one: python -m orchestrator submit SPEC")
    return str(max(jobs, key=lambda job: job.created).id)


@click.command()
@click.argument("name", metavar="JOB|TRIAL|GROUP")
@places("storage")
@output
@click.option("--parameters", is_flag=True, help="For a trial: learning rate and weight decay of every parameter.")
def describe(name: str, where: Settings, form: str, parameters: bool) -> None:
    """Show everything about a job or a trial, or the trials of a group by its name in MLflow (grid/digits)."""
    from orchestrator.cli.names import named
    from orchestrator.report import describe as everything
    from orchestrator.store.store import open_to_look

    store = open_to_look(where)
    if parameters:
        from orchestrator.cli.parameter_groups import table

        printed(table(store, store.trials.find(name)), form)
        return
    found = named(store, name)
    if found.kind == "job":
        view: Any = everything.job(store, found.job)
    elif found.kind == "trial":
        view = everything.trial(store, found.key, where.storage)
    else:
        from orchestrator.report.trial_list import trials

        view = trials(store, found.job, group=found.group)
    printed(view, form)


class Form(click.ParamType):  # type: ignore[type-arg]
    """A form of the report. The list of forms is read only when needed: reading it would slow every other command."""

    name = "form"

    def _choice(self) -> click.Choice[str]:
        from orchestrator.report.formats import FORMATS

        return click.Choice(list(FORMATS))

    def get_metavar(self, *arguments: Any, **options: Any) -> str | None:
        return self._choice().get_metavar(*arguments, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self._choice().convert(value, param, ctx)


def _joined(path: Path, where: Settings, form: str, check: bool) -> None:
    """Prints a table that joins several jobs, or checks it."""
    from orchestrator.launch.joined_jobs import joined_table, looked_at
    from orchestrator.report import publish
    from orchestrator.report.joined import build_joined
    from orchestrator.report.verify_joined import verify_joined

    store = looked_at(where)
    table = joined_table(path, store)
    if check:
        differences = verify_joined(store, table)
        for line in differences:
            echo(line)
        if differences:
            sys.exit(UNFINISHED)
        echo(f"{table.name}: every cell follows from the recorded figures of the trials that the file asks for")
        return
    echo(publish.text(build_joined(store, table), form, where), end=form == "text")


@click.command()
@click.argument("job", required=False)
@places("tracking_uri")
@click.option("--table", type=click.Path(path_type=Path), help="Of several jobs: a table file, instead of JOB.")
@click.option("-f", "--format", "form", type=Form(), default="text", help="What to print.")
@click.option(
    "--verify",
    "check",
    is_flag=True,
    help="Check every number and choice against SQL; exit 1 on differences.",
)
def report(job: str | None, where: Settings, table: Path | None, form: str, check: bool) -> None:
    """Print the table, choices and warnings of a job [the newest]. `submit` also writes them to files, as does html.

    With --table: the table of several jobs that a file describes (specs/tables/).
    """
    if table is not None:
        if job is not None:
            raise click.UsageError("give a JOB or --table FILE, not both")
        _joined(table, where, form, check)
        return
    from orchestrator.report import publish
    from orchestrator.report.build import build
    from orchestrator.report.formats import FORMATS
    from orchestrator.store.store import open_to_look

    store = open_to_look(where)
    identity = store.jobs.find(job) if job else newest(store)
    if check:
        from orchestrator.report.model import FORM
        from orchestrator.report.verify import verify

        written = publish.saved(where, identity)
        if written is None:
            say("no saved report to compare with: checking figures and choices alone")
        elif written.get("form") != FORM:
            say("the saved report is of an earlier version: comparing its numbers, not its words")
        with working(f"checking every number of {identity}"):
            differences = verify(store, identity, written)
        for line in differences:
            echo(line)
        if differences:
            sys.exit(UNFINISHED)
        echo(f"{identity}: every number and every choice follows from the recorded figures")
        return
    with working(f"building the report of {identity}"):
        text = publish.text(build(store, identity, full=bool(FORMATS[form].suffix)), form, where)
    echo(text, end=form == "text")
    if form == "text" and sys.stderr.isatty():
        say_retry(store.jobs.get(identity), where)
    if form == "html" and sys.stdout.isatty():
        say(f"written: {publish.publish(store, identity, where)['html']}")
