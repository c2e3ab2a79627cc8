"""Segmentation as a task: it trains through the real loop and is measured; what its fields decide; wrong data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from class_map_trees import write_ade20k, write_map
from PIL import Image
from pydantic import ValidationError
from segmentation_trials import IMAGES, NAMES, SWIN, described, segmentation, segmentation_trial, write
from tiny_task import digest, run

import tasks.segmentation.task as module
from tasks.backbones.spec import BackboneSpec
from tasks.base import DataContext
from tasks.errors import DataError
from tasks.segmentation.task import METRICS, Segmentation
from workers.trial import TrialSpec

pytest.importorskip("transformers")
LEARNABLE: dict[str, Any] = {"scale": [1, 1.2], "colours": 0}


@pytest.mark.parametrize("decoder", ["upernet", "mask2former"])
def test_it_trains_and_is_measured(decoder: str, tmp_path: Path) -> None:
    task = segmentation(decoder=decoder, baseline="frequent_class")
    outcome, (report,) = run(segmentation_trial(task), tmp_path)
    assert set(outcome.figures) == {*(metric.name for metric in METRICS), "frequent_miou"}
    assert all(0 <= value <= 1 for value in outcome.figures.values())
    terms = {"upernet": ("main", "auxiliary"), "mask2former": ("class", "mask", "dice")}[decoder]
    assert sum(report.values[f"train_{name}"] for name in terms) == pytest.approx(report.values["train_loss"], rel=1e-5)
    rows = [json.loads(line) for line in (tmp_path / "measurements.jsonl").read_text().splitlines()]
    assert [(row["figure"], row["item"]) for row in rows] == [("miou", name) for name in NAMES]
    assert np.mean([row["value"] for row in rows]) == pytest.approx(outcome.figures["miou"])
    for name in ("segmentation", "confusion"):
        with Image.open(tmp_path / "pictures" / f"{name}-0001.png") as image:
            assert image.width > 200


def test_colours_that_tell_the_classes_are_learnt(tmp_path: Path) -> None:
    """Far above what the most frequent class of each place gives."""
    task = segmentation(baseline="frequent_class", augment=LEARNABLE)
    optim = {"epochs": 0, "iterations": 40, "schedule": "poly", "min_lr": 0, "warmup_iterations": 2}
    outcome, _ = run(segmentation_trial(task, optim, runtime={"report_iterations": 40}), tmp_path)
    assert outcome.figures["miou"] > 2 * outcome.figures["frequent_miou"]
    assert 0.1 < outcome.figures["frequent_miou"] < 0.4


def test_ade20k_in_its_published_layout(tmp_path: Path) -> None:
    """150 classes, 0 of a file is none; the figure of the last epoch is over val."""
    write_ade20k(tmp_path)
    fields = {**described(), "dataset": "ade20k"}
    task = Segmentation.model_validate(fields)
    outcome, _ = run(segmentation_trial(task, {"batch": 2}), tmp_path)
    assert set(outcome.figures) == {"miou", "macc", "aacc"}
    loaders = task.loaders(DataContext(tmp_path, (32, 32), "cpu", 0, 2))
    (batch,) = loaders.evaluation()
    assert len(batch["classes"]) == 150
    assert set(batch["maps"].unique().tolist()) <= {*range(150), 255}


def test_two_micro_batches_give_the_weights_of_one(tmp_path: Path) -> None:
    """Of Mask2Former, whose loss draws points. (UperNet's batch norm sees other images.)"""
    task = segmentation(decoder="mask2former")
    one, other = (
        run(segmentation_trial(task, {"micro_batch": part}), tmp_path / str(part))[1][-1].values["train_loss"]
        for part in (6, 3)
    )
    assert one == pytest.approx(other, rel=1e-4)


def test_a_kept_head_is_evaluated_without_training(tmp_path: Path) -> None:
    outcome, _ = run(segmentation_trial(segmentation()), tmp_path / "first")
    weights = outcome.weights
    assert weights is not None
    init = {"kind": "file", "path": str(weights.path), "sha256": digest(outcome), "name": "first"}
    kept = segmentation_trial(segmentation(head="keep"), {"epochs": 0}, backbone={**SWIN, "init": init})
    again, _ = run(kept, tmp_path / "second")
    assert dict(again.figures) == dict(outcome.figures)


def test_the_other_decoders_options_are_no_part_of_the_key() -> None:
    def key(**fields: Any) -> str:
        return segmentation_trial(segmentation(**fields)).key

    other = {"mask2former": {"channels": 64}}
    assert key() == key(**other)
    assert key(decoder="mask2former") != key(decoder="mask2former", **other)
    assert key() != key(decoder="mask2former")
    assert key() != key(upernet={"channels": 32})


def test_stride_and_size_of_the_paper() -> None:
    task = Segmentation(dataset="ade20k")
    how = task._predicting(640)
    assert (how.mode, how.stride) == ("slide", 426)
    assert Segmentation(dataset="ade20k", decoder="mask2former")._predicting(512).mode == "whole"


def test_a_missing_library_is_told_when_the_spec_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    content = segmentation_trial(segmentation()).model_dump(mode="json")
    monkeypatch.setattr(module, "LIBRARY", "transformers_that_is_not_here")
    with pytest.raises(
        ValidationError, match=r"task\.kind segmentation needs the library .* pip install '\.\[segmentation\]'"
    ):
        TrialSpec.model_validate(content)


@pytest.mark.parametrize(
    ("fields", "backbone", "words"),
    [
        ({"decoder": "mask2former", "test": {"multiple": 24}}, SWIN, r"task\.test\.multiple 24, .* window 2 does not"),
        (
            {},
            {**SWIN, "image_size": 24, "args": {**SWIN["args"], "window_size": 3}},
            r"image_size 24: .* multiple of 16",
        ),
    ],
)
def test_sizes_that_do_not_fit(fields: dict[str, Any], backbone: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        segmentation(**fields).build(BackboneSpec.model_validate(backbone), None)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"test": {"short": 64, "long": 32}}, "long 32 is below short 64"),
        ({"mask2former": {"attention_heads": 3}}, "attention_heads 3 does not divide channels 256"),
        ({"dataset": "ade20k", "evaluate": "test"}, "ade20k has no labelled test part: set evaluate to val"),
        ({"dataset": "ade20", "evaluate": "val"}, "ade20k"),
    ],
)
def test_wrong_fields(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Segmentation.model_validate({**described(), **fields})


def test_maps_of_several_sizes_have_no_most_frequent_class_by_place(tmp_path: Path) -> None:
    write(tmp_path, {"train": 12, "val": 2})
    write(tmp_path, {"val": 1}, (24, 40))
    task = segmentation(tmp_path, baseline="frequent_class")
    loaders = task.loaders(DataContext(tmp_path, (32, 32), "cpu", 0, 6))
    with pytest.raises(
        DataError, match=r"image images/val/000\.png has 24 x 40 pixels .* maps 24 x 32: set task\.baseline none"
    ):
        list(loaders.evaluation())
    write(tmp_path, {"train": 1}, (24, 40))
    with pytest.raises(DataError, match=r"training maps differ in size: set task\.baseline none"):
        segmentation(tmp_path, baseline="frequent_class").loaders(DataContext(tmp_path, (32, 32), "cpu", 0, 6))


def test_images_of_several_sizes_are_evaluated_in_the_size_of_their_files(tmp_path: Path) -> None:
    write(tmp_path, {"train": 12, "val": 3})
    write(tmp_path, {"val": 1}, (40, 70))
    task = segmentation(tmp_path)
    model = task.build(BackboneSpec.model_validate(SWIN), None).eval()
    (batch,) = task.loaders(DataContext(tmp_path, (32, 32), "cpu", 0, 6)).evaluation()
    with torch.no_grad():
        shapes = [tuple(guess.shape) for guess, _ in task.predicted(model, batch)]
        ((_, part),) = task.measure(model, [batch])
    assert sorted(shapes) == [(24, 32), (24, 32), (40, 70)]
    assert part["counts"].sum() == sum(int((each != 255).sum()) for each in batch["maps"])


def test_maps_without_a_labelled_pixel_are_refused_instead_of_measured_as_0(tmp_path: Path) -> None:
    write(tmp_path, {"train": 12, "val": 2})
    for path in (tmp_path / "annotations" / "val").iterdir():
        write_map(path, np.full((24, 32), 255, np.uint8))
    task = segmentation(tmp_path)
    model = task.build(BackboneSpec.model_validate(SWIN), None).eval()
    (batch,) = task.loaders(DataContext(tmp_path, (32, 32), "cpu", 0, 6)).evaluation()
    with torch.no_grad():
        parts = list(task.measure(model, [batch]))
    with pytest.raises(DataError, match=r"no pixel of val has a class, so there is nothing to measure"):
        task.summarize(parts)


def test_counts_are_those_of_the_folders() -> None:
    task = segmentation()
    assert (task.train_samples, task.evaluation_samples) == (IMAGES["train"], IMAGES["val"])
    assert task.model_options["classes"] == 3
