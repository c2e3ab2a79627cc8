"""specs/cog.yaml on tiny levels in the true layout: which files a whole study opens, and when."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from data_commands import trees

from orchestrator import spec
from orchestrator.launch.data_manifests import with_manifests
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.settings import settings
from orchestrator.spec.job import JobSpec
from orchestrator.spec.sweep import Grid
from workers.state import RankContext
from workers.train import train

SPEC = Path(__file__).parents[2] / "specs" / "cog.yaml"
SMALL = [
    "backbone.model=vit_tiny_patch16_224", "backbone.image_size=16", "optim.batch=6", "optim.warmup_epochs=0",
    "backbone.args={patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}", "optim.layer_decay_scheme=timm",
    "runtime.loader_workers=0", "resources.workers=1", "resources.gpus=0",
]  # fmt: skip
SEARCHED = {"optim.epochs": [1], "optim.lr": [1e-4, 1e-3], "optim.layer_decay": [0.75]}


@cache
def opened() -> list[str]:
    """Files that this process opened since it was first asked, whoever opened them. (An audit hook stays for ever.)"""
    files: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and "imagenet21k" in str(arguments[0]):
            files.append(str(arguments[0]))

    sys.addaudithook(note)
    return files


def small(root: Path, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    """The paper's profile with another model, two learning rates and one epoch; its stages are as they are."""
    for level in range(1, 6):
        trees.plant(f"cog-l{level}", root, monkeypatch)
    job = spec.load(SPEC, "paper", SMALL)
    search, *others = job.stages
    axes = {**SEARCHED, "backbone.init": [{"kind": "none", "name": "RAND"}]}
    grid = Grid.model_validate({"grid": axes})
    return job.model_copy(update={"stages": [search.model_copy(update={"sweep": grid}), *others]})


def images(root: Path, level: int, part: str) -> set[str]:
    lists = json.loads((root / "cog" / f"l{level}.json").read_text())
    return {f"{root}/imagenet21k/{name}" for of in lists.values() for name in of[part]}


def test_of_the_levels_only_what_l1_is_searched_on_is_opened_before_the_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, files = small(tmp_path, monkeypatch), opened()
    files.clear()
    planner = Planner(with_manifests(job, settings(folder=tmp_path / "runs", data_root=tmp_path)), DurationModel())
    handed: list[PlannedTrial] = []
    while planned := planner.next(lambda each: True):
        assert len(planner.decisions) == (len(handed) >= 2)  # the two of the search, then the choice
        if len(handed) == 2:
            assert set(files) == images(tmp_path, 1, "train")
        handed.append(planned)
        place = RankContext(folder=tmp_path / "runs" / planned.key, data_root=tmp_path)
        outcome = train(planned.spec, place, lambda report: None, lambda: False)
        planner.update(planned.key, TrialSnapshot(TrialState.done, figures=outcome.figures))
    assert [each.stage for each in handed] == ["search"] * 2 + ["apply"] * 5
    assert sorted(each.spec.task.dataset for each in handed[2:]) == [f"cog-l{level}" for level in range(1, 6)]  # type: ignore[union-attr]
    assert planner.finished()
    assert planner.incomplete() == []
    for level in range(1, 6):
        assert images(tmp_path, level, "test") < set(files)
        assert images(tmp_path, level, "train") & set(files)
