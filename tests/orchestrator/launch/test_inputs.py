"""Which data and weights a job lacks, whatever its tasks call them."""

from __future__ import annotations

from pathlib import Path

import pytest
from k12_job import BASE

from orchestrator.launch.inputs import missing_data
from tasks.backbones.spec import FromFile, Init, Scratch
from tasks.classification.task import Classify
from workers.trial import TrialSpec

SHA256 = "a" * 64


class Tracked(Classify):
    """A task whose videos are not named by a field `dataset` alone, and which compares two models."""

    videos: str = "one"
    other: Init = Scratch()

    def missing_data(self, root: Path) -> str | None:
        return None if self.videos == "none" else f"videos {self.videos}: not under {root}"


def trial(**fields: object) -> TrialSpec:
    spec = TrialSpec.model_validate(BASE)
    return spec.model_copy(update={"task": Tracked(dataset="digits", **fields)})  # type: ignore[arg-type]


def test_tasks_that_differ_in_any_option_are_asked_and_each_paragraph_appears_once(tmp_path: Path) -> None:
    specs = [trial(), trial(videos="two"), trial(videos="two", split_seed=1), trial(videos="none")]
    assert missing_data(specs, tmp_path).split("\n\n") == [
        f"2 data sets or weights are missing (data root {tmp_path}; another with --data-root or DATA_ROOT):",
        f"videos one: not under {tmp_path}",
        f"videos two: not under {tmp_path}",
        "Nothing was started.",
    ]
    assert missing_data([trial(videos="none")], tmp_path) == ""


def test_weights_that_a_task_names_beside_the_backbone_are_looked_for(tmp_path: Path) -> None:
    file = FromFile(name="MIM", path="mim.safetensors", sha256=SHA256)
    (head, missing, _) = missing_data([trial(videos="none", other=file)], tmp_path / "none").split("\n\n")
    assert head.startswith("missing data or weights (data root")
    assert "a folder that does not exist" in head
    assert missing.startswith("weights MIM: no file")


def test_a_weights_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def missing(init: FromFile, root: Path) -> str | None:
        reads.append(init.path)
        return None

    monkeypatch.setattr(FromFile, "missing", missing)
    file = FromFile(name="MIM", path="mim.safetensors", sha256=SHA256)
    specs = [trial(videos="none", other=file, split_seed=seed) for seed in range(3)]
    assert missing_data(specs, tmp_path) == ""
    assert reads == ["mim.safetensors"]
