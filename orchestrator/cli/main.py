"""Registers every command, and turns errors into one message and an exit code."""

from __future__ import annotations

import functools
import io
import os
import sys

import click

from orchestrator.cli.cleanup import gc, pin, unpin
from orchestrator.cli.data import data
from orchestrator.cli.first_spec import init
from orchestrator.cli.jobs import cancel, plan, retry, schema, submit, validate
from orchestrator.cli.options import INTERRUPTED, say
from orchestrator.cli.services import track, ui
from orchestrator.cli.settings_table import settings
from orchestrator.cli.shipped_specs import specs
from orchestrator.cli.show import describe, list_jobs, report
from orchestrator.cli.watch import logs, status, trials
from orchestrator.cli.weights import weights
from orchestrator.errors import NotFound, OrchestratorError

COMMANDS = (
    init, specs, submit, plan, validate, schema, list_jobs, status, trials, describe, logs, report, cancel, retry, data,
    weights, gc, pin, unpin, settings, track, ui,
)  # fmt: skip


class Commands(click.Group):
    """The orchestrator's commands and those that tasks offer. Tasks are imported only to list all commands and to find
    one that is not the orchestrator's, so that `status` and `report` start without them."""

    @functools.cached_property
    def _of_tasks(self) -> dict[str, click.Command]:
        import tasks

        return {str(command.name): command for command in tasks.commands()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self._of_tasks])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or self._of_tasks.get(cmd_name)


@click.version_option(package_name="orchestrator", prog_name="orchestrator", message="%(prog)s %(version)s")
@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """Run studies of visual pre-training: one spec, trials on Ray, curves in MLflow, results in SQL, tables."""


for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Runs a command. An error that the user can act on becomes one message and an exit code, without a traceback."""
    _print_what_can_be_printed()
    try:
        _require_working_directory()
        code = cli.main(standalone_mode=False)
    except OrchestratorError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(INTERRUPTED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        say(text.getvalue().removesuffix("\n"))
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _print_what_can_be_printed() -> None:
    """A character that the terminal's encoding lacks is printed as a question mark, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _require_working_directory() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise NotFound("the working directory no longer exists: change to another one") from None
