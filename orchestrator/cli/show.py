"""Commands that show jobs, trials, logs and reports."""

from __future__ import annotations

import sys
from typing import Any

import click

from orchestrator.cli.options import UNFINISHED, output, places, printed, say
from orchestrator.settings import Settings


@click.command("ls")
@places()
@output
def list_jobs(where: Settings, form: str) -> None:
    """All jobs, newest first."""
    from orchestrator.report import status as views
    from orchestrator.store.store import open_existing

    printed(views.ls(open_existing(where)), form)


@click.command()
@click.argument("job", required=False)
@places()
@output
def status(job: str | None, where: Settings, form: str) -> None:
    """How a job stands (none given: the newest)."""
    from orchestrator.report import status as views
    from orchestrator.store.store import open_existing

    store = open_existing(where)
    printed(views.status(store, store.jobs.find(job) if job else newest(store)), form)


def newest(store: Any) -> str:
    from orchestrator.errors import NotFound

    jobs = store.jobs.all()
    if not jobs:
        raise NotFound("no job was submitted here yet: python -m orchestrator submit SPEC")
    return str(max(jobs, key=lambda job: job.created).id)


@click.command()
@click.argument("name", metavar="JOB|TRIAL")
@places("storage")
@output
@click.option("--parameters", is_flag=True, help="Of a trial: learning rate and weight decay of every parameter.")
def describe(name: str, where: Settings, form: str, parameters: bool) -> None:
    """Everything about a job or a trial."""
    from orchestrator.errors import NotFound
    from orchestrator.report import describe as everything
    from orchestrator.store.store import open_existing

    store = open_existing(where)
    if parameters:
        from orchestrator.cli.parameter_groups import table

        printed(table(store, store.trials.find(name)), form)
        return
    try:
        view: Any = everything.job(store, store.jobs.find(name))
    except NotFound:
        view = everything.trial(store, store.trials.find(name), where.storage)
    printed(view, form)


@click.command()
@click.argument("trial")
@places("storage")
@click.option("-f", "--follow", is_flag=True, help="Go on printing while the trial runs.")
def logs(trial: str, where: Settings, follow: bool) -> None:
    """What a trial's attempts wrote."""
    import time

    from orchestrator.errors import NotFound
    from orchestrator.records.trial_files import trial_folder
    from orchestrator.store.store import open_existing

    store = open_existing(where)
    key = store.trials.find(trial)
    path = trial_folder(where.storage, key) / "log.txt"
    if not path.exists():
        raise NotFound(f"trial {key[:12]} has written no log yet ({path})")
    with open(path, encoding="utf-8", errors="replace") as log:
        while True:
            click.echo(log.read(), nl=False)
            if not follow or store.trials.snapshots([key])[key].state.ended:
                break
            time.sleep(1.0)
        click.echo(log.read(), nl=False)


class Form(click.ParamType):  # type: ignore[type-arg]
    """A form of the report. The list is read when it is needed: it would slow the start of every other command."""

    name = "form"

    def _choice(self) -> click.Choice[str]:
        from orchestrator.report.formats import FORMATS

        return click.Choice(list(FORMATS))

    def get_metavar(self, *arguments: Any, **options: Any) -> str | None:
        return self._choice().get_metavar(*arguments, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self._choice().convert(value, param, ctx)


@click.command()
@click.argument("job", required=False)
@places("tracking_uri")
@click.option("-f", "--format", "form", type=Form(), default="text", help="What to print.")
@click.option("--verify", "check", is_flag=True, help="Rebuild everything from SQL; differences are listed, exit 1.")
def report(job: str | None, where: Settings, form: str, check: bool) -> None:
    """The job's table, choices and warnings (none given: the newest). Files are written on submit and by html."""
    from orchestrator.report import publish
    from orchestrator.report.build import build
    from orchestrator.report.formats import FORMATS
    from orchestrator.store.store import open_existing

    store = open_existing(where)
    identity = store.jobs.find(job) if job else newest(store)
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
    click.echo(publish.text(build(store, identity, full=bool(FORMATS[form].suffix)), form, where), nl=form == "text")
    if form == "html" and sys.stdout.isatty():
        say(f"written: {publish.publish(store, identity, where)['html']}")
