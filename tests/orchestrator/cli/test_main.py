"""The list of commands: ours, and those that tasks offer."""

from __future__ import annotations

import subprocess
import sys

from click.testing import CliRunner

import tasks
from orchestrator.cli.main import COMMANDS, cli


def test_commands_of_tasks_stand_beside_ours() -> None:
    names = {command.name for command in (*COMMANDS, *tasks.commands())}
    context = cli.make_context("orchestrator", ["ls"])
    assert set(cli.list_commands(context)) == names
    assert "avgdist" in CliRunner().invoke(cli, ["--help"]).output
    assert CliRunner().invoke(cli, ["avgdist", "--patches", "32", "--ratios", "0.6"]).exit_code == 0
    assert "No such command" in CliRunner().invoke(cli, ["avg"]).output


def test_our_commands_start_without_tasks() -> None:
    program = (
        "import sys\n"
        "from orchestrator.cli.main import cli\n"
        "context = cli.make_context('orchestrator', ['status'])\n"
        "assert cli.get_command(context, 'status') is not None\n"
        "heavy = {'torch', 'timm', 'ray', 'mlflow', 'pydantic', 'numpy', 'tasks', 'workers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
