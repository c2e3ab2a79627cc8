"""Trials with a frozen backbone, in part or whole: probes, frozen parts, k-NN, figures of each class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from task_figures import figures_of
from tiny_task import after, digest, outcome_values, run, weights_of
from torch import nn

from orchestrator.plan.durations import EVALUATION_SHARE, DurationModel
from orchestrator.spec.job import Resources
from tasks.backbones.spec import FromTrial
from tasks.base import DataContext
from tasks.classification.nearest import classified, unit
from tasks.classification.probe import NORM_EPS, norm_before_head
from workers.checkpoint import Folder
from workers.errors import Stopped
from workers.optim import parameter_groups
from workers.prepare import prepare
from workers.state import RankContext, TrainingState
from workers.trial import TrialSpec

RESNET: dict[str, Any] = {"model": "resnet10t", "image_size": 16}
VIT: dict[str, Any] = {
    "model": "vit_tiny_patch16_224", "image_size": 16, "drop_path": 0.3,
    "args": {"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2},
}  # fmt: skip


def spec(
    task: dict[str, Any] | None = None,
    backbone: dict[str, Any] | None = None,
    optim: dict[str, Any] | None = None,
    runtime: dict[str, Any] | None = None,
) -> TrialSpec:
    return TrialSpec.model_validate(
        {
            "task": {"kind": "classify", "dataset": "digits", "normalize": "half", **(task or {})},
            "backbone": {**VIT, **(backbone or {})},
            "optim": {"lr": 1e-2, "epochs": 2, "warmup_epochs": 0.5, "batch": 50, "eps": 1e-2, **(optim or {})},
            "runtime": {"checkpoint_epochs": 1, **(runtime or {})},
        }
    )


CROPPED = {"augment": {"rand_augment": "none", "color_jitter": 0, "mixup": 0, "cutmix": 0}}
"""Without what takes time."""


def prepared(trial: TrialSpec, folder: Path) -> TrainingState:
    return prepare(trial, RankContext(folder=folder, data_root=folder), Folder(folder, trial.key, 0))


def initial(trial: TrialSpec, folder: Path) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in prepared(trial, folder).model.state_dict().items()}


def moved(trial: TrialSpec, folder: Path) -> set[str]:
    """Entries of the state dict that training changed by as much as a bit."""
    before = initial(trial, folder / "before")
    after_ = weights_of(run(trial, folder / "after")[0])
    assert before.keys() == after_.keys()
    return {name for name, value in after_.items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("backbone", [VIT, {"args": {}, "drop_path": 0, **RESNET}], ids=["vit", "resnet"])
@pytest.mark.parametrize("probe", ["linear", "linear_bn"])
def test_a_probe_moves_the_head_alone(probe: str, backbone: dict[str, Any], tmp_path: Path) -> None:
    head = "fc" if "resnet" in backbone["model"] else "head"
    own = {f"{head}.weight", f"{head}.bias"}
    if probe == "linear_bn":
        own = {f"{head}.1.weight", f"{head}.1.bias"}
        own |= {f"{head}.0.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert moved(spec({"probe": probe}, backbone), tmp_path) == own


def test_a_probe_is_a_regression_on_features_that_stay(tmp_path: Path) -> None:
    """The head after a step of a batch is that of a linear layer on the features, by hand."""
    trial = spec({"probe": "linear_bn"}, optim={"epochs": 1, "warmup_epochs": 0, "batch": 300, "clip": 0, "lr_lag": 0})
    run_ = prepared(trial, tmp_path / "a")
    batch = next(iter(run_.loaders.epoch(0)))
    model = run_.model
    with torch.no_grad():
        features = model.eval().forward_head(model.forward_features(batch["images"]), pre_logits=True)
    mean, variance = features.mean(0), features.var(0, unbiased=False)
    linear = nn.Linear(16, 10)
    linear.load_state_dict(model.head[1].state_dict())
    normed = (features - mean) / (variance + NORM_EPS).sqrt()
    nn.functional.cross_entropy(linear(normed), batch["labels"]).backward()
    groups = [{"params": [linear.weight], "weight_decay": 0.05}, {"params": [linear.bias], "weight_decay": 0.0}]
    torch.optim.AdamW(groups, lr=1e-2, eps=1e-2).step()
    ended = weights_of(run(trial, tmp_path / "b")[0])
    torch.testing.assert_close(ended["head.1.weight"], linear.weight.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ended["head.0.running_mean"], 0.1 * mean, rtol=1e-4, atol=1e-6)


def test_augmentation_of_a_probe_is_crop_and_flip() -> None:
    plain = spec({"probe": "linear"}).task.augment  # type: ignore[attr-defined]
    assert (plain.crop_scale, plain.flip, plain.mixes, plain.per_image) == ((0.08, 1.0), 0.5, False, False)
    assert (plain.erasing, plain.label_smoothing) == (0, 0)
    written = spec({"probe": "linear", "augment": {"flip": 0, "mixup": 0.2}})
    assert (written.task.augment.flip, written.task.augment.mixup) == (0, 0.2)  # type: ignore[attr-defined]
    again = TrialSpec.model_validate_json(written.model_dump_json(), strict=True)
    assert (again, again.key) == (written, written.key)


def test_what_means_nothing_in_a_probe_is_in_no_key() -> None:
    plain = spec({"probe": "linear"}, {"drop_path": 0})
    same = spec({"probe": "linear"}, {"freeze": {"blocks": 2}}, {"layer_decay": 0.75, "layer_decay_scheme": "beit"})
    assert (same, same.key) == (plain, plain.key)
    assert same.backbone.drop_path == 0
    assert len({spec({"probe": probe}).key for probe in ("none", "linear", "linear_bn")}) == 3
    # frozen parts are of no account where nothing is trained
    assert spec(optim={"epochs": 0}, backbone={"freeze": {"norms": True}}).key == spec(optim={"epochs": 0}).key
    assert spec(backbone={"freeze": {"norms": True}}).key != spec().key
    assert spec(backbone={"freeze": {}}).key == spec().key


def test_plans_know_that_a_probe_costs_a_forward_pass() -> None:
    resources, model = Resources(images_per_second=100), DurationModel()
    whole, probe = spec(), spec({"probe": "linear"})
    train, val = 300, 299
    assert model.estimate(whole, resources).seconds == pytest.approx((2 * train + 2 * val * EVALUATION_SHARE) / 100)
    assert model.estimate(probe, resources).seconds == pytest.approx(2 * (train + val) * EVALUATION_SHARE / 100)
    alone = spec({"probe": "knn"})
    assert model.estimate(alone, resources).seconds == pytest.approx((train + val) * EVALUATION_SHARE / 100)


@pytest.mark.parametrize(
    ("backbone", "frozen"),
    [
        ({"freeze": {"blocks": 2}}, ("cls_token", "pos_embed", "patch_embed.", "blocks.0.", "blocks.1.")),
        ({"freeze": {"stem": True, "norms": True}}, ("cls_token", "pos_embed", "patch_embed.", "norm.")),
        (
            {"args": {}, "drop_path": 0, **RESNET, "freeze": {"blocks": 2}},
            ("conv1.", "bn1.", "layer1.", "layer2."),
        ),
    ],
    ids=["vit blocks", "vit norms", "resnet blocks"],
)
def test_frozen_parts_keep_every_bit(backbone: dict[str, Any], frozen: tuple[str, ...], tmp_path: Path) -> None:
    trial = spec(CROPPED, backbone)
    changed = moved(trial, tmp_path)
    norms = ".norm" in str(changed)
    assert not [name for name in changed if name.startswith(frozen)]
    left = {name for name in initial(trial, tmp_path / "names") if not name.startswith(frozen)}
    if "norms" in str(backbone):
        assert not norms
        left = {name for name in left if ".norm" not in name}
    assert changed == left


def test_layer_decay_counts_as_if_nothing_were_frozen(tmp_path: Path) -> None:
    whole, part = (
        prepared(spec(CROPPED, backbone, {"layer_decay": 0.5}), tmp_path / str(number)).groups
        for number, backbone in enumerate(({}, {"freeze": {"blocks": 1}}))
    )
    rates = {name: (group.lr_scale, group.weight_decay) for group in whole for name in group.names}
    left = {name: (group.lr_scale, group.weight_decay) for group in part for name in group.names}
    assert left.items() < rates.items()
    assert min(scale for scale, _ in left.values()) == 0.5**3 / 0.5  # blocks.1, one level above the frozen ones


@pytest.mark.parametrize("backbone", [{"freeze": {"blocks": 1}}, {"freeze": {"stem": True}, "drop_last": 1}])
def test_checkpointed_activations_change_no_gradient(backbone: dict[str, Any], tmp_path: Path) -> None:
    """Also where the input of the checkpointed blocks takes no gradient."""
    plain, _ = run(spec(CROPPED, backbone, {"epochs": 1}), tmp_path / "plain")
    again, _ = run(spec(CROPPED, backbone, {"epochs": 1}, {"grad_checkpointing": True}), tmp_path / "again")
    for name, value in weights_of(plain).items():
        torch.testing.assert_close(weights_of(again)[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", [{"probe": "linear_bn"}, {**CROPPED, "knn": {}}])
def test_a_stopped_trial_goes_on_to_the_same_bits(task: dict[str, Any], tmp_path: Path) -> None:
    trial = spec(task, {"freeze": {"blocks": 1}})
    whole, reports = run(trial, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(trial, tmp_path / "parts", after(8))
    resumed, again = run(trial, tmp_path / "parts")
    assert (digest(resumed), resumed.figures) == (digest(whole), whole.figures)
    assert [outcome_values(report) for report in again] == [outcome_values(report) for report in reports]


def test_everything_frozen_is_refused() -> None:
    trial = spec(CROPPED)
    model = trial.task.build(trial.backbone, None)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match=r"no weight of the model takes a gradient: freeze less in backbone.freeze"):
        parameter_groups(model, trial.optim)


def test_a_probe_of_a_classifier_that_is_no_linear_layer_is_refused() -> None:
    head = nn.Sequential()
    head.pretrained_cfg = {"classifier": "fc"}  # type: ignore[assignment]
    head.fc = nn.Conv2d(4, 10, 1)
    with pytest.raises(ValueError, match=r"task.probe linear_bn norms .* fc of Sequential is a Conv2d: use linear"):
        norm_before_head(head)


def pooled(model: nn.Module, batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        parts = [(model(batch["images"]), batch["labels"]) for batch in batches]
    return torch.cat([unit(part) for part, _ in parts]), torch.cat([labels for _, labels in parts])


def test_pre_trained_weights_alone_are_judged_by_their_neighbours(tmp_path: Path) -> None:
    parent = spec(CROPPED, optim={"epochs": 4, "lr": 3e-3})
    made, _ = run(parent, tmp_path / "parent")
    init = FromTrial(name="SUP", trial=parent.key).model_dump()
    alone = spec({"probe": "knn", "knn": {"k": 7, "temperature": 0.2}}, {"init": init})
    assert (alone.trains, alone.task.metric, [each.name for each in alone.task.metrics]) == (False, "knn", ["knn"])
    outcome, (report,) = run(alone, tmp_path / "alone", parents={parent.key: made.weights}, keep_weights=False)
    assert set(outcome.figures) == {"knn"}
    assert outcome.facts["shares"] == {"knn": 299}
    assert report.step == 0
    # by hand: the backbone without a head, its training images prepared as those to evaluate on
    model = alone.task.build(alone.backbone, weights_of(made)).eval()
    parts = list(alone.task.loaders(DataContext(tmp_path, (16, 16), "cpu", 0, 1)).evaluation())
    queries, wanted = pooled(model, [batch for batch in parts if not batch.get("reference")])
    bank, labels = pooled(model, [batch for batch in parts if batch.get("reference")])
    assert (len(queries), len(bank)) == (299, 300)
    by_hand = (classified(queries, bank, labels, 10, 7, 0.2) == wanted).double().mean().item()
    assert outcome.figures["knn"] == pytest.approx(by_hand, abs=1e-9)
    assert outcome.figures["knn"] > 0.3
    # the same weights under a classifier have the same neighbours
    beside = spec({**CROPPED, "head": "keep", "knn": {"k": 7, "temperature": 0.2}}, {"init": init}, {"epochs": 0})
    both, _ = run(beside, tmp_path / "beside", parents={parent.key: made.weights})
    assert both.figures["knn"] == pytest.approx(by_hand, abs=1e-9)
    assert both.figures["top1"] == pytest.approx(made.figures["top1"], abs=1e-9)


def test_neighbours_beside_a_probe_see_features_before_its_norm(tmp_path: Path) -> None:
    plain, normed = (
        run(spec({"probe": probe, "knn": {}}, optim={"epochs": 1}), tmp_path / probe)[0].figures["knn"]
        for probe in ("linear", "linear_bn")
    )
    assert plain == normed


def test_neighbours_of_a_compiled_model(tmp_path: Path) -> None:
    """A compiled graph calls no hooks that come after it, and the features are taken by one."""
    trial = spec({"probe": "linear", "knn": {}})
    state = prepared(trial, tmp_path)
    batches = list(state.loaders.evaluation())
    plain = figures_of(trial.task, state.model.eval(), batches)
    state.model._compiled_call_impl = lambda *_: pytest.fail("the compiled model was called")  # type: ignore[assignment]
    assert figures_of(trial.task, state.model, batches) == plain


def test_which_figure_trials_are_chosen_by_is_said_by_the_task() -> None:
    named = {
        name: [metric.name for metric in spec(task).task.metrics]
        for name, task in {
            "plain": {}, "knn": {"knn": {}}, "chosen": {"knn": {"choose": True}}, "alone": {"probe": "knn"},
        }.items()
    }  # fmt: skip
    assert named == {
        "plain": ["top1", "mean_per_class", "loss"],
        "knn": ["top1", "mean_per_class", "knn", "loss"],
        "chosen": ["knn", "top1", "mean_per_class", "loss"],
        "alone": ["knn"],
    }
    assert spec({"probe": "linear"}).task.metrics[0].title == "linear probe, top-1 accuracy"
    assert spec({"probe": "linear"}).task.protocol == "linear probe, a step costs a forward pass"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"knn": {"k": 301}}, "knn.k 301 is more than the 300 training images of digits: lower it"),
        ({"dataset": "voc2007", "knn": {}, **CROPPED, "augment": {**CROPPED["augment"], "label_smoothing": 0}},
         "voc2007 has several labels per image, for which k-NN is not defined here: leave out knn"),
        ({"knn": {"temperature": 0}}, "greater than 0"),
        ({"probe": "lineal"}, "'none', 'linear', 'linear_bn' or 'knn'"),
    ],
)  # fmt: skip
def test_impossible_options_are_refused(task: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec(task)


def test_figures_of_each_class_are_measurements(tmp_path: Path) -> None:
    outcome, _ = run(spec(CROPPED), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "measurements.jsonl").read_text().splitlines()]
    assert [row["item"] for row in rows] == [str(digit) for digit in range(10)]
    assert {row["figure"] for row in rows} == {"mean_per_class"}
    assert sum(row["value"] for row in rows) / 10 == pytest.approx(outcome.figures["mean_per_class"])
