"""The classification task: its options, its two sets of images, loss, figures, and who may open test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import trees
from pydantic import ValidationError
from torch import nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from tasks.backbone import BackboneSpec
from tasks.base import DataError, DataPlace
from tasks.classify import Classify
from tasks.datasets import CARDS
from tasks.datasets.augment import Augment

PLAIN = Augment.none()
VIT = BackboneSpec(
    model="vit_tiny_patch16_224",
    args={"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 4},
    image_size=16,
)


def place(root: Path = Path("/nowhere"), **other: Any) -> DataPlace:
    return replace(DataPlace(root, image_size=16, device="cpu", seed=0, batch=4), **other)


def test_a_data_set_and_nothing_else_is_needed() -> None:
    task = Classify.model_validate({"kind": "classify", "dataset": "pets"})
    assert (task.metric, task.mode, task.reads_test) == ("mean_per_class", "max", False)
    assert Classify(dataset="food101").metric == "top1"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dataset": "digit"}, "unknown data set 'digit'; nearest: 'digits'; known: aircraft"),
        ({"train": "trainval"}, "train: trainval holds the images of evaluate: val"),
        ({"dataset": "digits-pretrain", "evaluate": "test"}, "digits-pretrain has no test images"),
        ({"val_fraction": 1.0}, "less than 1"),
        ({"augmnt": {}}, "Extra inputs"),
        ({"augment": {"rand_augment": "auto"}}, "timm's notation"),
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Classify.model_validate({"dataset": "digits", **wrong})


@pytest.mark.parametrize("dataset", ["digits", "faces"])
@pytest.mark.parametrize(("train", "evaluate"), [("train", "val"), ("trainval", "test"), ("train", "test")])
def test_counts_known_before_data_are_opened_are_true(dataset: str, train: Any, evaluate: Any) -> None:
    task = Classify(dataset=dataset, train=train, evaluate=evaluate, augment=PLAIN)
    assert task.missing_data(Path("/nowhere")) is None
    loaders = task.loaders(place(may_test=evaluate == "test"))
    assert loaders.train_images == task.train_images
    assert sum(len(batch["labels"]) for batch in loaders.evaluation()) == task.evaluation_images


def test_counts_of_the_paper() -> None:
    assert Classify(dataset="pets").train_images == 3680 - 736
    assert Classify(dataset="pets").evaluation_images == 736
    assert Classify(dataset="pets", val_fraction=0.1).train_images == 3312
    assert Classify(dataset="flowers", val_fraction=0.1).train_images == 1020  # its val is official
    final = Classify(dataset="food101", train="trainval", evaluate="test")
    assert (final.train_images, final.evaluation_images) == (75_750, 25_250)


def test_test_images_are_closed_to_whoever_still_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CARDS, "pets", trees.pets(tmp_path))
    for dataset in ("digits", "pets"):
        task = Classify(dataset=dataset, train="trainval", evaluate="test", augment=PLAIN)
        assert task.reads_test
        with pytest.raises(DataError, match=f"{dataset}: test images are opened only by trials that come after"):
            task.loaders(place(tmp_path))
        assert task.loaders(place(tmp_path, may_test=True)).train_images == task.train_images


def test_train_val_and_test_share_no_image() -> None:
    seen = []
    for train, evaluate, batch_size in (("train", "val", 300), ("trainval", "test", 599)):
        task = Classify(dataset="digits", train=train, evaluate=evaluate, augment=PLAIN)  # type: ignore[arg-type]
        loaders = task.loaders(place(may_test=True, batch=batch_size))
        trained, held = (
            {image.numpy().tobytes() for batch in batches for image in batch["images"].round(decimals=3)}
            for batches in (loaders.epoch(0), loaders.evaluation())
        )
        assert not trained & held
        seen.append((trained, held))
    assert len(seen[1][0]) == 599


def test_missing_files_are_named_with_the_way_to_get_them(tmp_path: Path) -> None:
    message = Classify(dataset="dtd").missing_data(tmp_path)
    assert message is not None
    assert "dtd/dtd/images, dtd/dtd/labels" in message
    assert "dtd-r1.0.1.tar.gz" in message
    with pytest.raises(DataError, match=r"dtd-r1\.0\.1\.tar\.gz"):
        Classify(dataset="dtd").loaders(place(tmp_path))


def test_files_on_disk_are_trained_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CARDS, "dtd", trees.dtd(tmp_path))
    task = Classify(dataset="dtd", augment=Augment(mixup=0.8))
    model = task.build(VIT, None)
    loaders = task.loaders(place(tmp_path))
    for batch in loaders.epoch(0):
        task.loss(model, batch)["loss"].backward()
    figures = task.measure(model.eval(), loaders.evaluation())
    assert 0 <= figures["top1"] <= 1
    assert figures["top1"] == figures["mean_per_class"]  # as many images of either class


class Fixed(nn.Module):
    """Answers with the images themselves: a row of logits each."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def in_batches(logits: torch.Tensor, labels: torch.Tensor, size: int) -> Iterator[dict[str, torch.Tensor]]:
    for start in range(0, len(labels), size):
        yield {"images": logits[start : start + size], "labels": labels[start : start + size]}


def test_figures_are_those_of_torchmetrics() -> None:
    torch.manual_seed(0)
    labels = torch.cat([torch.arange(10), torch.randint(0, 10, (190,)) ** 2 // 10])  # all ten, not equally often
    logits = torch.randn(200, 10) + 2 * functional.one_hot(labels, 10)
    figures = Classify(dataset="digits").measure(Fixed(), in_batches(logits, labels, 64))
    for name, average in (("top1", "micro"), ("mean_per_class", "macro")):
        assert figures[name] == pytest.approx(MulticlassAccuracy(10, average=average)(logits, labels).item(), abs=1e-6)
    assert figures["loss"] == pytest.approx(functional.cross_entropy(logits, labels).item(), abs=1e-6)
    assert abs(figures["top1"] - figures["mean_per_class"]) > 0.005


def test_a_class_without_images_does_not_enter_the_mean() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    logits = functional.one_hot(torch.tensor([0, 0, 2, 1]), 10).float()  # 2 is predicted, but there is none
    figures = Classify(dataset="digits").measure(Fixed(), in_batches(logits, labels, 4))
    assert figures["mean_per_class"] == pytest.approx((2 / 3 + 1) / 2)
    macro = MulticlassAccuracy(10, average="macro")(logits, labels).item()
    assert macro == pytest.approx((2 / 3 + 1 + 0) / 3)  # why it is not used


def test_loss_smooths_hard_labels_and_takes_soft_ones() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(8, 10), torch.randint(0, 10, (8,))
    task = Classify(dataset="digits", augment=PLAIN.model_copy(update={"label_smoothing": 0.1}))
    soft = 0.9 * functional.one_hot(labels, 10) + 0.01
    hard_loss = task.loss(Fixed(), {"images": logits, "labels": labels})["loss"]
    soft_loss = task.loss(Fixed(), {"images": logits, "labels": labels, "targets": soft})["loss"]
    assert hard_loss.item() == pytest.approx(soft_loss.item(), abs=1e-6)
    assert soft_loss.item() == pytest.approx((-soft * logits.log_softmax(1)).sum(1).mean().item(), abs=1e-6)


def test_weights_of_another_task_start_the_backbone_and_never_the_head() -> None:
    torch.manual_seed(0)
    source = Classify(dataset="digits-pretrain").build(VIT, None)
    weights = {name: value.clone() for name, value in source.state_dict().items()}
    model = Classify(dataset="digits").build(VIT, weights)  # ten classes as well
    assert torch.equal(model.state_dict()["blocks.0.attn.qkv.weight"], weights["blocks.0.attn.qkv.weight"])
    assert not torch.equal(model.state_dict()["head.weight"], weights["head.weight"])
    kept = Classify(dataset="digits", head="keep").build(VIT, weights)
    assert torch.equal(kept.state_dict()["head.weight"], weights["head.weight"])
    zero = Classify(dataset="faces", head="zero").build(VIT, weights)
    assert zero.state_dict()["head.weight"].abs().sum() == 0


def test_specs_load_without_torch() -> None:
    """What every command pays at start."""
    code = (
        "import sys, orchestrator.spec, workers.trial, tasks\n"
        "tasks.Classify(dataset='digits').train_images\n"
        "from tasks.backbone import BackboneSpec; BackboneSpec(model='resnet50', image_size=224)\n"
        "print([name for name in ('torch', 'torchvision', 'timm', 'numpy', 'sklearn', 'ray') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
