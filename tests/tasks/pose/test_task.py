"""Pose as a task: every published layout trains and is measured, backbones of each kind, what its fields decide."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import person_trees as trees
import pytest
import torch
from PIL import Image
from pose_trials import STILL, SWIN, described, pose_trial
from tiny_task import after, assert_close, run, seen

from tasks.backbones.spec import BackboneSpec
from tasks.base import DataContext
from tasks.errors import DataError
from tasks.pose.evaluation import check_results
from tasks.pose.task import METRICS, Pose
from workers.errors import Stopped, TrialError
from workers.trial import TrialSpec


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with both published layouts."""
    path = tmp_path_factory.mktemp("root")
    return trees.published_crowdpose(trees.published_coco(path))


def fields(dataset: str, **other: Any) -> dict[str, Any]:
    return {"kind": "pose", "dataset": dataset, "sigma": 1, "augment": STILL, **other}


LAYOUTS: dict[str, tuple[dict[str, Any], int, str]] = {
    "coco": (fields("coco-keypoints"), 39, "coco"),
    "coco with its own boxes": (fields("coco-keypoints", boxes="ground_truth"), 39, "coco"),
    "crowdpose": (fields("crowdpose", train="trainval", evaluate="test"), 60, "crowdpose"),
    "described": (described(boxes="detections"), 39, "coco"),
    "described, by the other evaluator": (described(evaluator="crowdpose"), 39, "crowdpose"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_trains_and_is_measured(name: str, root: Path, tmp_path: Path) -> None:
    task, persons, evaluator = LAYOUTS[name]
    trial = pose_trial(task, may_test=task.get("evaluate") == "test")
    assert trial.task.planned_fields(root, [tmp_path])["manifests"].keys() == set(trial.task.manifest_names)
    outcome, (report,) = run(trial, tmp_path / "trial", data_root=root)
    assert set(outcome.figures) == {metric.name for metric in METRICS[evaluator]}
    assert outcome.facts["steps"] == persons // 12
    assert np.isfinite(report.values["train_loss"])
    rows = [json.loads(line) for line in (tmp_path / "trial" / "measurements.jsonl").read_text().splitlines()]
    assert len(rows) == trees.IMAGES[trial.task.split] - 1
    assert np.mean([row["value"] for row in rows]) == pytest.approx(outcome.figures["oks_mean"])
    for picture in ("worst_poses", "best_poses"):
        with Image.open(tmp_path / "trial" / "pictures" / f"{picture}-0001.png") as image:
            assert image.width > 8 * 192


def test_without_public_labels_the_result_is_a_submission(root: Path, tmp_path: Path) -> None:
    trial = pose_trial(fields("coco-keypoints", evaluate="test"), may_test=True)
    outcome, _ = run(trial, tmp_path, data_root=root)
    assert outcome.figures == {}
    name = outcome.facts["submission"]
    assert Path(name).parent == tmp_path
    with zipfile.ZipFile(name) as archive:
        (entry,) = archive.namelist()
        results = json.loads(archive.read(entry))
    assert entry == "person_keypoints_test-dev2017_pose_results.json"  # [test set]_[algorithm]
    images = json.loads((root / "coco" / "annotations" / "image_info_test-dev2017.json").read_text())["images"]
    check_results(results, [image["id"] for image in images], 17)
    assert {each["image_id"] for each in results} == {image["id"] for n, image in enumerate(images) if n != trees.EMPTY}


MODELS: dict[str, dict[str, Any]] = {
    "swinv2": {**SWIN, "drop_path": 0.1},
    "swin": {**SWIN, "model": "swin_tiny_patch4_window7_224"},
    "vit": {
        "model": "vit_tiny_patch16_224", "image_size": 32,
        "args": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    },
    "beit": {
        "model": "beit_base_patch16_224", "image_size": 32,
        "args": {"patch_size": 16, "embed_dim": 24, "depth": 2, "num_heads": 2},
    },
    "replknet": {
        "model": "replknet_31b", "image_size": 64,
        "args": {"layers": [1, 1, 1, 1], "channels": [4, 4, 8, 8], "kernels": [5, 5, 5, 5]},
    },
    "third stage": {
        **SWIN, "image_size": 64, "drop_last": 1,
        "args": {**SWIN["args"], "depths": [1, 1, 3, 1], "num_heads": [1, 1, 2, 2]},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_heat_maps_are_a_quarter_of_the_input_for_every_backbone(name: str) -> None:
    backbone = BackboneSpec.model_validate(MODELS[name])
    model = Pose.model_validate(described()).build(backbone, None).eval()
    side = backbone.image_size
    assert model(torch.zeros(2, 3, side, side)).shape == (2, 17, side // 4, side // 4)


def test_inputs_need_not_be_square_nor_backbones_have_a_final_norm() -> None:
    backbone = BackboneSpec(model="resnet10t", image_size=64)
    model = Pose.model_validate(described(size=[64, 32])).build(backbone, None)
    assert model.eval()(torch.zeros(1, 3, 64, 32)).shape == (1, 17, 16, 8)


def test_the_final_norm_is_a_choice() -> None:
    images, backbone = torch.randn(1, 3, 32, 32), BackboneSpec.model_validate(SWIN)
    with_norm, without = (
        Pose.model_validate(described(final_norm=norm)).build(backbone, None) for norm in (True, False)
    )
    assert {"backbone.norm.weight"} <= set(with_norm.state_dict()) - set(without.state_dict())
    assert without.eval()(images).isfinite().all()


def test_an_input_that_the_stride_does_not_divide_is_refused() -> None:
    backbone = BackboneSpec(model="resnet10t", image_size=64)
    with pytest.raises(ValueError, match=r"64 x 48 pixels does not divide by the stride of 32 of resnet10t's last"):
        Pose.model_validate(described(final_norm=False, size=[64, 48])).build(backbone, None)


def test_layer_decay_of_the_public_code_fits(tmp_path: Path) -> None:
    swin = {**SWIN, "image_size": 64, "args": {**SWIN["args"], "depths": [1, 1, 2, 1], "num_heads": [1, 1, 2, 2]}}
    optim = {"layer_decay": 0.9, "layer_decay_scheme": "swin29", "epochs": 2, "schedule": "step", "step_epochs": [1]}
    outcome, _ = run(pose_trial(backbone=swin, optim=optim), tmp_path)
    assert 0 <= outcome.figures["ap"] <= 1


def loaders(trial: TrialSpec, root: Path, **other: Any) -> Any:
    task = trial.task
    context = DataContext(root, task.input_size(trial.backbone), device="cpu", seed=4, batch=12)
    return task.loaders(replace(context, **other))


def test_a_sample_depends_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    trial = pose_trial()
    first, other = (list(loaders(trial, tmp_path, batch=batch).epoch(1)) for batch in (12, 6))
    rows = [{row.numpy().tobytes() for batch in batches for row in batch["images"]} for batches in (first, other)]
    assert len(rows[0]) == len(rows[1]) == 36
    assert len(rows[0] & rows[1]) >= 33  # of the 39 the order leaves three others out
    later = {row.numpy().tobytes() for batch in loaders(trial, tmp_path).epoch(2) for row in batch["images"]}
    assert not rows[0] & later
    workers = list(loaders(trial, tmp_path, loader_workers=1).epoch(1))
    assert all(torch.equal(a["joints"], b["joints"]) for a, b in zip(first, workers, strict=True))


def test_every_image_is_in_the_truth_once_with_or_without_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.pose.loaders.EVALUATED_AT_ONCE", 4)
    batches = list(loaders(pose_trial(), tmp_path).evaluation())
    assert len(batches) > 3
    assert [image["id"] for batch in batches for image in batch["truth"]] == list(range(200, 208))
    for batch in batches:
        assert set(batch["image_ids"].tolist()) <= {i["id"] for b in batches for i in b["truth"]}
    assert sum(len(image["persons"]) for batch in batches for image in batch["truth"]) == 21


def test_joints_lie_where_the_input_shows_them(tmp_path: Path) -> None:
    """The bright spots of the tree are at the joints, after warp and augmentation too."""
    trial = pose_trial(
        described(normalize="half", augment={**STILL, "jitter_prob": 0, "scale": 0.1}), {"image_size": 64}
    )
    bright: list[float] = []
    for batch in loaders(trial, tmp_path).epoch(0):
        for image, joints, visible in zip(batch["images"], batch["joints"], batch["visible"], strict=True):
            places = joints[visible > 0].round().long()
            inside = places[((places >= 1) & (places < 63)).all(1)]
            bright += image.mean(0)[inside[:, 1], inside[:, 0]].tolist()
    assert len(bright) > 200
    assert np.mean([value > 0.3 for value in bright]) > 0.9  # the ground is below 0


def test_the_flip_test_makes_the_prediction_of_a_mirrored_image_mirrored(tmp_path: Path) -> None:
    task = Pose.model_validate(described(refine="none"))
    torch.manual_seed(0)
    model = task.build(BackboneSpec.model_validate(SWIN), None).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        places, scores = task.predicted(model, images)
        mirrored, other = task.predicted(model, images.flip(-1))
    torch.testing.assert_close(scores, other[:, task.skeleton.flip_order])
    torch.testing.assert_close(places[..., 0], 31 - mirrored[:, task.skeleton.flip_order, 0])
    alone = task.model_copy(update={"flip_test": False}).predicted(model, images)[1]
    assert not torch.allclose(alone, scores)


def test_a_trial_stopped_and_resumed_has_the_same_figures(tmp_path: Path) -> None:
    trial = pose_trial(optim={"epochs": 2})
    whole, reports = run(trial, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(trial, tmp_path / "parts", after(4))
    ended, others = run(trial, tmp_path / "parts")
    assert ended.facts["resumed_at"] == 4
    assert ended.figures == whole.figures
    assert seen(others)[-1] == seen(reports)[-1]
    assert_close(ended, whole)


def test_weights_of_an_earlier_trial_are_evaluated_with_other_boxes(tmp_path: Path) -> None:
    parent, _ = run(pose_trial(), tmp_path / "parent")
    assert parent.weights is not None
    init = {"init": {"kind": "trial", "name": "MIM", "trial": "k"}}
    still = {"epochs": 0}
    again, _ = run(
        pose_trial(described(head="keep"), init, optim=still), tmp_path / "again", parents={"k": parent.weights}
    )
    assert again.figures == parent.figures
    other = pose_trial(described(head="keep", boxes="detections"), init, optim=still)
    boxes, _ = run(other, tmp_path / "boxes", parents={"k": parent.weights})
    assert boxes.figures != parent.figures
    fresh, _ = run(pose_trial(described(), init, optim=still), tmp_path / "fresh", parents={"k": parent.weights})
    assert fresh.figures["oks_mean"] != parent.figures["oks_mean"]
    wrong = pose_trial(described(head="keep", filters=16), init, optim=still)
    with pytest.raises(
        ValueError, match=r"task.head keep: .* weights are not those of a pose model with this backbone"
    ):
        run(wrong, tmp_path / "wrong", parents={"k": parent.weights})


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such set": ({"dataset": "coco-keypoint"}, r"unknown data set 'coco-keypoint'; nearest: 'coco-keypoints'"),
    "another kind of set": ({"dataset": "digits"}, r"unknown data set 'digits'; .*known: coco-keypoints, crowdpose,"),
    "another form": ({"dataset": {"kind": "folder", "path": "x"}}, r"must be the name of a data set, or \{kind: coco"),
    "trainval and val": ({"train": "trainval"}, r"train: trainval holds the images of evaluate: val"),
    "labels that are not public": (
        {"dataset": "coco-keypoints", "evaluate": "test"},
        r"boxes: ground_truth needs labels, and those of coco-keypoints test are not public",
    ),
    "file of boxes unused": ({"boxes_file": "boxes.json"}, r"boxes_file names detected boxes, and boxes is ground"),
    "even blur": ({"blur": 4}, r"blur 4 has no middle pixel: use 3 or 5"),
    "size": ({"size": [30, 32]}, r"multiple of 4"),
    "range": ({"augment": {"grid_unit": [20, 10]}}, r"\[20, 10\] is no range"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_fields_say_what_to_do(name: str) -> None:
    changes, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        Pose.model_validate(described(**changes))


@pytest.mark.parametrize(
    ("task", "backbone", "message"),
    [
        (
            {"augment": {}},
            {},
            r"task.augment.grid_unit \[10, 40\] is larger than the input of 32 x 32 pixels: lower it",
        ),
        ({"augment": {}, "size": [64, 32]}, {}, r"larger than the input of 64 x 32"),
        ({"head": "keep"}, {}, r"task.head keep takes the head of an earlier trial"),
        ({}, {"image_size": 30}, r"backbone.image_size 30: .* a multiple of 4"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_runs(
    task: dict[str, Any], backbone: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pose_trial(described(**task), backbone)


def test_test_images_wait_for_every_choice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"people: test images are opened only by trials that come after every choice"):
        loaders(pose_trial(described(evaluate="test"), may_test=True), tmp_path, may_test=False)


def test_places_and_sizes_stay_out_of_the_key(tmp_path: Path) -> None:
    plain = described(boxes="detections")
    boxes = trees.shared_tree() / "person_detection_results" / "val2017_detections.json"
    copy = tmp_path / "other.json"
    copy.write_bytes(boxes.read_bytes())

    def planned(**changes: Any) -> TrialSpec:
        task = Pose.model_validate({**plain, **changes})
        return pose_trial({**plain, **changes, **task.planned_fields(tmp_path)})

    published = planned()
    assert published.task.train_samples == 39
    assert published.task.evaluation_samples == 21
    # a named file with the same boxes is the same trial, wherever it lies
    assert planned(boxes_file=str(copy)).key == published.key
    copy.write_text(json.dumps(json.loads(copy.read_text())[:9]))
    assert planned(boxes_file=str(copy)).key != published.key
    assert planned(boxes_file=str(copy)).task.evaluation_samples == 9
    unsized = pose_trial({**plain, "manifests": dict(published.task.manifests)})  # type: ignore[attr-defined]
    assert unsized.key == published.key


def test_crowdposes_figures_need_a_crowd_index_before_anything_is_trained(tmp_path: Path) -> None:
    base = trees.coco_tree(tmp_path / "people")
    path = base / "annotations" / "person_keypoints_val2017.json"
    trees.changed(path, lambda content: content["images"][3].pop("crowdIndex") and None)
    trial = pose_trial(described(dataset={"kind": "coco", "path": str(base)}, evaluator="crowdpose"))
    line = r"people: 1 of 8 images have no crowdIndex \(first: image 203\), .*: set task\.evaluator: coco, or take anno"
    with pytest.raises(DataError, match=line):
        loaders(trial, tmp_path)


def test_an_unreadable_image_ends_the_trial_with_its_name(tmp_path: Path) -> None:
    base = trees.coco_tree(tmp_path / "people")
    (base / "val2017" / "000000000200.png").write_bytes(b"nothing")
    trial = pose_trial(described(dataset={"kind": "coco", "path": str(base)}))
    with pytest.raises(TrialError, match=r"^data: people: cannot read image .*000000000200\.png"):
        run(trial, tmp_path / "trial")


def test_what_was_left_out_is_a_fact(tmp_path: Path) -> None:
    base = trees.coco_tree(tmp_path / "people")
    path = base / "annotations" / "person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = [3, 3, 0, 0]
    path.write_text(json.dumps(content))
    found = loaders(pose_trial(described(dataset={"kind": "coco", "path": str(base)})), tmp_path)
    assert found.train_samples == 38
    assert found.preprocessing == {"trained_boxes_without_area": 1}
