"""The depth model against the public code's output, on other backbones, and the number of its deconvolutions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.backbones.dense_head import Deconvolutions
from tasks.backbones.loading import load
from tasks.backbones.model import build_backbone
from tasks.backbones.spec import BackboneSpec
from tasks.depth.head import DepthHead, DepthModel
from workers.optim import parameter_groups
from workers.optim_spec import OptimSpec

DATA = Path(__file__).parents[2] / "data" / "depth"
ENCODER = Path(__file__).parents[1] / "backbones" / "golden" / "depth_encoder.npz"
ARGS = {
    "embed_dim": 8, "depths": [2, 1, 2, 1], "num_heads": [1, 1, 2, 2], "window_size": [8, 8, 8, 4],
    "pretrained_window_sizes": [12, 12, 12, 6],
}  # fmt: skip
OUR_NAMES = {
    "decoder.deconv_layers.": "deconvolutions.layers.",
    "decoder.conv_layers.": "embed.",
    "last_layer_depth.": "to_depth.",
}


def tensors(path: Path) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name].astype(np.float32)) for name in file.files}


def public_model() -> tuple[DepthModel, dict[str, Tensor]]:
    """The model with the public code's weights, and its input and outputs."""
    golden = tensors(ENCODER) | tensors(DATA / "head.npz")
    spec = BackboneSpec(model="swinv2_base_window12_192", args=ARGS, image_size=128, norm_eps=1e-6)
    model = DepthModel(build_backbone(spec, final_norm=True), embedding=8, longest=10.0).eval()
    weights = {name.removeprefix("w."): tensor for name, tensor in golden.items() if name.startswith("w.")}
    load(model.backbone, {name: tensor for name, tensor in weights.items() if name.startswith("encoder.")})
    of_head = {}
    for name, tensor in weights.items():
        for theirs, ours in OUR_NAMES.items():
            if name.startswith(theirs):
                of_head[ours + name.removeprefix(theirs)] = tensor
    counters = {name: tensor for name, tensor in model.head.state_dict().items() if name.endswith("batches_tracked")}
    model.head.load_state_dict(of_head | counters)
    return model, golden


def test_the_whole_model_is_the_public_codes() -> None:
    model, golden = public_model()
    enlarged: list[Tensor] = []
    model.head.to_depth.register_forward_pre_hook(lambda _, given: enlarged.append(given[0]))
    with torch.no_grad():
        depth = model(golden["x"])
    torch.testing.assert_close(enlarged[0][..., ::4, ::4], golden["decoder_out_stride4"], rtol=0, atol=1e-5)
    torch.testing.assert_close(depth, golden["pred"], rtol=0, atol=1e-5)
    assert golden["pred"].std() > 0.1


def test_without_the_final_norm_it_is_another_model() -> None:
    model, golden = public_model()
    model.final_norm = False
    with torch.no_grad():
        assert (model(golden["x"]) - golden["pred"]).abs().max() > 0.01


@pytest.mark.parametrize(("stride", "count"), [(32, 3), (16, 2), (8, 1), (4, 0)])
def test_the_number_of_deconvolutions_follows_from_the_stride(stride: int, count: int) -> None:
    layers = Deconvolutions(24, stride).eval()
    assert layers.count == count
    assert [type(layer) for layer in layers.layers] == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU] * count
    out = layers(torch.rand(2, 24, 3, 5))
    assert out.shape == (2, layers.out_channels, 3 * stride // 4, 5 * stride // 4)
    assert layers.out_channels == (32 if count else 24)
    shapes = [tuple(layer.weight.shape) for layer in layers.layers if isinstance(layer, nn.ConvTranspose2d)]
    assert shapes == [(24, 32, 2, 2), (32, 32, 2, 2), (32, 32, 2, 2)][:count]


@pytest.mark.parametrize("stride", [2, 6, 12, 14])
def test_strides_that_doubling_does_not_reach_are_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"do not lead from stride {stride} to stride 4: take a feature")):
        Deconvolutions(24, stride)


def test_filters_and_stride_of_the_result_can_be_chosen() -> None:
    layers = Deconvolutions(24, 16, stride_out=8, filters=48)
    assert (layers.count, layers.out_channels) == (1, 48)


def test_it_begins_at_half_the_longest_depth() -> None:
    torch.manual_seed(0)
    head = DepthHead(64, 32, embedding=16, longest=80.0).eval()
    kernels = [each.weight for each in head.modules() if isinstance(each, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(kernels) == 6
    assert all(0.0008 < kernel.std().item() < 0.0012 for kernel in kernels)
    with torch.no_grad():
        depth = head(torch.randn(1, 64, 2, 3))
    torch.testing.assert_close(depth, torch.full((1, 1, 64, 96), 40.0), rtol=0, atol=1e-3)


SWINV2: dict[str, Any] = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 2}
VIT: dict[str, Any] = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 16}
REPLKNET: dict[str, Any] = {"channels": [8, 12, 16, 20], "layers": [1, 1, 1, 1], "kernels": [7, 7, 5, 5]}


@pytest.mark.parametrize(
    ("name", "args", "level", "norm", "deconvolutions"),
    [
        ("swinv2_base_window12_192", SWINV2, -1, True, 3),
        ("swinv2_base_window12_192", SWINV2, 2, False, 2),  # the stage that Figure 5 and section 3.2 take
        ("vit_base_patch16_224", VIT, -1, True, 2),
        ("replknet_31b", REPLKNET, -1, True, 3),
        ("resnet18", {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 20]}, -1, False, 3),
    ],
)
def test_on_every_family_every_parameter_gets_a_gradient(
    name: str, args: dict[str, Any], level: int, norm: bool, deconvolutions: int
) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(BackboneSpec(model=name, args=args, image_size=64), levels=[level], final_norm=norm)
    model = DepthModel(backbone, embedding=8, longest=10.0, final_norm=norm)
    assert model.head.deconvolutions.count == deconvolutions
    depth = model(torch.rand(2, 3, 64, 64))
    assert depth.shape == (2, 1, 64, 64)
    assert 0 < depth.min() <= depth.max() < 10
    depth.square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_the_depth_codes_levels_of_layer_decay_fit() -> None:
    """Its 29 levels: the head and the final norm at the top, every stage's merging a level of its own."""
    args = {"embed_dim": 8, "depths": [2, 2, 18, 2], "num_heads": [1, 1, 1, 1], "window_size": 2}
    backbone = build_backbone(BackboneSpec(model="swinv2_base_window12_192", args=args, image_size=64), final_norm=True)
    model = DepthModel(backbone, embedding=8, longest=10.0)
    optim = OptimSpec(lr=5e-4, layer_decay=0.9, layer_decay_scheme="swin29", batch=24)
    scales = {name: group.lr_scale for group in parameter_groups(model, optim) for name in group.names}
    assert {scale for name, scale in scales.items() if name.startswith("head.")} == {1.0}
    assert scales["backbone.norm.weight"] == 1.0
    assert scales["backbone.patch_embed.proj.weight"] == pytest.approx(0.9**28)
    assert sorted(set(scales.values())) == pytest.approx([0.9**level for level in range(28, -1, -1)])
