"""Crops of cut-outs: the same on every call, of their part's photographs, with exact masks; and their data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest

from tasks.base import DataContext, Task
from tasks.classification.task import Classify
from tasks.datasets.labelled import bundled_images, partition
from tasks.datasets.labelled.card import SplitSpec
from tasks.datasets.scenes import crops
from tasks.datasets.scenes.made import place
from tasks.datasets.scenes.shapes import CLASSES, Placement, box_of, drawn
from tasks.datasets.scenes.textures import Textures
from tasks.errors import DataError
from tasks.pretraining.task import Pretrain

GOLDEN = [120.0, 27.3, 183.7, 138.0, 146.1, 167.7, 86.9, 65.5, 55.7, 110.1, 171.5, 148.6]
FEW = {"train": ("pretrain", 40), "val": ("val", 20)}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set of 60 crops in the place of 9,000."""
    monkeypatch.setattr(crops, "COUNTS", FEW)
    bundled_images.load_bundled.cache_clear()


def test_a_crop_depends_on_its_part_and_index_alone() -> None:
    first = crops.crop("train", 7)
    crops.crop("val", 3)
    again = crops.crop("train", 7)
    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, crops.crop("train", 17).pixels)
    assert not np.array_equal(first.pixels, crops.crop("val", 7).pixels)


def test_crops_are_what_version_1_made() -> None:
    """Raise VERSIONS in made.py when this changes. Coarse, since JPEG and rounding differ a little between machines."""
    means = [crops.crop(part, index).pixels.mean() for part in ("train", "val") for index in range(6)]
    assert np.abs(np.array(means) - np.array(GOLDEN)).max() < 1


def test_a_cut_out_can_be_seen_and_is_of_its_class() -> None:
    for index in range(20):
        crop = crops.crop("train", index)
        mask = crop.cover > 127
        ring = (crop.cover == 0) & (np.add.outer(*[np.abs(np.arange(64) - 31.5)] * 2) < 64)
        assert 0.04 < mask.mean() < 0.6
        assert abs(crop.pixels[mask].mean() - crop.pixels[ring].mean()) > 15
        assert crop.label == index % 10


def test_silhouettes_differ_and_their_boxes_hold_them() -> None:
    place_ = Placement(20, 30, 14, 0.3, 1.2)
    masks = {name: drawn(name, place_, 64, 64) > 127 for name in CLASSES}
    for name, mask in masks.items():
        left, top, width, height = box_of(mask) or (0, 0, 0, 0)
        assert mask[top : top + height, left : left + width].sum() == mask.sum() > 100
        assert mask[top].any()
        assert mask[:, left + width - 1].any()
        assert all((mask != other).mean() > 0.01 for other_name, other in masks.items() if other_name != name)
    assert box_of(np.zeros((4, 4), bool)) is None


def test_parts_of_the_scenes_share_no_photograph() -> None:
    files = [
        {texture.photo.file for texture in Textures(part, "scenes").all}
        for part in ("pretrain", "train", "val", "test")
    ]
    assert sum(map(len, files)) == len(set.union(*files))
    assert [part for part, _ in crops.COUNTS.values()] == ["pretrain", "val"]


def test_the_digest_is_that_of_the_card(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the numbers alone: pixels are no part of it, and none are made when a job is planned."""
    card = trees.card_of("scene-crops")
    assert partition.digest(card, tmp_path, SplitSpec("scene-crops")) == card.digest
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(crops, "COUNTS", {"train": ("pretrain", 8000), "val": ("val", 1000)})
    (folder := place("scene-crops", tmp_path)).mkdir(parents=True)
    np.save(folder / crops.FILE, np.zeros((9000, 1, 1, 3), np.uint8))
    assert partition.make(card, tmp_path, SplitSpec("scene-crops")).digest == card.digest


def test_the_set_holds_its_crops_with_their_classes(few: None, tmp_path: Path) -> None:
    part = bundled_images.load_bundled(replace(trees.card_of("scene-crops"), train=40, val=20), tmp_path)
    assert np.array_equal(part.images[5], crops.crop("train", 5).pixels)
    assert np.array_equal(part.images[43], crops.crop("val", 3).pixels)
    assert [part.labels[5], part.labels[43]] == [crops.crop("train", 5).label, crops.crop("val", 3).label]


@pytest.mark.parametrize("task", [Classify(dataset="scene-crops"), Pretrain(dataset="scene-crops", mask_patch=8)])
def test_both_tasks_refuse_a_set_of_other_counts(few: None, tmp_path: Path, task: Task) -> None:
    context = DataContext(tmp_path, input_size=(64, 64), device="cpu", seed=0, batch=10)
    with pytest.raises(DataError, match="60 images of 10 classes in the installed package, expected 9000"):
        task.loaders(context)
    assert [task.opens[name] for name in ("photos", "textures")] == ["dataset: scene-crops"] * 2


def test_damaged_crops_are_named(few: None, tmp_path: Path) -> None:
    (folder := place("scene-crops", tmp_path)).mkdir(parents=True)
    (folder / crops.FILE).write_bytes(b"")
    with pytest.raises(DataError, match=r"scene-crops: .*images\.npy cannot be read .*remove its folder"):
        bundled_images.load_bundled(trees.card_of("scene-crops"), tmp_path)
