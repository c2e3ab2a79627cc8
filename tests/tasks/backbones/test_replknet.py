"""RepLKNet: its size, its names, the merge of its kernels, its entry for SimMIM, and what timm expects of a model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from tasks.backbones.large_kernel_conv import LargeKernel
from tasks.backbones.loading import load
from tasks.backbones.model import build, head_names
from tasks.backbones.replknet import RepLKNet, default_cfgs
from tasks.backbones.spec import BackboneSpec

TINY: dict[str, Any] = {
    "layers": (1, 1, 2, 1), "channels": (4, 6, 8, 10), "kernels": (9, 7, 7, 3), "small_kernel": 3, "num_classes": 5,
}  # fmt: skip


def tiny(**changes: Any) -> RepLKNet:
    torch.manual_seed(0)
    return RepLKNet(**{**TINY, **changes})


def pretrained(model: RepLKNet) -> RepLKNet:
    """With what timm.create_model tells of it."""
    model.pretrained_cfg = default_cfgs["replknet_31b"].default.to_dict()
    return model


def with_statistics(model: nn.Module) -> nn.Module:
    """Batch norms as after training: nothing is 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.eval()


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("name", "arguments", "weights"),
    [
        ("replknet_31b", {}, 79.86),
        ("replknet_31b", {"small_kernel": 0}, 79.54),
        ("replknet_31b", {"merged": True}, 79.53),
        ("replknet_31b_mim", {"entry_channels": 0}, 79.54),
        # the entry: 3 x 128 + 128; the first convolution of the stem: 125 more channels x 128 x 9
        ("replknet_31b_mim", {}, 79.54 + 0.1445),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, arguments: dict[str, Any], weights: float) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, **arguments)
        features = model.forward_features(torch.zeros(1, 3, 192, 192))
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(weights, abs=0.006)
    assert features.shape == (1, 1024, 6, 6)
    assert [info["reduction"] for info in model.feature_info] == [4, 8, 16, 32]
    assert [info["num_chs"] for info in model.feature_info] == [128, 256, 512, 1024]


@pytest.mark.parametrize(("merged", "billions"), [(False, 15.43), (True, 15.35)])
def test_work_per_image_is_the_published_one(merged: bool, billions: float) -> None:
    """15.3 G multiplications at 224 pixels, once the small kernels are merged."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        timm.create_model("replknet_31b", merged=merged)(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() / 2e9 == pytest.approx(billions, abs=0.006)


def test_it_is_built_like_any_backbone() -> None:
    arguments = {name: value for name, value in TINY.items() if name != "num_classes"}
    spec = BackboneSpec(model="replknet_31b", args=arguments, image_size=64, drop_path=0.3)
    model = build(spec, classes=7)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for stage in model.stages for block in stage.blocks]
    assert rates[::2] == rates[1::2] == pytest.approx(torch.linspace(0, 0.3, 5).tolist())
    assert model(images(2, 3, 64, 64)).shape == (2, 7)
    assert head_names(model) == ("head",)
    assert model.get_classifier().out_features == 7
    model.reset_classifier(0)
    assert torch.equal(model.eval()(images(1, 3, 64, 64)), model.forward_features(images(1, 3, 64, 64)).mean((2, 3)))


@pytest.mark.parametrize("small_kernel", [0, 3])
def test_every_weight_is_trained(small_kernel: int) -> None:
    model = tiny(small_kernel=small_kernel, entry_channels=6)
    model(images(2, 3, 64, 64)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_a_large_kernel_sees_far_and_only_in_its_channel() -> None:
    layer = with_statistics(LargeKernel(2, 31, 5, merged=False))
    assert isinstance(layer, LargeKernel)
    one = torch.zeros(1, 2, 64, 64)
    one[0, 1, 32, 32] = 1
    seen = (layer(one) - layer(torch.zeros_like(one))).abs() > 0
    assert not seen[0, 0].any()
    rows = seen[0, 1].any(1).nonzero().flatten()
    assert (rows.min(), rows.max()) == (32 - 15, 32 + 15)


@pytest.mark.parametrize(("kernel", "small"), [(31, 5), (13, 5), (29, 0)])
def test_merged_kernels_give_the_same_map(kernel: int, small: int) -> None:
    torch.manual_seed(0)
    layer = with_statistics(LargeKernel(8, kernel, small, merged=False))
    assert isinstance(layer, LargeKernel)
    x = images(2, 8, 40, 40)
    before = layer(x)
    weight, bias = layer.equivalent()
    layer.merge()
    assert sorted(dict(layer.named_parameters())) == ["lkb_reparam.bias", "lkb_reparam.weight"]
    assert layer.lkb_reparam.weight.shape == (8, 1, kernel, kernel)
    assert (layer(x) - before).abs().max() < 2e-6 * before.abs().max()
    again, same = layer.equivalent()
    assert torch.allclose(again, weight, atol=1e-6)
    assert torch.allclose(same, bias, atol=1e-6)


def test_a_merged_model_is_the_same_function_and_can_be_built_for_merged_weights() -> None:
    model = tiny()
    with_statistics(model)
    x = images(2, 3, 64, 64)
    before, weights = model.forward_features(x), sum(p.numel() for p in model.parameters())
    model.merge()
    model.merge()  # a second time changes nothing
    assert (model.forward_features(x) - before).abs().max() < 5e-6 * before.abs().max()
    assert sum(p.numel() for p in model.parameters()) < weights
    other = tiny(merged=True).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), model(x))


def test_the_entry_is_where_simmim_masks() -> None:
    model = tiny(entry_channels=6).eval()
    x = images(1, 3, 64, 64)
    embedded = model.embed(x)
    assert embedded.shape == (1, 6, 64, 64)
    assert torch.equal(model.forward_embedded(embedded), model.forward_features(x))
    masked = embedded.clone()
    masked[..., :32, :32] = 0
    assert not torch.equal(model.forward_embedded(masked), model.forward_features(x))
    with pytest.raises(ValueError, match="set entry_channels"):
        tiny().embed(x)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    plain = tiny(drop_path_rate=0.5)
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing(True)
    seen = []
    saving.stages[1].blocks[0].register_forward_pre_hook(lambda *_: seen.append(1))
    for model in (plain, saving):
        torch.manual_seed(3)  # drop path
        model(images(4, 3, 64, 64)).square().sum().backward()
    assert len(seen) == 2  # once more in the backward pass
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad), name


def reference_names(depths: tuple[int, ...], small: bool) -> list[str]:
    """Parameters and statistics as DingXiaoH/RepLKNet-pytorch's replknet.py names them, in no order."""
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]

    def conv_bn(name: str) -> list[str]:
        return [f"{name}.conv.weight", *(f"{name}.bn.{part}" for part in norm)]

    names = [name for index in range(4) for name in conv_bn(f"stem.{index}")]
    for stage, depth in enumerate(depths):
        for block in range(2 * depth):
            at = f"stages.{stage}.blocks.{block}"
            names += [*conv_bn(f"{at}.pw1"), *conv_bn(f"{at}.pw2")]
            names += [f"{at}.{'preffn_bn' if block % 2 else 'prelkb_bn'}.{part}" for part in norm]
            if block % 2 == 0:
                names += conv_bn(f"{at}.large_kernel.lkb_origin")
                names += conv_bn(f"{at}.large_kernel.small_conv") if small else []
    for transition in range(len(depths) - 1):
        names += [*conv_bn(f"transitions.{transition}.0"), *conv_bn(f"transitions.{transition}.1")]
    return [*names, *(f"norm.{part}" for part in norm), "head.weight", "head.bias"]


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_official_weights_fit_name_for_name(prefix: str) -> None:
    source = tiny(small_kernel=3)
    values = source.state_dict()
    file = {prefix + name: values[name] for name in reference_names(TINY["layers"], small=True)}
    if prefix == "backbone.":
        file["decode_head.conv_seg.weight"] = torch.zeros(1)
    model = tiny(small_kernel=3)
    with torch.no_grad():
        model.head.weight.zero_()
    load(pretrained(model), file, keep_head=True)  # refuses what is missing or left over
    assert all(torch.equal(model.state_dict()[name], value) for name, value in values.items())


def test_the_names_of_the_full_model_are_the_reference_codes() -> None:
    with torch.device("meta"):
        model = timm.create_model("replknet_31b")
    assert sorted(model.state_dict()) == sorted(reference_names((2, 2, 18, 2), small=True))


def test_the_function_is_the_published_one() -> None:
    """Written out once more, from the names in the file alone: which activation follows what, and what is added."""
    model = with_statistics(tiny())
    weights = model.state_dict()

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance, scale, shift = (
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, variance, scale, shift)

    def conv(x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        kernel = weights[f"{name}.conv.weight"]
        groups = x.shape[1] // kernel.shape[1]
        return norm(functional.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2, groups=groups), f"{name}.bn")

    images_ = x = images(2, 3, 64, 64)
    for index, stride in enumerate((2, 1, 1, 2)):
        x = conv(x, f"stem.{index}", stride).relu()
    for stage, depth in enumerate(TINY["layers"]):
        if stage:
            x = conv(x, f"transitions.{stage - 1}.0").relu()
            x = conv(x, f"transitions.{stage - 1}.1", stride=2).relu()
        for block in range(depth):
            at = f"stages.{stage}.blocks.{2 * block}"
            inner = conv(norm(x, f"{at}.prelkb_bn"), f"{at}.pw1").relu()
            inner = conv(inner, f"{at}.large_kernel.lkb_origin") + conv(inner, f"{at}.large_kernel.small_conv")
            x = x + conv(inner.relu(), f"{at}.pw2")
            at = f"stages.{stage}.blocks.{2 * block + 1}"
            inner = conv(norm(x, f"{at}.preffn_bn"), f"{at}.pw1")
            x = x + conv(functional.gelu(inner), f"{at}.pw2")
    logits = functional.linear(norm(x, "norm").mean((2, 3)), weights["head.weight"], weights["head.bias"])
    assert torch.allclose(model(images_), logits, rtol=1e-5, atol=1e-5 * float(logits.abs().max()))


def test_merged_weights_want_a_merged_model() -> None:
    merged = tiny()
    merged.merge()
    with pytest.raises(ValueError, match="lkb_reparam"):
        load(pretrained(tiny()), merged.state_dict())
    load(pretrained(tiny(merged=True)), merged.state_dict())


def test_pre_trained_weights_keep_their_entry() -> None:
    from tasks.pretraining.simmim import SimMIM

    source = SimMIM(tiny(entry_channels=6, num_classes=0), 64, 32)
    model = pretrained(tiny(entry_channels=6))
    load(model, source.state_dict())
    assert torch.equal(model.entry.weight, source.encoder.entry.weight)
    assert torch.equal(model.stages[2].blocks[2].pw1.conv.weight, source.encoder.stages[2].blocks[2].pw1.conv.weight)
    with pytest.raises(ValueError, match=r"2 left over: entry\.weight, entry\.bias"):
        load(pretrained(tiny()), source.state_dict())


def test_maps_of_all_stages_come_through_timms_feature_extraction() -> None:
    arguments = {name: value for name, value in TINY.items() if name != "num_classes"}
    torch.manual_seed(0)
    maps = timm.create_model("replknet_31b", features_only=True, out_indices=(1, 2), **arguments).eval()
    assert maps.feature_info.reduction() == [8, 16]
    whole = tiny().eval()
    whole.load_state_dict({**whole.state_dict(), **{n.removeprefix("model."): t for n, t in maps.state_dict().items()}})
    x = images(1, 3, 64, 64)
    found, (last,) = maps(x), whole.forward_intermediates(x, [3], norm=True, intermediates_only=True)
    assert [tuple(one.shape) for one in found] == [(1, 6, 8, 8), (1, 8, 4, 4)]
    assert torch.equal(last, whole.forward_features(x))
    features, two = whole.forward_intermediates(x, [1, 2], stop_early=True)
    assert torch.equal(two[1], found[1])
    assert torch.equal(features, two[1])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kernels": (8, 7, 7, 3)}, "must be odd"),
        ({"channels": (4, 6, 8)}, "differ in length"),
        ({"small_kernel": 5}, "small_kernel 5 does not fit"),
        ({"global_pool": "max"}, "neither avg nor empty"),
    ],
)
def test_what_cannot_be_built_is_said(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny(**wrong)
