"""Freezing of parts: which weights take a gradient, and which modules stay in eval mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tasks.backbones.frozen import is_frozen, train_mode
from tasks.backbones.model import build, build_backbone
from tasks.backbones.spec import BackboneSpec, Freeze

VIT: dict[str, Any] = {
    "model": "vit_tiny_patch16_224", "image_size": 16,
    "args": {"patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2},
}  # fmt: skip
SWIN: dict[str, Any] = {
    "model": "swinv2_tiny_window8_256", "image_size": 32,
    "args": {"patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2]},
}  # fmt: skip
RESNET: dict[str, Any] = {"model": "resnet10t", "image_size": 32}


def spec(fields: dict[str, Any], **freeze: Any) -> BackboneSpec:
    return BackboneSpec.model_validate({**fields, "freeze": freeze})


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def roots(names: set[str], depth: int = 1) -> set[str]:
    return {".".join(name.split(".")[:depth]) for name in names}


def test_nothing_is_frozen_by_default() -> None:
    model = build(BackboneSpec.model_validate(VIT), 5)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(map(is_frozen, model.modules()))


def test_the_stem_is_what_comes_before_the_first_block() -> None:
    assert roots(trained(build(spec(VIT, stem=True), 5))) == {"blocks", "norm", "head"}
    assert roots(trained(build(spec(SWIN, stem=True), 5))) == {"layers", "norm", "head"}
    resnet = roots(trained(build(spec(RESNET, stem=True), 5)))
    assert resnet == {"layer1", "layer2", "layer3", "layer4", "fc"}


def test_the_first_blocks_and_the_stem_below_them() -> None:
    assert roots(trained(build(spec(VIT, blocks=2), 5)), 2) == {"blocks.2", "norm.weight", "norm.bias",
                                                                "head.weight", "head.bias"}  # fmt: skip
    left = trained(build(spec(SWIN, blocks=2), 5))  # the patch merging goes with the block after it
    assert {name for name in left if name.startswith("layers")} == {
        name for name in left if name.startswith("layers.1.blocks.1.")
    } != set()  # fmt: skip
    assert roots(trained(build(spec(RESNET, blocks=3), 5))) == {"layer4", "fc"}


def test_all_blocks_leave_the_final_norm_and_the_head() -> None:
    assert trained(build(spec(VIT, blocks=3), 5)) == {"norm.weight", "norm.bias", "head.weight", "head.bias"}
    assert roots(trained(build(spec(SWIN, blocks=3), 5))) == {"norm", "head"}
    assert roots(trained(build(spec(RESNET, blocks=4), 5))) == {"fc"}
    headless = build(spec(VIT, blocks=3), 0)
    assert trained(headless) == {"norm.weight", "norm.bias"}


@pytest.mark.parametrize(("fields", "blocks"), [(VIT, 3), (SWIN, 3), (RESNET, 4)])
def test_more_blocks_than_there_are_is_refused(fields: dict[str, Any], blocks: int) -> None:
    with pytest.raises(
        ValueError, match=rf"freeze.blocks {blocks + 1}: \S+ has {blocks} blocks here; use 0 to {blocks}"
    ):
        build(spec(fields, blocks=blocks + 1), 5)


def test_blocks_are_those_that_drop_last_leaves() -> None:
    with pytest.raises(ValueError, match=r"freeze.blocks 3: \S+ has 2 blocks here"):
        build(spec({**VIT, "drop_last": 1}, blocks=3), 5)
    assert roots(trained(build(spec({**VIT, "drop_last": 1}, blocks=1), 5)), 2) >= {"blocks.1"}


def test_every_norm() -> None:
    for fields in (VIT, SWIN, RESNET):
        model = build(spec(fields, norms=True), 5)
        frozen = {name for name, _ in model.named_parameters()} - trained(model)
        norms = {
            name
            for path, module in model.named_modules()
            if "Norm" in type(module).__name__
            for name in (f"{path}.weight", f"{path}.bias")
        }
        assert frozen == norms != set()


def test_a_model_without_norms_has_none_to_freeze() -> None:
    with pytest.raises(ValueError, match=r"freeze.norms: vgg11 has no norm; set it to false"):
        build(spec({"model": "vgg11", "image_size": 32}, norms=True), 5)


def test_frozen_parts_stay_in_eval_mode_while_the_rest_trains() -> None:
    model = build(spec(RESNET, blocks=2, norms=True), 5)
    train_mode(model)
    for path in ("conv1", "bn1", "layer1", "layer1.0.bn1", "layer2.0", "layer3.0.bn1", "layer4.0.bn2"):
        assert not model.get_submodule(path).training, path
    for path in ("", "layer3", "layer3.0", "layer3.0.conv1", "fc"):
        assert model.get_submodule(path).training, path


def test_frozen_blocks_drop_nothing_and_keep_their_statistics() -> None:
    vit = {**VIT, "drop_path": 0.9, "args": {**VIT["args"], "pos_drop_rate": 0.5}}
    torch.manual_seed(0)
    for fields, part in ((vit, lambda model, x: model.blocks[:2](model.pos_drop(model.patch_embed(x)))),
                         (RESNET, lambda model, x: model.layer2(model.layer1(model.bn1(model.conv1(x)))))):  # fmt: skip
        model = build(spec(fields, blocks=2), 5)
        images = torch.randn(4, 3, fields["image_size"], fields["image_size"])
        before = {name: value.clone() for name, value in model.state_dict().items()}
        train_mode(model)
        assert torch.equal(part(model, images), part(model, images))
        model(images).sum().backward()
        for name, value in model.state_dict().items():
            frozen = name.startswith(("bn1", "layer1", "layer2"))
            assert torch.equal(value, before[name]) or not frozen, name
        moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
        assert bool(moved) == (fields is RESNET)  # layers 3 and 4


def test_dense_heads_take_a_frozen_backbone() -> None:
    model = build_backbone(spec(VIT, blocks=2), final_norm=True)
    assert roots(trained(model), 2) == {"blocks.2", "norm.weight", "norm.bias"}


def test_a_stem_that_trains_below_frozen_blocks_is_refused() -> None:
    with pytest.raises(ValidationError, match="blocks 2 freezes the stem below them too: leave stem out"):
        Freeze(blocks=2, stem=False)
    assert Freeze(blocks=2) == Freeze(blocks=2, stem=True)
