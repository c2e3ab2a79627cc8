"""What is taken out of models is what they compute, and nothing stays behind in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm.layers
import torch
from analysed_models import ATTENTIVE, REPLKNET, RESNET, drawn, images
from torch import Tensor, nn
from torch.nn import functional

from tasks.analysis import attention
from tasks.analysis.layers import (
    attention_layers,
    attention_maps,
    block_outputs,
    blocks,
    kernel_layers,
    pooled,
)
from tasks.backbones.large_kernel_conv import LargeKernel
from tasks.backbones.spec import BackboneSpec

SIZE = (32, 32)


def maps_of(model: nn.Module, size: int = 32, number: int = 3) -> list[Tensor]:
    layers = attention_layers(model, (size, size))
    taken: dict[int, Tensor] = {}
    with torch.no_grad(), attention_maps(layers, taken.__setitem__):
        model(images(number, size))
    return [taken[layer] for layer in range(len(layers))]


@pytest.mark.parametrize("family", ATTENTIVE)
def test_maps_are_those_by_which_values_are_mixed(family: str) -> None:
    """Values weighted by the map, and projected, are what the attention gives out, fused or not."""
    model = drawn(ATTENTIVE[family])
    layers = attention_layers(model, SIZE)
    inputs: dict[int, Tensor] = {}
    outputs: dict[int, Tensor] = {}

    def keep(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, output: Tensor) -> None:
            inputs[number], outputs[number] = given[0], output

        return hook

    handles = [layer.module.register_forward_hook(keep(number)) for number, layer in enumerate(layers)]
    with torch.no_grad():
        model(images(3))
    for handle in handles:
        handle.remove()
    maps = maps_of(model)
    assert len(maps) == len(layers) == (4 if "swin" in family else 2)
    for number, layer in enumerate(layers):
        part: Any = layer.module
        bias = part.qkv.bias
        if getattr(part, "q_bias", None) is not None:
            bias = torch.cat([part.q_bias, part.k_bias, part.v_bias])
        mixed = functional.linear(inputs[number], part.qkv.weight, bias)
        values = mixed.chunk(3, -1)[2].unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        out = part.proj((maps[number] @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(out, outputs[number], rtol=1e-4, atol=1e-5)
        assert maps[number].std() > 0.02  # far from uniform, or the test sees nothing


def test_prefix_tokens_are_those_before_the_patches() -> None:
    prefixes = {family: attention_layers(drawn(spec), SIZE)[0].places.prefix for family, spec in ATTENTIVE.items()}
    assert prefixes == {"vit": 1, "deit": 2, "registers": 4, "beit": 1, "swin": 0, "swinv2": 0}


@pytest.mark.parametrize("family", ["swin", "swinv2"])
def test_pixels_grow_with_the_stage_and_every_second_block_is_shifted(family: str) -> None:
    layers = attention_layers(drawn(ATTENTIVE[family]), SIZE)
    assert [layer.places.pixel for layer in layers] == [(2, 2), (2, 2), (4, 4), (4, 4)]
    assert {(layer.places.height, layer.places.width) for layer in layers} == {(4, 4)}
    assert [layer.allowed is not None for layer in layers] == [False, True, False, True]


def test_a_window_as_large_as_its_map_is_not_shifted_and_patch_4_doubles() -> None:
    args = {"patch_size": 4, "embed_dim": 16, "depths": [2, 2, 2], "num_heads": [2, 4, 4], "window_size": 8}
    layers = attention_layers(drawn(BackboneSpec(model="swinv2_tiny_window8_256", image_size=64, args=args)), (64, 64))
    assert [layer.places.pixel[0] for layer in layers] == [4, 4, 8, 8, 16, 16]
    assert [layer.places.height for layer in layers] == [8, 8, 8, 8, 4, 4]
    assert [layer.allowed is not None for layer in layers] == [False, True, False, False, False, False]


@pytest.mark.parametrize("family", ["swin", "swinv2"])
def test_distance_in_shifted_windows_is_the_distance_in_the_image(family: str) -> None:
    """Each window's places in the image by timm's own roll: what wraps around has no weight."""
    model = drawn(ATTENTIVE[family])
    layers, maps = attention_layers(model, SIZE), maps_of(model)
    for layer, weights in ((layers[1], maps[1]), (layers[3], maps[3])):
        side = 32 // int(layer.places.pixel[0])
        places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).reshape(side, side, 2).double()
        rolled = places.roll((-2, -2), (0, 1))
        windows = rolled.unfold(0, 4, 4).unfold(1, 4, 4).permute(0, 1, 3, 4, 2).reshape(-1, 16, 2)
        apart = layer.places.pixel[0] * torch.cdist(windows, windows)
        of_images = weights.double().unflatten(0, (3, len(windows)))
        wanted = (of_images * apart[None, :, None]).sum(-1).mean((0, 1, 3))
        means = attention.measured(weights, layer.places, "drop_renormalise", 1e-8).means()
        torch.testing.assert_close(means.distance, wanted, rtol=1e-6, atol=1e-9)
        assert layer.allowed is not None
        hidden = ~layer.allowed[None, :, None].expand_as(of_images)
        assert of_images[hidden].max() < 1e-20
        distance, entropy = attention.uniform(layer.places, "drop_renormalise", layer.allowed)
        everywhere = attention.uniform(layer.places, "drop_renormalise")
        assert 0 < distance < everywhere[0]
        assert 0 < entropy < everywhere[1]


def test_nothing_is_changed_for_other_models_or_for_later() -> None:
    """A warm worker's next trial is fused again; timm's switch, which is one for the process, is never touched."""
    model, other = drawn(ATTENTIVE["vit"]), drawn(ATTENTIVE["beit"])
    layers = attention_layers(model, SIZE)
    fused = [layer.module.fused_attn for layer in layers]
    switch = timm.layers.use_fused_attn()
    assert fused == [True, True]
    with attention_maps(layers, lambda layer, maps: None):
        assert [layer.module.fused_attn for layer in layers] == [False, False]
        assert timm.layers.use_fused_attn() is switch
        assert all(layer.module.fused_attn for layer in attention_layers(other, SIZE))
        assert drawn(ATTENTIVE["vit"]).blocks[0].attn.fused_attn  # type: ignore[index, union-attr]
    with pytest.raises(KeyError, match="0"), attention_maps(layers, lambda layer, maps: {}[layer]):  # type: ignore[misc]
        model(images(1))
    assert [layer.module.fused_attn for layer in layers] == [True, True]
    taken: list[int] = []
    with attention_maps(layers, lambda layer, maps: taken.append(layer)):
        model(images(1))
    model(images(1))
    assert taken == [0, 1]


def test_a_model_without_attention_is_refused() -> None:
    for spec in (RESNET, REPLKNET):
        with pytest.raises(ValueError, match=r"has no attention that this analysis knows .* leave attention out"):
            attention_layers(drawn(spec), (64, 64))


def test_maps_that_are_not_as_expected_are_refused() -> None:
    model = drawn(ATTENTIVE["vit"])
    layers = attention_layers(model, SIZE)
    model.cls_token = None  # type: ignore[assignment]
    model.pos_embed = nn.Parameter(model.pos_embed[:, 1:])  # type: ignore[index]
    model.num_prefix_tokens = 0  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"shape \(1, 4, 64, 64\), not \(n, 4, 65, 65\)"), \
            attention_maps(layers, lambda layer, maps: None):  # fmt: skip
        model(images(1))


@pytest.mark.parametrize("spec", [*ATTENTIVE.values(), REPLKNET, RESNET], ids=lambda spec: spec.model)
def test_outputs_are_those_of_whole_passes_whatever_the_batch(spec: BackboneSpec) -> None:
    model, size = drawn(spec), spec.image_size
    of = blocks(model)
    whole: dict[int, Tensor] = {}
    for number, module in enumerate(of.modules):
        module.register_forward_hook(lambda module, given, out, number=number: whole.__setitem__(number, out.clone()))
    with torch.no_grad():
        result = model(images(5, size))
        for batch in (1, 2, 8):
            taken: dict[int, Tensor] = {}
            with block_outputs(of, taken.__setitem__, batch):
                again = model(images(5, size))
            torch.testing.assert_close(again, result, rtol=1e-4, atol=1e-5)
            assert sorted(taken) == list(range(len(of.modules)))
            for number in taken:
                torch.testing.assert_close(taken[number], whole[number], rtol=1e-4, atol=1e-4)
    assert all("forward" not in vars(module) for module in model.modules())


def test_blocks_work_on_a_batch_at_a_time() -> None:
    model = drawn(ATTENTIVE["swinv2"])
    of, sizes = blocks(model), set()
    hooks = [block.attn.register_forward_pre_hook(lambda module, given: sizes.add(len(given[0]) // 4))  # type: ignore[union-attr, operator]
             for block in of.modules[2:]]  # fmt: skip
    with torch.no_grad(), block_outputs(of, lambda block, output: None, 2):
        model(images(5))
    assert len(hooks) == 2
    assert sizes == {1, 2}


@pytest.mark.parametrize(("spec", "axes"), [("vit", 1), ("deit", 1), ("swinv2", (1, 2))])
def test_pooled_outputs_are_means_over_patches(spec: str, axes: Any) -> None:
    model = drawn(ATTENTIVE[spec])
    of = blocks(model)
    output = torch.randn(2, 66, 8) if axes == 1 else torch.randn(2, 4, 4, 8)
    patches = output[:, of.prefix :] if axes == 1 else output
    torch.testing.assert_close(pooled(output, of), patches.mean(axes))
    assert of.prefix == {"vit": 1, "deit": 2, "swinv2": 0}[spec]


def test_kernels_are_the_large_ones_or_those_that_are_applied() -> None:
    model = drawn(REPLKNET)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, -2, 2)
    trained, applied = kernel_layers(model, merged=False), kernel_layers(model, merged=True)
    assert [layer.stride for layer in trained] == [4, 8, 8, 16, 32]
    assert [tuple(layer.kernels.shape) for layer in trained] == [
        (8, 7, 7),
        (16, 5, 5),
        (16, 5, 5),
        (16, 3, 3),
        (16, 3, 3),
    ]
    parts = [part for part in model.modules() if isinstance(part, LargeKernel)]
    for part, large, one in zip(parts, trained, applied, strict=True):
        origin: Any = part.lkb_origin
        assert torch.equal(large.kernels, origin.conv.weight[:, 0])
        assert not torch.allclose(large.kernels.double(), one.kernels)
        # what a block does with a single lit pixel is its kernel, mirrored
        channels, side = one.kernels.shape[:2]
        lit = torch.zeros(1, channels, 4 * side + 1, 4 * side + 1)
        lit[..., 2 * side, 2 * side] = 1
        with torch.no_grad():
            answer = (part(lit) - part(torch.zeros_like(lit)))[0].double()
        near = slice(2 * side - side // 2, 2 * side + side // 2 + 1)
        torch.testing.assert_close(answer[:, near, near].flip(1, 2), one.kernels, rtol=1e-5, atol=1e-5)
    model.merge()  # type: ignore[operator]
    for layer, before in zip(kernel_layers(model, merged=True), applied, strict=True):
        torch.testing.assert_close(layer.kernels, before.kernels, rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match=r"hold merged kernels alone.*set task.re_param to true"):
        kernel_layers(model, merged=False)


def test_other_models_have_no_large_kernels() -> None:
    assert kernel_layers(drawn(ATTENTIVE["vit"]), merged=True) == []
