"""Data sets on disk for tests of the orchestrator, and the commands about them as they are typed."""

from __future__ import annotations

from pathlib import Path

import dataset_trees as trees
from click.testing import CliRunner, Result

from orchestrator.cli.data import data
from orchestrator.errors import OrchestratorError

__all__ = ["command", "problems", "trees"]


def command(root: Path, *arguments: object) -> Result:
    """`data ARGUMENTS` with this data root; an error that a user is meant to read has its exit code."""
    places = [] if arguments[0] == "convert" else ["--data-root", root, "--runs", root / "runs"]
    if arguments[0] == "convert":
        arguments = (*arguments[:2], "--data-root", root, *arguments[2:])
    result = CliRunner().invoke(data, [str(part) for part in (*arguments, *places)])
    if isinstance(result.exception, OrchestratorError):
        result.exit_code = result.exception.exit_code
        result.output_bytes += str(result.exception).encode()
    elif result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def problems(result: Result, name: str) -> list[str]:
    return [line for line in result.stdout.splitlines() if line.startswith(f"{name}: ")]
