"""Studies of a stranger, from the pages of docs/ alone: their specs and commands, in a folder with their images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from dataset_trees import draw
from documents import DOCS, commands, files
from small_job import environment

from orchestrator import api
from orchestrator.cli.main import cli
from orchestrator.settings import settings

QUICK = ["--set", "optim.epochs=1", "--set", "optim.warmup_epochs=0"]
"""One epoch of every trial, because the machine that runs this test is a small one."""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the user works; no environment variable sends a command elsewhere."""
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def follow(page: Path, ray: str, skip: tuple[str, ...] = ()) -> dict[str, Result]:
    """Writes the page's files and types its commands, all of which must succeed; the results by command and file."""
    for name, text in files(page).items():
        Path(name).write_text(text)
    results = {}
    for arguments in commands(page):
        if arguments[0] in skip or (arguments[0] in ("plan", "validate", "submit") and not Path(arguments[1]).exists()):
            continue
        more = [*QUICK, "--no-tracking", "--no-ship", "--quiet", "--address", ray] if arguments[0] == "submit" else []
        result = CliRunner().invoke(cli, [*arguments, *more])
        assert result.exit_code == 0, (arguments, result.output, result.exception)
        results[" ".join(arguments[:2])] = result
    return results


def test_an_image_folder_with_two_models_and_three_seeds(stranger: Path, ray_cluster: str) -> None:
    for c, name in enumerate(("ant", "bee", "fly")):
        for i in range(10):
            draw(stranger / "data" / "insects" / name / f"{i:04}.jpg", 100 * c + i)
    said = follow(DOCS / "data.md", ray_cluster)
    frame = api.results("insects", settings(folder=stranger / "runs"))
    assert len(frame) == 6
    assert set(frame["state"]) == {"done"}
    assert frame["seed"].nunique() == 3
    table = said["submit insects.yaml"].stdout
    assert "convnext_atto" in table
    assert "resnet18" in table
    assert "mean over 3 seeds" in table
    assert "insects: complete" in said["data check"].stdout
    assert "grid" in said["plan searched.yaml"].stdout


def test_a_random_search(stranger: Path, ray_cluster: str) -> None:
    said = follow(DOCS / "searches.md", ray_cluster)
    frame = api.results("searched", settings(folder=stranger / "runs"))
    assert len(frame[frame["stage"] == "search"]) == 12
    assert len(frame[frame["stage"] == "final"]) == 1
    assert "every number and every choice follows" in said["report searched"].stdout
    (page,) = (stranger / "runs" / "reports").glob("*/report.html")
    assert "against weight decay, logarithmic" in page.read_text()
