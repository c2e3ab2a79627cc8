"""docs/plugins.md as typed: a stranger's table of images with their own model, metrics and task, on Ray."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plugin_files as made
import pytest
import yaml
from click.testing import CliRunner, Result
from PIL import Image
from small_job import NOBODY, environment

from orchestrator.cli.main import cli
from orchestrator.errors import OrchestratorError
from orchestrator.store.store import open_store

DOCUMENT = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(\S+)`\n\n```(?:python|yaml)\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE))
COMMANDS = re.findall(r"^python -m orchestrator (.*)$", DOCUMENT, re.MULTILINE)


def images(folder: Path) -> None:
    """96 images that are bright on the left or on the right, and the table of the document."""
    draw = np.random.default_rng(0)
    rows = ["path,label"]
    for number in range(96):
        pixels = draw.integers(0, 90, (32, 32, 3), dtype=np.uint8)
        side = ("left", "right")[number % 2]
        pixels[:, slice(0, 16) if side == "left" else slice(16, 32)] += 120
        path = folder / "birds" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        rows.append(f"birds/{number}.png,{side}")
    (folder / "birds.csv").write_text("\n".join(rows) + "\n")


@dataclass(frozen=True)
class Study:
    folder: Path
    cluster: str
    said: dict[str, Result]
    """Command -> what it said."""

    def call(self, command: str, code: int = 0, *more: str) -> Result:
        """`python -m orchestrator COMMAND` in the study's folder, as in a new process; it must end with this code."""
        with made.forgotten(), contextlib.chdir(self.folder):
            result = CliRunner().invoke(cli, [*shlex.split(command), *more])
        error = result.exception if isinstance(result.exception, OrchestratorError) else None
        assert (error.exit_code if error else result.exit_code) == code, (command, result.output, result.exception)
        return result

    @property
    def job(self) -> str:
        with contextlib.closing(open_store(f"sqlite:///{self.folder / 'runs' / 'store.db'}", create=False)) as store:
            return min(store.jobs.all(), key=lambda job: job.created).id


@pytest.fixture(scope="module")
def study(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    folder = tmp_path_factory.mktemp("birds")
    made.write(folder, {**FILES, "birds/__init__.py": ""})
    images(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - set(environment()):
            patch.delenv(name)
        patch.setenv("ORCHESTRATOR_CACHE", "off")
        done = Study(folder, ray_cluster, {})
        flags = {"submit": ["--address", ray_cluster, "--no-tracking", "--no-ship", "--quiet"]}
        for command in COMMANDS:
            done.said[command.split()[0]] = done.call(command, 0, *flags.get(command.split()[0], []))
        yield done


def error_of(result: Result) -> str:
    assert isinstance(result.exception, OrchestratorError)
    return str(result.exception)


def test_the_study_of_the_document_runs_from_the_document_alone(study: Study) -> None:
    assert list(study.said) == ["validate", "plan", "submit", "report"]
    assert study.said["validate"].stdout.startswith(f"birds.yaml: valid; job {study.job}, stages grid, final")
    assert "3 trials started" in study.said["submit"].stderr
    table = study.said["report"].stdout
    for words in ("accuracy of the worst class (%) ↑", "top-1 accuracy (%) ↑", "mean surprise (nats) ↓", "gamma"):
        assert words in table
    report = json.loads(study.call("report birds -f json").stdout)
    worst, top1, surprise = (cell["value"] for cell in report["cells"])
    assert top1 >= worst > 75, "bright on the left or on the right"
    assert 0 < surprise < np.log(2)
    assert [group["figure"]["name"] for group in report["groups"]] == ["worst_class"]
    study.call("report birds --verify")


def test_its_plugins_are_recorded_and_shown(study: Study) -> None:
    described = study.call(f"describe {study.job}").stdout
    trial = json.loads(study.call("report birds -f json").stdout)["cells"][0]["keys"][0]
    shown = study.call(f"describe {trial}").stdout
    spec = json.loads(study.call(f"describe {trial} -o json").stdout)["spec"]
    assert [plugin["module"] for plugin in spec["plugins"]] == ["birds.model", "birds.metrics", "birds.task"]
    assert {"timm", "torch", "pydantic"} == spec["plugins"][0]["versions"].keys()
    digest = spec["plugins"][0]["digest"]
    for text in (described, shown):
        assert f"plugin birds.model {digest[:12]}" in text
    assert f"plugins.0.digest: {digest}" in shown
    assert f"plugin birds.task {digest[:12]}" in study.call("report birds -f html").stdout
    assert "learning rates" in study.call(f"describe {trial} --parameters").stdout


def test_results_are_read_without_the_plugin_and_nothing_is_run(study: Study) -> None:
    trial = json.loads(study.call("report birds -f json").stdout)["cells"][0]["keys"][0]
    away = shutil.move(study.folder / "birds", study.folder / "elsewhere")
    try:
        for command in ("ls", "status", "report birds", "report birds --verify", f"describe {study.job}",
                        f"describe {trial}"):  # fmt: skip
            study.call(command)
        line = error_of(study.call("retry birds", 3))
        assert line.startswith(
            f"{study.job}: plugin birds.model: not found: neither ./birds.py (or a folder birds with"
        )
        assert "\n" not in line
        assert "plugin birds.model: not found" in error_of(study.call(f"describe {trial} --parameters", 4))
        assert "birds.yaml:2:11: plugins: birds.model: not found" in error_of(study.call("submit birds.yaml", 3))
    finally:
        shutil.move(away, study.folder / "birds")
    again = study.call("submit birds.yaml", 0, "--address", NOBODY, "--no-tracking", "--quiet")
    assert "0 trials started, 3 already done" in again.stderr


def test_a_changed_plugin_is_another_job_and_the_recorded_one_refuses_it(study: Study) -> None:
    kept = (study.folder / "birds" / "metrics.py").read_text()
    (study.folder / "birds" / "metrics.py").write_text(kept.replace("return -logits", "return 2 * -logits"))
    try:
        line = error_of(study.call("retry birds", 3))
        assert re.search(rf"{study.job}: plugin birds\.model: .*/birds has digest \w+, and \w+ was asked for", line)
        planned = study.call("plan birds.yaml").stdout
        assert planned.startswith("birds-")
        assert not planned.startswith(study.job)
    finally:
        (study.folder / "birds" / "metrics.py").write_text(kept)


def test_several_workers_of_one_trial_have_the_plugin_too(study: Study) -> None:
    """Through Ray Train, whose processes are others than the actor's."""
    two = yaml.safe_load(FILES["birds.yaml"])
    two |= {"name": "two", "stages": [{"name": "only"}], "resources": {"workers": 2}}
    two["trial"]["optim"] |= {"epochs": 1, "warmup_epochs": 0, "lr": 0.02}
    (study.folder / "two.yaml").write_text(yaml.safe_dump(two))
    more = study.call("submit two.yaml", 0, "--address", study.cluster, "--no-tracking", "--no-ship", "--quiet")
    assert "done; 1 trials started" in more.stderr
    assert "accuracy of the worst class" in more.stdout
