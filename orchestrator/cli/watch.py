"""Commands that show how far jobs and trials are: status, trials, logs."""

from __future__ import annotations

import sys
from time import sleep
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.names import Named, named
from orchestrator.cli.options import echo, flags, output, places, printed, say
from orchestrator.cli.show import newest
from orchestrator.errors import NotFound
from orchestrator.records.states import JobState, TrialState
from orchestrator.settings import Settings

if TYPE_CHECKING:
    from orchestrator.store.store import Store

WATCH_S = 2.0
"""Seconds between two looks of --watch."""
FOLLOW_S = 1.0
"""Seconds between two looks of --follow."""


@click.command()
@click.argument("job", required=False)
@places()
@output
@click.option("-w", "--watch", is_flag=True, help=f"Show it again every {WATCH_S:g} s, until the job has ended.")
def status(job: str | None, where: Settings, form: str, watch: bool) -> None:
    """Show the progress of a job [the newest], its running trials, and the time left."""
    from orchestrator.report import status as views
    from orchestrator.store.store import open_to_look

    store = open_to_look(where)
    identity = store.jobs.find(job) if job else newest(store)

    def view() -> Any:
        return views.status(store, identity, flags(where))

    if not watch:
        printed(view(), form)
        return
    if form == "json":
        raise click.UsageError("--watch shows a table; leave out --output json")
    _watch(view)


def _watch(view: Any) -> None:
    """Draws a view again and again until its job has ended, or Ctrl-C: on a terminal in one place, elsewhere whenever
    it has changed."""
    drawn = ""
    try:
        while True:
            now = view()
            text = now.text()
            if sys.stdout.isatty():
                click.clear()
                echo(text)
            elif text != drawn:
                echo(text + "\n")
            drawn = text
            if now.content["state"] in (JobState.done, JobState.incomplete, JobState.cancelled):
                return
            sleep(WATCH_S)
    except KeyboardInterrupt:
        return


@click.command()
@click.argument("job", required=False)
@places()
@click.option(
    "--state", "states", multiple=True, type=click.Choice([str(state) for state in TrialState]),
    help="Trials in this state alone; may be given several times.",
)  # fmt: skip
@click.option("--group", metavar="NAME", help="Trials of this group alone, by its name in tables, MLflow or the spec.")
@click.option(
    "--sort", default="stage", metavar="COLUMN", show_default=True,
    help="value (the best first), name, state, epoch, seconds, started, ended, seed, host, or a setting such as "
    "optim.lr; with - before it the other way round.",
)  # fmt: skip
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "csv"]), default="table", help="How to print."
)
def trials(job: str | None, where: Settings, states: tuple[str, ...], group: str | None, sort: str, form: str) -> None:
    """List the trials of a job [the newest], or of a group by its name in MLflow (grid/digits)."""
    from orchestrator.report import trial_list
    from orchestrator.store.store import open_to_look

    store = open_to_look(where)
    if job is None:
        identity = newest(store)
    else:
        found = _job_or_group(store, job)
        if found.kind == "trial":
            raise click.UsageError(f"{job} is a trial: describe {job} shows it")
        identity, group = found.job, group or found.group or None
    view = trial_list.trials(store, identity, states, group, sort)
    if form == "csv":
        echo(trial_list.as_csv(view.content), end=False)
    else:
        printed(view, form)


def _job_or_group(store: Store, name: str) -> Named:
    """As `named`; where nothing has the name, the error is about jobs, unless it looks like that of a group."""
    try:
        return named(store, name)
    except NotFound:
        if "/" not in name:
            store.jobs.find(name)
        raise


@click.command()
@click.argument("name", metavar="JOB|TRIAL|GROUP")
@places("storage")
@click.option("--failed", is_flag=True, help="Of a job or group: the trials that failed alone.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing while trials run.")
def logs(name: str, where: Settings, failed: bool, follow: bool) -> None:
    """Print the log of a trial, all its attempts; or the logs of all trials of a job or group, each line after its
    trial's key and name."""
    from orchestrator.cli.trial_logs import Log, print_logs
    from orchestrator.records.trial_files import trial_folder
    from orchestrator.store.store import open_to_look

    store = open_to_look(where)
    one, found = _trials_of(store, name)
    if failed:
        states = store.trials.snapshots(found)
        found = {key: title for key, title in found.items() if states[key].state is TrialState.failed}
        if not found:
            say(f"no trial of {name} has failed")
            return
    files = {key: trial_folder(where.storage, key) / "log.txt" for key in found}
    if one and not any(path.exists() for path in files.values()):
        (key,) = found
        raise NotFound(f"trial {key[:12]} has written no log yet ({files[key]})")
    opened = [Log(files[key], "" if one else f"{key[:8]} {title} | ") for key, title in found.items()]
    print_logs(opened, _running(store, list(found)) if follow else None, FOLLOW_S)


def _trials_of(store: Store, name: str) -> tuple[bool, dict[str, str]]:
    """Whether the name is that of one trial; and key -> name of the trials that it stands for, in the order of the
    spec. Raises NotFound, Conflict."""
    found = named(store, name)
    if found.kind == "trial":
        return True, {found.key: name}
    placed = store.trials.placed(found.job)
    return False, {trial.key: trial.name for trial in placed if found.group in ("", f"{trial.stage}/{trial.group}")}


def _running(store: Store, keys: list[str]) -> Any:
    return lambda: any(not snapshot.state.ended for snapshot in store.trials.snapshots(keys).values())
