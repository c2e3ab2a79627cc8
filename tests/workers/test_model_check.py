"""Backbones tried without memory: what cannot be built, and files that do not fit, are told before a trial starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from published_checkpoints import SWIN, VIT, beit, official_swin, swinv2, vit
from safetensors.torch import save_file
from torch import nn

from tasks.backbones.spec import BackboneSpec
from workers.initial_weights import weights_metadata
from workers.model_check import problem
from workers.trial import TrialSpec

CLASSIFY = {"kind": "classify", "dataset": "digits"}
PRETRAIN = {"kind": "pretrain", "dataset": "digits-pretrain", "mask_patch": 16}


def spec(model: str, args: dict[str, Any], image_size: int = 64, **other: Any) -> TrialSpec:
    backbone = {"model": model, "args": args, "image_size": image_size, "drop_path": other.pop("drop_path", 0.0)}
    optim = {"lr": 1e-3, "epochs": 2, "warmup_epochs": 1, "batch": 50, **other.pop("optim", {})}
    return TrialSpec.model_validate({"task": CLASSIFY, "backbone": backbone, "optim": optim, **other})


def saved(net: nn.Module, path: Path) -> Path:
    save_file({name: tensor.clone() for name, tensor in net.state_dict().items()}, path, weights_metadata(net))
    return path


def test_what_can_be_built_and_fits_has_no_problem(tmp_path: Path) -> None:
    assert problem(spec("vit_base_patch16_224", VIT), None) is None
    assert problem(spec("vit_base_patch16_224", VIT, 96), saved(vit(64), tmp_path / "vit.safetensors")) is None
    assert problem(spec("swinv2_base_window12_192", SWIN), saved(swinv2(), tmp_path / "swin.safetensors")) is None
    told = {"window_size": 8, "pretrained_window_sizes": [4, 4, 4, 2]}
    assert problem(spec("swinv2_base_window12_192", {**SWIN, **told}, 128), tmp_path / "swin.safetensors") is None
    assert problem(spec("resnet50", {}), None) is None
    assert torch.zeros(1).device.type == "cpu"


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    file = saved(swinv2(), tmp_path / "swin.safetensors")
    wide = {**SWIN, "window_size": 8}
    for backbone, weights, said in (
        (spec("vit_base_patch16_224", {"patch_sise": 4}), None, "patch_sise"),
        (spec("swinv2_base_window12_192", {**SWIN, "window_size": 5}), None, "window 5 does not divide"),
        (spec("swinv2_base_window12_192", wide, 128), file, "pretrained_window_sizes: [4, 4, 4, 2]"),
        (spec("vit_base_patch16_224", VIT), file, "missing: cls_token"),
        (
            spec("vit_base_patch16_224", VIT),
            saved(beit(), tmp_path / "beit.safetensors"),
            "blocks.0.gamma_1",
        ),
    ):
        assert said in str(problem(backbone, weights))
    sampled = {"drop_last": 1, "sample_layers": {}, "init": {"kind": "trial", "name": "SUP", "trial": "0" * 64}}
    for changes, said in (
        ({"drop_last": 2}, "drop_last 2: swinv2_base_window12_192 has 2 blocks in its third stage"),
        ({"drop_last": 1, "cut": {"final_norm": "pretrained"}}, "final norm of swinv2_base_window12_192 has 128"),
        ({**sampled, "drop_last": 0}, "None"),
        (sampled, "None"),
    ):
        trial = spec("swinv2_base_window12_192", SWIN)
        trial = trial.model_copy(update={"backbone": BackboneSpec.model_validate({**dict(trial.backbone), **changes})})
        assert said in str(problem(trial, file))
    whole = file.read_bytes()
    cut = tmp_path / "cut.safetensors"
    for size in (4, 100, len(whole) - 1000):
        cut.write_bytes(whole[:size])
        assert f"{cut} " in str(problem(spec("swinv2_base_window12_192", SWIN), cut))
        assert "cut short" in str(problem(spec("swinv2_base_window12_192", SWIN), cut))


def test_what_only_the_task_or_the_optimizer_refuses_is_told() -> None:
    for trial, said in (
        (spec("resnet18", {}, task=PRETRAIN), "ResNet cannot be pre-trained with SimMIM"),
        (spec("mobilevit_xxs", {}, optim={"layer_decay": 0.8, "layer_decay_scheme": "beit"}), "layer_decay_scheme"),
        (spec("vgg11", {}, runtime={"grad_checkpointing": True}), "runtime.grad_checkpointing: vgg11 has none"),
    ):
        assert said in str(problem(trial, None))
    assert problem(spec("vit_base_patch16_224", VIT, task=PRETRAIN), None) is None


def test_what_needs_content_is_left_to_the_trial(tmp_path: Path) -> None:
    """A file in the official layout tells its windows by the values of a table, which are not read here."""
    save_file({name: t.clone() for name, t in official_swin(swinv2()).items()}, tmp_path / "raw.safetensors")
    assert problem(spec("swinv2_base_window12_192", SWIN), tmp_path / "raw.safetensors") is None


@pytest.mark.parametrize(
    ("model", "args", "said"),
    [
        ("vit_base_patch16_224", {**VIT, "embed_dim": -64}, "negative dimension -64"),
        ("vit_base_patch16_224", {**VIT, "mlp_ratio": -1.0}, "negative dimension"),
        ("vit_base_patch16_224", {**VIT, "depth": -1}, "must be non-negative"),
        ("swinv2_base_window12_192", {**SWIN, "embed_dim": -96}, "negative dimension -96"),
        ("resnet50", {"base_width": -64}, "negative dimension"),
    ],
)
def test_a_size_that_no_tensor_can_have_is_told(model: str, args: dict[str, Any], said: str) -> None:
    """It is known from shapes alone; what needs content is left to the trial all the same."""
    found = str(problem(spec(model, args), None))
    assert found.startswith(f"timm model {model} with {args}: ")
    assert said in found


@pytest.mark.parametrize("drop_path", [0.0, 0.1])
def test_drop_path_counts(drop_path: float) -> None:
    found = problem(spec("vgg11", {}, drop_path=drop_path), None)
    assert (found is None) == (drop_path == 0)
