"""Every spec's whole protocol on Ray, cut down to seconds by its `smoke` profile."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_job import NOBODY, environment
from spec_files import SPECS

from orchestrator.cli.main import cli
from orchestrator.spec import load
from tasks.datasets.scenes import people, rooms
from tasks.datasets.scenes.made import made


@pytest.fixture(autouse=True)
def without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment variable sends a command elsewhere."""
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its generated sets have a few images each, drawn as all are: to draw the thousands takes longer than a job."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        for scenes in (people, rooms):
            patch.setattr(scenes, "COUNTS", {"train": 80, "val": 20, "test": 20})
            made(scenes.NAME, root)
    return root


def call(*arguments: str | Path) -> Result:
    """A command in this process, which must exit with 0."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def trials_started(submitted: Result) -> int:
    match = re.search(r"(\d+) trials started", submitted.stderr)
    assert match, submitted.stderr
    return int(match[1])


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_smoke_profile_runs_to_the_end_and_only_once(
    spec: Path, ray_cluster: str, data_root: Path, tmp_path: Path
) -> None:
    submit = ["submit", spec, "--profile", "smoke", "--runs", tmp_path, "--no-tracking", "--no-ship", "--quiet"]
    submit += ["--data-root", data_root]
    first = call(*submit, "--address", ray_cluster)
    status = json.loads(call("status", "--runs", tmp_path, "-o", "json").stdout)
    assert status["state"] == "done"
    assert status["states"]["done"] + status["states"]["stopped"] == status["trials"]
    assert 0 < trials_started(first) <= status["trials"]  # stages may share a trial
    assert [stage["stage"] for stage in status["stages"]] == [stage.name for stage in load(spec, "smoke").stages]
    assert all(stage["placed"] == stage["expected"] > 0 for stage in status["stages"])

    table = json.loads(call("report", "--runs", tmp_path, "-f", "json").stdout)
    assert table["cells"]
    for cell in table["cells"]:
        assert cell["value"] is not None, cell
        assert cell["row"] in first.stdout
    call("report", "--verify", "--runs", tmp_path)

    again = call(*submit, "--address", NOBODY)  # a job that is done needs no cluster
    assert trials_started(again) == 0
    assert again.stdout == first.stdout
