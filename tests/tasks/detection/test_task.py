"""Detection as a task: it trains through the real loop and is measured; what its fields decide; wrong data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import object_trees as trees
import pytest
import torch
from object_trees import described, detection_trial
from PIL import Image
from tiny_task import run, seen

from tasks.backbones.spec import BackboneSpec
from tasks.base import DataContext
from tasks.detection.figures import METRICS
from tasks.detection.model import TERMS
from tasks.detection.task import Detection
from tasks.errors import DataError
from workers.errors import Stopped, TrialError


def test_it_trains_and_is_measured(tmp_path: Path) -> None:
    outcome, (report,) = run(detection_trial(), tmp_path)
    assert set(outcome.figures) == {metric.name for metric in METRICS}
    learnt = trees.IMAGES["train"] - 1
    assert outcome.facts["steps"] == learnt // 6
    assert outcome.facts["preprocessing"]["images_without_objects"] == 1
    assert np.isfinite(report.values["train_loss"])
    terms = [report.values[f"train_{name}"] for name in TERMS.values()]
    assert sum(terms) == pytest.approx(report.values["train_loss"], rel=1e-5)
    rows = [json.loads(line) for line in (tmp_path / "measurements.jsonl").read_text().splitlines()]
    assert {(row["figure"], row["item"]) for row in rows} == {
        (figure, name) for figure in ("ap_box", "ap_mask") for name in trees.CATEGORIES.values()
    }
    of_boxes = [row["value"] for row in rows if row["figure"] == "ap_box"]
    assert np.mean(of_boxes) == pytest.approx(outcome.figures["ap_box"])
    with Image.open(tmp_path / "pictures" / "detections-0001.png") as image:
        assert image.width > 8 * 200


def test_weights_of_an_earlier_trial_are_evaluated_on_another_part(tmp_path: Path) -> None:
    parent, _ = run(detection_trial(), tmp_path / "parent")
    assert parent.weights is not None
    init, still = {"init": {"kind": "trial", "name": "MIM", "trial": "k"}}, {"epochs": 0}
    given = {"parents": {"k": parent.weights}}
    again, _ = run(detection_trial(described(head="keep"), init, optim=still), tmp_path / "again", **given)
    assert again.figures == pytest.approx(parent.figures)
    on_test = described(head="keep", evaluate="test")
    other, _ = run(detection_trial(on_test, init, may_test=True, optim=still), tmp_path / "test", **given)
    assert other.figures["ap_box"] != parent.figures["ap_box"]
    wrong = described(head="keep", detector={**trees.SMALL, "channels": 4})
    with pytest.raises(ValueError, match=r"task.head keep: .* weights are not those of a detector with this backbone"):
        run(detection_trial(wrong, init, optim=still), tmp_path / "wrong", **given)


def test_an_interrupted_epoch_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    trial = detection_trial(optim={"epochs": 2})
    outcome, reports = run(trial, tmp_path / "whole")
    calls = iter(range(100))
    with pytest.raises(Stopped):
        run(trial, tmp_path / "parts", stop=lambda: next(calls) == 2)
    ended, others = run(trial, tmp_path / "parts")
    assert seen(others)[-1] == seen(reports)[-1]
    assert ended.figures == outcome.figures


def test_its_backbone_starts_another_detector_and_is_taken_out(tmp_path: Path) -> None:
    """With a fresh head, and as timm's model without its classifier, for `weights export`."""
    torch.manual_seed(0)
    task, backbone = trees.detection(), BackboneSpec.model_validate(trees.SWIN)
    first = task.build(backbone, None)
    other = Detection.model_validate(described(detector={**trees.SMALL, "channels": 4}, sizes=task.sizes))
    second = other.build(backbone, first.state_dict()).state_dict()
    prefix = "pyramid.maps.backbone."
    inside = {name: t for name, t in first.state_dict().items() if name.startswith(prefix)}
    assert inside
    assert all(torch.equal(second[name], t) for name, t in inside.items())
    plain = task.plain_model(backbone, first).state_dict()
    assert all(torch.equal(plain[name.removeprefix(prefix)], t) for name, t in inside.items())


@pytest.mark.parametrize(("detections", "said"), [(100, 0), (99, 1), (300, 1)])
def test_another_number_of_detections_than_the_published_one_is_said(detections: int, said: int) -> None:
    """COCO's evaluation takes 100 of each class: 300 of an image would count, and raise AP."""
    fields = {"kind": "detection", "dataset": "coco-instances", "detector": {"detections": detections}}
    caveats = Detection.model_validate(fields).caveats
    wanted = f"at most {detections} detections of an image; published figures are of 100"
    assert caveats[1:] == (wanted,) * said


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such set": ({"dataset": "coco-instance"}, r"unknown data set 'coco-instance'; nearest: 'coco-instances'"),
    "another kind of set": ({"dataset": "digits"}, r"unknown data set 'digits'; .*known: coco-instances, scene-obj"),
    "another form": ({"dataset": {"kind": "folder", "path": "x"}}, r"must be the name of a data set, or \{kind: coco"),
    "no labels of test": (
        {"dataset": "coco-instances", "evaluate": "test"},
        r"coco-instances has no labelled test part: set evaluate to val",
    ),
    "range": ({"augment": {"scale": [2, 0.1]}}, r"\[2.0, 0.1\] is no range"),
    "no anchors": ({"detector": {"anchor_ratios": []}}, r"at least 1 item"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_fields_say_what_to_do(name: str) -> None:
    changes, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        Detection.model_validate(described(**changes))


def test_head_keep_needs_weights() -> None:
    with pytest.raises(ValueError, match=r"task.head keep takes the head of an earlier trial"):
        detection_trial(described(head="keep"))


def test_an_image_size_that_maps_do_not_divide_is_refused() -> None:
    backbone = BackboneSpec(model="resnet10t", image_size=80)
    with pytest.raises(ValueError, match=r"image_size 80: the coarsest map .* stride of 32 pixels; take a multiple"):
        trees.detection().build(backbone, None)


def test_windows_that_do_not_divide_are_refused() -> None:
    """timm and the reference code differ there: so 1,024 pixels have windows of 16, and not the paper's 14."""
    backbone = BackboneSpec(model="swinv2_base_window12_192", image_size=1024, args={"window_size": 14})
    with torch.device("meta"), pytest.raises(ValueError, match="window 14 does not divide"):
        trees.detection().build(backbone, None)


def test_the_papers_model_is_planned_without_memory() -> None:
    """SwinV2-B (86.9 M without classifier), and the pyramid and heads of mmdetection's Mask R-CNN (about 20 M)."""
    task = Detection.model_validate({"kind": "detection", "dataset": "coco-instances"})
    backbone = BackboneSpec(model="swinv2_base_window12_192", image_size=1024, args={"window_size": 16})
    with torch.device("meta"):
        model = task.build(backbone, None)
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert 105 < count < 109
    assert (task.train_samples, task.evaluation_samples) == (117_266, 5_000)


def test_counts_and_classes_of_described_data_are_planned_and_stay_out_of_the_key(tmp_path: Path) -> None:
    trial = detection_trial()
    assert (trial.task.train_samples, trial.task.evaluation_samples) == (14, 9)
    (sizes,) = trial.task.sizes.values()  # type: ignore[attr-defined]
    assert sizes.classes == 3
    elsewhere = trees.write(tmp_path / "copy")
    there = {"kind": "coco", "path": str(elsewhere), "name": trees.shared_tree().name}
    assert detection_trial(described(dataset=there)).key == trial.key
    content = json.loads((elsewhere / "annotations" / "instances_val2017.json").read_text())
    content["annotations"][0]["category_id"] = 9
    (elsewhere / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    assert detection_trial(described(dataset=there)).key != trial.key


def test_test_images_wait_for_every_choice(tmp_path: Path) -> None:
    task = Detection.model_validate(described(evaluate="test"))
    context = DataContext(tmp_path, (64, 64), device="cpu", seed=0, batch=6)
    with pytest.raises(DataError, match="test images are opened only by trials that come after every choice"):
        task.loaders(context)


def test_an_unreadable_image_ends_the_trial_with_its_name(tmp_path: Path) -> None:
    base = trees.write(tmp_path / "objects")
    (base / "train2017" / "000000000103.png").write_bytes(b"nothing")
    trial = detection_trial(described(dataset={"kind": "coco", "path": str(base)}))
    with pytest.raises(TrialError, match=r"train2017/000000000103.png"):
        run(trial, tmp_path / "trial")


def test_an_image_of_another_size_than_its_annotations_is_refused(tmp_path: Path) -> None:
    base = trees.write(tmp_path / "objects")
    Image.new("RGB", (64, 64)).save(base / "val2017" / "000000000203.png")
    trial = detection_trial(described(dataset={"kind": "coco", "path": str(base)}))
    with pytest.raises(TrialError, match=r"000000000203.png has 64 x 64 pixels, and its annotations are for 100 x 128"):
        run(trial, tmp_path / "trial")
