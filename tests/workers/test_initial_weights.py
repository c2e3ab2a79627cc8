"""A trial that starts from weights: what was done to them is in its facts, and what it keeps says how to be read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_task import after, real, run
from torch import nn

from tasks.backbones import safetensors_header
from tasks.backbones.model import build
from tasks.backbones.spec import BackboneSpec, FromFile, FromTrial, Init
from workers.errors import ErrorClass, Stopped, TrialError
from workers.initial_weights import weights_metadata
from workers.trial import TrialSpec

SWIN: dict[str, Any] = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}


def swin(init: Init | None = None, image_size: int = 16, **args: Any) -> TrialSpec:
    spec = real("swinv2_base_window12_192", {**SWIN, **args})
    told = {"image_size": image_size, **({"init": init} if init else {})}
    return spec.model_copy(update={"backbone": spec.backbone.model_copy(update=told)})


def kept(net: nn.Module, path: Path, prefix: str = "") -> FromFile:
    save_file(
        {f"{prefix}{name}": tensor.clone() for name, tensor in net.state_dict().items()}, path, weights_metadata(net)
    )
    return FromFile(name="MIM", path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused_before_the_first_step(tmp_path: Path, value: float) -> None:
    net = build(swin().backbone, 0)
    with torch.no_grad():
        net.patch_embed.proj.bias[3] = value  # type: ignore[union-attr, operator, index]
    init = kept(net, tmp_path / "w.safetensors")
    with pytest.raises(TrialError, match=r"weights MIM: 1 of them are not finite .*'patch_embed.proj.bias'") as caught:
        run(swin(init), tmp_path / "trial")
    assert caught.value.error_class is ErrorClass.data


def test_windows_go_from_a_trial_to_its_children(tmp_path: Path) -> None:
    """Map 4, 2 with window 4: the bias of the last stage was learned with window 2."""
    parent, _ = run(swin(), tmp_path / "parent")
    assert parent.weights is not None
    assert safetensors_header.read(Path(parent.weights.path)) == {"windows": [[4, 4], [2, 2]]}
    handed = {"k": parent.weights}
    child = FromTrial(name="MIM", trial="k")
    with pytest.raises(ValueError, match=r"windows \(4, 2\), .* \(4, 4\); .* pretrained_window_sizes: \[4, 2\]"):
        run(swin(child, 32), tmp_path / "wrong", parents=handed)
    told = swin(child, 32, pretrained_window_sizes=[4, 2])
    grandparent, _ = run(told, tmp_path / "right", parents=handed)
    assert grandparent.weights is not None
    assert safetensors_header.read(Path(grandparent.weights.path)) == {"windows": [[4, 4], [2, 2]]}


def test_what_was_done_to_the_weights_is_among_the_facts_also_after_a_resume(tmp_path: Path) -> None:
    spec = real("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2})
    torch.manual_seed(0)
    other = build(spec.backbone.model_copy(update={"image_size": 64}), 3)
    init = kept(other, tmp_path / "moco.safetensors", "module.base_encoder.")
    started = spec.model_copy(update={"backbone": spec.backbone.model_copy(update={"init": init})})
    with pytest.raises(Stopped):
        run(started, tmp_path / "trial", after(3))
    outcome, _ = run(started, tmp_path / "trial")
    assert outcome.facts["resumed_at"] == 3
    notes = outcome.facts["notes"]
    assert len([line for line in notes if "layout moco-v3/timm" in line]) == 1
    assert len([line for line in notes if "resampled from 8 x 8 to 4 x 4" in line]) == 1


def test_weights_of_another_model_end_the_trial_before_its_first_step(tmp_path: Path) -> None:
    other = build(BackboneSpec(model="vit_tiny_patch16_224", image_size=32, args={"depth": 1, "patch_size": 8}), 3)
    with pytest.raises(ValueError, match=r"initial weights do not fit the backbone: \d+ missing"):
        run(swin(kept(other, tmp_path / "vit.safetensors")), tmp_path / "trial")
    assert not list((tmp_path / "trial").glob("checkpoint-*"))
