"""The classification task: its options, its two sets of images, loss, figures, and who may open test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dataset_trees as trees
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from task_figures import figures_of
from torch import nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from tasks.backbones.spec import BackboneSpec
from tasks.base import DataContext
from tasks.classification.task import Classify
from tasks.classification.voc_precision import average_precision
from tasks.datasets import DATASETS
from tasks.datasets.augment import Augment
from tasks.errors import DataError

PLAIN = Augment.none()
VIT = BackboneSpec(
    model="vit_tiny_patch16_224",
    args={"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 4},
    image_size=16,
)


def place(root: Path = Path("/nowhere"), **other: Any) -> DataContext:
    return replace(DataContext(root, input_size=(16, 16), device="cpu", seed=0, batch=4), **other)


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
        ({"dataset": "voc2007"}, "voc2007 has several labels per image.*set augment.mixup, augment.cutmix and"),
        ({"dataset": "pets", "caltech_background": False}, "pets has no class BACKGROUND_Google"),
        ({"dataset": "pets", "official_val": "test"}, "pets has its own test images"),
        ({"dataset": "inat18", "evaluate": "test"}, "inat18 has no test images; evaluate on val"),
        ({"dataset": "inat18", "train": "trainval"}, "train: trainval holds the images of evaluate: val"),
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
    assert loaders.train_samples == task.train_samples
    assert sum(len(batch["labels"]) for batch in loaders.evaluation()) == task.evaluation_samples


def test_counts_of_the_paper() -> None:
    assert Classify(dataset="pets").train_samples == 3680 - 736
    assert Classify(dataset="pets").evaluation_samples == 736
    assert Classify(dataset="pets", val_fraction=0.1).train_samples == 3312
    assert Classify(dataset="flowers", val_fraction=0.1).train_samples == 1020  # its val is official
    final = Classify(dataset="food101", train="trainval", evaluate="test")
    assert (final.train_samples, final.evaluation_samples) == (75_750, 25_250)


def test_test_images_are_closed_to_whoever_still_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "pets", trees.pets(tmp_path))
    for dataset in ("digits", "pets"):
        task = Classify(dataset=dataset, train="trainval", evaluate="test", augment=PLAIN)
        assert task.reads_test
        with pytest.raises(DataError, match=f"{dataset}: test images are opened only by trials that come after"):
            task.loaders(place(tmp_path))
        assert task.loaders(place(tmp_path, may_test=True)).train_samples == task.train_samples


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


@pytest.mark.parametrize("name", trees.TREES)
def test_a_model_is_trained_for_an_epoch_from_every_set_on_disk(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = trees.plant(name, tmp_path, monkeypatch)
    augment = PLAIN if card.several_labels else Augment(mixup=0.8)
    task = Classify(dataset=name, augment=augment, val_fraction=0.4)
    torch.manual_seed(0)
    model = task.build(VIT, None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    size = 2 if task.train_samples < 20 else 18
    loaders = task.loaders(place(tmp_path, batch=size))
    steps = 0
    for batch in loaders.epoch(0):
        loss = task.loss(model, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    assert steps == task.train_samples // size == loaders.steps_per_epoch
    assert all(not torch.equal(before[key], value) for key, value in model.state_dict().items())
    with torch.no_grad():
        figures = figures_of(task, model.eval(), loaders.evaluation())
    assert 0 <= figures[task.metric] <= 1
    assert 0 < figures["loss"] < 5


class Fixed(nn.Module):
    """Answers with the images themselves: a row of logits each."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


def in_batches(logits: torch.Tensor, labels: torch.Tensor, size: int) -> Iterator[dict[str, torch.Tensor]]:
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        yield {"images": logits[part], "labels": labels[part], "item": f"{start:06d}"}


def test_figures_are_those_of_torchmetrics() -> None:
    torch.manual_seed(0)
    labels = torch.cat([torch.arange(10), torch.randint(0, 10, (190,)) ** 2 // 10])  # all ten, not equally often
    logits = torch.randn(200, 10) + 2 * functional.one_hot(labels, 10)
    figures = figures_of(Classify(dataset="digits"), Fixed(), in_batches(logits, labels, 64))
    for name, average in (("top1", "micro"), ("mean_per_class", "macro")):
        assert figures[name] == pytest.approx(MulticlassAccuracy(10, average=average)(logits, labels).item(), abs=1e-6)
    assert figures["loss"] == pytest.approx(functional.cross_entropy(logits, labels).item(), abs=1e-6)
    assert abs(figures["top1"] - figures["mean_per_class"]) > 0.005


def test_top1_is_a_share_of_all_images_and_the_mean_per_class_is_none() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2])
    logits = functional.one_hot(torch.tensor([0, 0, 2, 1, 1]), 10).float()
    task = Classify(dataset="digits")
    summary = task.summarize(list(task.measure(Fixed(), in_batches(logits, labels, 2))))
    assert summary.shares == {"top1": 5}
    assert summary.figures["top1"] == 3 / 5


def test_a_class_without_images_does_not_enter_the_mean() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    logits = functional.one_hot(torch.tensor([0, 0, 2, 1]), 10).float()  # 2 is predicted, but there is none
    figures = figures_of(Classify(dataset="digits"), Fixed(), in_batches(logits, labels, 4))
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


def test_eleven_point_precision_of_a_case_worked_out_by_hand() -> None:
    """By falling score: right, wrong, right, right, wrong. Precision 1, 1/2, 2/3, 3/4, 3/5 at recall 1/3, 1/3, 2/3, 1,
    1: so 1 at the recalls 0, .1, .2, .3, and 3/4 at the seven others."""
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    labels = np.array([1, 0, 1, 1, 0])
    assert average_precision(scores, labels) == pytest.approx((4 * 1 + 7 * 0.75) / 11)
    shuffled = np.array([3, 0, 4, 2, 1])
    assert average_precision(scores[shuffled], labels[shuffled]) == pytest.approx((4 * 1 + 7 * 0.75) / 11)
    with_difficult = average_precision(np.append(scores, [0.95, 0.75]), np.append(labels, [-1, -1]))
    assert with_difficult == pytest.approx((4 * 1 + 7 * 0.75) / 11)
    # ten images of ten: every tenth is reached, also where 3 * 0.1 > 0.3
    assert average_precision(np.linspace(1, 0, 20), np.repeat([1, 0], 10)) == 1
    assert np.isnan(average_precision(scores, np.array([0, 0, -1, 0, 0])))


def test_several_labels_are_measured_and_lost_as_stated() -> None:
    task = Classify(dataset="voc2007", augment=PLAIN)
    assert (task.metric, task.mode) == ("map11", "max")
    torch.manual_seed(0)
    logits = torch.randn(30, 20)
    labels = torch.randint(-1, 2, (30, 20)).float()
    labels[:, 7] = 0  # a class that no image shows
    figures = figures_of(task, Fixed(), in_batches(logits, labels, 8))
    each = [average_precision(logits[:, i].numpy(), labels[:, i].numpy()) for i in range(20) if i != 7]
    assert figures["map11"] == pytest.approx(np.mean(each))
    counted = labels >= 0
    by_hand = -(labels * logits.sigmoid().log() + (1 - labels) * (1 - logits.sigmoid()).log())[counted].mean()
    assert figures["loss"] == pytest.approx(by_hand.item(), abs=1e-6)
    loss = task.loss(Fixed(), {"images": logits, "labels": labels})["loss"]
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-6)


def test_voc_labels_know_several_classes_and_difficult_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.plant("voc2007", tmp_path, monkeypatch)
    task = Classify(dataset="voc2007", augment=PLAIN)
    labels = torch.cat([batch["labels"] for batch in task.loaders(place(tmp_path)).evaluation()])
    assert labels.tolist() == [[1, 1, -1], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    trees.annotation(
        tmp_path / "VOCdevkit" / "VOC2007" / "Annotations" / "000005.xml",
        [("bird", 1), ("bird", 0), ("bird", 1)],  # one that is not difficult is enough
    )
    labels = torch.cat([batch["labels"] for batch in task.loaders(place(tmp_path)).evaluation()])
    assert labels[0].tolist() == [0, 0, 1]


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
        "import sys, orchestrator.spec.load, workers.trial, tasks\n"
        "tasks.Classify(dataset='digits').train_samples\n"
        "from tasks.backbones.spec import BackboneSpec; BackboneSpec(model='resnet50', image_size=224)\n"
        "print([name for name in ('torch', 'torchvision', 'timm', 'numpy', 'sklearn', 'ray') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
