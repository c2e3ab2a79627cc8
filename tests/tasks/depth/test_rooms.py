"""A generated depth set: made when it is first opened, planned before that, with one photograph apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from depth_sets import SIDE, pair, write_own, write_pair
from tiny_task import run

from tasks.base import DataContext
from tasks.datasets import DATASETS
from tasks.datasets.depth_pairs.dataset import SCENE_ROOMS, MadeRooms
from tasks.datasets.depth_pairs.layout import DepthFormat, ListFile
from tasks.datasets.photographs import SHOWS
from tasks.datasets.scenes import rooms
from tasks.depth.task import Depth
from workers.errors import TrialError
from workers.trial import TrialSpec

COUNTS = {"train": 6, "val": 2, "test": 3}
CAVEAT = "these are generated: compare with nothing"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the sets that were made; `few-rooms` is known in this test alone."""
    made: list[str] = []

    def make(name: str, root: Path) -> Path:
        folder = root / "made" / name
        if not folder.exists():
            made.append(name)
            write_own(folder, COUNTS)
            write_pair(folder / "photo.png", folder / "photo_depth.png", *pair(99, SIDE, 24))
            (folder / "photo.txt").write_text("photo.png photo_depth.png\n")
        return folder

    few = MadeRooms(
        name="few-rooms", title="Few rooms", source="made", split="by seed", how_to_get="made", licence="",
        folder="", lists={part: ListFile(f"{part}.txt") for part in ("train", "val", "test")}, counts=COUNTS,  # type: ignore[dict-item, misc]
        format=DepthFormat(), windows=None, apart=ListFile("photo.txt"), apart_count=1, caveat=CAVEAT,
        recipe=lambda name: "5" * 64, make=make,
    )  # fmt: skip
    monkeypatch.setitem(DATASETS, "few-rooms", few)
    return made


def spec(**task: Any) -> TrialSpec:
    return TrialSpec.model_validate({
        "task": {"kind": "depth", "dataset": "few-rooms", **task},
        "backbone": {
            "model": "vit_tiny_patch16_224", "image_size": SIDE,
            "args": {"patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2},
        },
        "optim": {"lr": 1e-3, "batch": 3, "epochs": 1, "warmup_epochs": 0, "clip": 0},
        "may_test": True,
    })  # fmt: skip


def test_planning_makes_nothing_and_the_recipe_enters_the_key(asked: list[str], tmp_path: Path) -> None:
    task = Depth(dataset="few-rooms")
    fields = task.planned_fields(tmp_path)
    assert fields == {"manifests": {"few-rooms/lists": "5" * 64}}
    assert task.missing_data(tmp_path) is None
    assert (task.train_samples, task.evaluation_samples) == (6, 2)
    assert asked == []
    assert spec(**fields).key != spec().key
    other = spec(manifests={"few-rooms/lists": "6" * 64})
    with pytest.raises(
        TrialError, match=r"few-rooms: the lists here have SHA-256 5+, and this trial was planned for 6+"
    ):
        run(other, tmp_path)


def test_it_is_made_once_and_the_photograph_enters_its_own_figure_alone(asked: list[str], tmp_path: Path) -> None:
    alone, _ = run(spec(evaluate="test"), tmp_path / "alone", data_root=tmp_path)
    both, _ = run(spec(evaluate="test", apart=True), tmp_path / "both", data_root=tmp_path)
    assert asked == ["few-rooms"]
    figures = dict(both.figures)
    assert figures.pop("apart_rmse") > 0
    assert figures == dict(alone.figures)
    assert CAVEAT in both.facts["caveats"]
    assert Depth(dataset="few-rooms", evaluate="test", apart=True).evaluation_samples == 4


def test_the_photograph_is_not_opened_where_val_is_evaluated(asked: list[str], tmp_path: Path) -> None:
    task = Depth(dataset="few-rooms", apart=True)
    assert "apart_rmse" not in {metric.name for metric in task.metrics}
    loaders = task.loaders(DataContext(tmp_path, (SIDE, SIDE), device="cpu", seed=0, batch=2))
    assert [name for batch in loaders.evaluation() for name in batch["names"]] == ["val/rgb_000.png", "val/rgb_001.png"]


def test_data_check_makes_it_and_finds_no_fault(asked: list[str], tmp_path: Path) -> None:
    finding = DATASETS["few-rooms"].check(tmp_path, {}, [], images=True)
    assert finding.problems == []
    assert finding.counts == COUNTS
    assert finding.opened == 11
    (tmp_path / "made/few-rooms/val/depth_001.png").unlink()
    (fault,) = DATASETS["few-rooms"].check(tmp_path, {}, [], images=False).problems
    assert fault.startswith("1 of 4 files that the list of val names are not there or empty: val/depth_001.png")


def test_the_counts_that_are_stated_are_the_generators() -> None:
    assert {part: count for part, count in rooms.COUNTS.items() if part != "pretrain"} == SCENE_ROOMS.counts
    assert SCENE_ROOMS.apart == ListFile(f"{rooms.STEREO}.txt")
    assert SCENE_ROOMS.format.steps_per_metre == rooms.MILLIMETRES
    assert Depth(dataset="scene-rooms").opens.keys() >= {"scene-rooms", *SHOWS}
