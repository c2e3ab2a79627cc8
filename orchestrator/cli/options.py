"""Options that several commands share: addresses and folders, the spec, the form of the output."""

from __future__ import annotations

import contextlib
import functools
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.printable import printable
from orchestrator.records.states import TrialState
from orchestrator.report.formatting import printable_lines
from orchestrator.settings import Settings, settings, shown

if TYPE_CHECKING:
    from orchestrator.records.rows import JobRow

INTERRUPTED = 130
"""Exit code after Ctrl-C, SIGTERM, SIGHUP or `cancel`."""
UNFINISHED = 1
"""Exit code of a job that ended with failed trials."""

F = TypeVar("F", bound=Callable[..., Any])


def echo(text: object, end: bool = True) -> None:
    """Prints a result to standard output: every command does so by this, so that text of others stays text. `end`:
    with a line end after it."""
    click.echo(printable_lines(str(text)), nl=end)


def say(line: str) -> None:
    """Prints a message to standard error, so that piped output stays clean."""
    click.echo(printable(line, lines=True), err=True)


def places(*wanted: str) -> Callable[[F], F]:
    """Adds options for addresses and folders; the command gets them as one argument, `where: Settings`."""
    known = {
        "runs": ("--runs", "Folder of everything that is written [ORCHESTRATOR_RUNS, runs]."),
        "database_url": ("--database-url", "Results: sqlite:///... or postgresql://... [DATABASE_URL]."),
        "tracking_uri": ("--tracking-uri", "MLflow: a server or a database [MLFLOW_TRACKING_URI]."),
        "data_root": ("--data-root", "Folder of data sets and weights [DATA_ROOT, data]."),
        "storage": ("--storage", "Folder of checkpoints and weights, shared by all nodes [ORCHESTRATOR_STORAGE]."),
        "address": ("--address", "Ray cluster [RAY_ADDRESS]; none: this machine."),
    }
    names = ("runs", "database_url", *wanted)

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def call(*arguments: Any, **options: Any) -> Any:
            given = {name: options.pop(name) for name in names}
            given["folder"] = given.pop("runs")
            return command(*arguments, where=settings(**given), **options)

        decorated: Any = call
        for name in reversed(names):
            flag, text = known[name]
            decorated = click.option(flag, name, help=text)(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def a_spec(command: F) -> F:
    """Adds the arguments that describe a job: SPEC, --profile, --set."""
    command = click.option(
        "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override a field: optim.epochs=5."
    )(command)
    command = click.option("--profile", help="A profile of the spec [the spec's own default].")(command)
    return click.argument("spec", type=click.Path(path_type=Path))(command)


def flags(where: Settings, *names: str) -> str:
    """The options, each after a space, with which a command typed here finds these places; empty where it finds them
    without. `names`: of the options besides --runs and --database-url that the command has; none: all. A password is
    replaced by ***."""
    usual = settings()
    by_folder = settings(folder=where.folder)
    told = [] if where.folder == usual.folder else ["--runs", str(where.folder)]
    for name in ("database_url", *(names or ("tracking_uri", "data_root", "storage", "address"))):
        value = getattr(where, name)
        if value is not None and value != getattr(by_folder, name):
            told += [f"--{name.replace('_', '-')}", shown(str(value))]
    return "".join(f" {shlex.quote(each)}" for each in told)


def say_retry(job: JobRow, where: Settings) -> None:
    """Says how to run a job's failed and cancelled trials again, if it has any."""
    if job.counts[TrialState.failed] + job.counts[TrialState.cancelled]:
        say(f"to run what failed again:\n  python -m orchestrator retry {job.id}{flags(where)}")


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Says on a terminal what a command that takes seconds does; nowhere else, and the line goes when it is done."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False).status(printable(what)):
        yield


def output(command: F) -> F:
    """Adds the option `-o table|json`; the command gets it as `form`."""
    return click.option(
        "-o", "--output", "form", type=click.Choice(["table", "json"]), default="table", help="How to print."
    )(command)


def show(value: Any) -> None:
    """Prints a value as JSON."""
    echo(json.dumps(value, indent=1, allow_nan=False))


def printed(view: Any, form: str) -> None:
    """Prints a View as a table or as JSON."""
    if form == "json":
        show(view.to_json())
    else:
        echo(view.text())
