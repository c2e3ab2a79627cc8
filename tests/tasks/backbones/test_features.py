"""Feature maps of the backbone families against hooks on their modules and against numbers of public code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tasks.backbones.features import FeatureLevel, feature_info, feature_maps
from tasks.backbones.loading import load
from tasks.backbones.model import build, build_backbone
from tasks.backbones.spec import BackboneSpec
from workers.distributed import wrap_distributed

SWIN = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 4}
VIT = {"embed_dim": 16, "depth": 3, "num_heads": 2, "patch_size": 16}
REPLKNET = {"channels": [8, 12, 16, 20], "layers": [1, 1, 1, 1], "kernels": [7, 7, 5, 5]}
RESNET = {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 20]}
SWIN_LEVELS = [FeatureLevel(f"layers.{i}", 16 * 2**i, 4 * 2**i) for i in range(4)]
VIT_LEVELS = [FeatureLevel(f"blocks.{i}", 16, 16) for i in range(3)]

FAMILIES: dict[str, tuple[str, dict[str, Any], list[FeatureLevel]]] = {
    "swinv2": ("swinv2_base_window12_192", SWIN, SWIN_LEVELS),
    "swin": ("swin_base_patch4_window7_224", SWIN, SWIN_LEVELS),
    "vit": ("vit_base_patch16_224", VIT, VIT_LEVELS),
    "vit without class token": (
        "vit_base_patch16_224", {**VIT, "class_token": False, "global_pool": "avg"}, VIT_LEVELS,
    ),
    "vit with registers": ("vit_base_patch16_224", {**VIT, "reg_tokens": 4, "no_embed_class": True}, VIT_LEVELS),
    "beit": ("beit_base_patch16_224", VIT, VIT_LEVELS),  # as timm builds it: norms after pooling
    "simmim's vit": (
        "beit_base_patch16_224",
        {**VIT, "global_pool": "token", "init_values": 0.1, "use_abs_pos_emb": False,
         "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
        VIT_LEVELS,
    ),
    "replknet": (
        "replknet_31b", REPLKNET,
        [FeatureLevel(f"stages.{i}", c, 4 * 2**i) for i, c in enumerate((8, 12, 16, 20))],
    ),
    "resnet": (
        "resnet18", RESNET,
        [FeatureLevel("act1", 64, 2), FeatureLevel("layer1", 8, 4), FeatureLevel("layer2", 12, 8),
         FeatureLevel("layer3", 16, 16), FeatureLevel("layer4", 20, 32)],
    ),
}  # fmt: skip
"""Model, arguments and expected levels."""
each_family = pytest.mark.parametrize("family", FAMILIES)
with_norm = pytest.mark.parametrize("family", [name for name in FAMILIES if name != "resnet"])

SIZE = (64, 128)


def spec(family: str, **other: Any) -> BackboneSpec:
    name, args, _ = FAMILIES[family]
    return BackboneSpec(model=name, args=args, **{"image_size": 64, **other})


def stirred(model: nn.Module) -> nn.Module:
    """In eval mode, with weights of which each has its part in the output (SwinV2's blocks start as the identity)."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def backbone(family: str, size: tuple[int, int] = SIZE, **other: Any) -> nn.Module:
    torch.manual_seed(0)
    return stirred(build_backbone(spec(family), size, **other))


def images(size: tuple[int, int] = SIZE, count: int = 2) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(2))


def hooked(model: nn.Module, family: str, names: list[str], size: tuple[int, int] = SIZE) -> list[Tensor]:
    """What these modules return during timm's own forward_features, as maps."""
    outputs: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: outputs.update({name: out}))
        for name in names
    ]
    model.forward_features(images(size))  # type: ignore[operator]
    for handle in handles:
        handle.remove()
    maps = []
    for name in names:
        out = outputs[name]
        if out.ndim == 3:
            rows = size[0] // 16
            prefix = out.shape[1] - rows * (size[1] // 16)
            out = out[:, prefix:].reshape(len(out), rows, -1, out.shape[2])
        maps.append(out if family in ("replknet", "resnet") else out.permute(0, 3, 1, 2))
    return maps


@each_family
def test_maps_are_the_outputs_of_the_modules_they_are_named_after(family: str) -> None:
    *_, levels = FAMILIES[family]
    model = backbone(family, levels=range(len(levels)))
    assert feature_info(model) == levels
    with torch.no_grad():
        expected = hooked(model, family, [level.name for level in levels])
        maps = feature_maps(model, images(), range(len(levels)))
        backwards = feature_maps(model, images(), range(len(levels) - 1, -1, -1))
    for level, one, other, wanted in zip(levels, maps, reversed(backwards), expected, strict=True):
        assert one.shape == (2, level.channels, SIZE[0] // level.stride, SIZE[1] // level.stride)
        assert torch.equal(one, wanted), level.name
        assert torch.equal(other, one)
    assert not torch.equal(maps[0][:, :, 0, 0], maps[0][:, :, -1, -1])


@with_norm
def test_the_last_map_can_be_normed(family: str) -> None:
    model = backbone(family, final_norm=True)
    with torch.no_grad():
        (expected,) = hooked(model, family, ["norm"])
        (normed,) = feature_maps(model, images(), final_norm=True)
        (plain,) = feature_maps(model, images())
    assert torch.equal(normed, expected)
    assert not torch.allclose(normed, plain)


@with_norm
def test_a_final_norm_is_for_the_last_level_and_has_to_be_there(family: str) -> None:
    with pytest.raises(ValueError, match=r"final_norm is for the last level, \d, alone, and not for levels \[0\]"):
        build_backbone(spec(family), levels=[0], final_norm=True)
    model = backbone(family)
    with pytest.raises(ValueError, match=r"has no norm for its last map.*build_backbone and final_norm"):
        feature_maps(model, images(), final_norm=True)


def test_a_classifier_that_norms_after_pooling_has_no_final_norm_for_maps() -> None:
    with pytest.raises(ValueError, match="Beit has no norm for its last map"):
        feature_maps(build(spec("beit"), 0), images((64, 64)), final_norm=True)


def test_a_model_without_final_norm_gives_its_map_as_it_ends() -> None:
    model = backbone("resnet", final_norm=True)
    with torch.no_grad():
        assert torch.equal(*feature_maps(model, images(), final_norm=True), *feature_maps(model, images()))


@pytest.mark.parametrize("eps", [1e-6, None])
def test_the_depth_encoder_is_that_of_the_public_code(eps: float | None) -> None:
    """Rectangles of weights under other people's names, windows 8, 8, 8, 4, and the eps of the depth and pose code."""
    with np.load(Path(__file__).parent / "golden" / "depth_encoder.npz", allow_pickle=False) as file:
        golden = {name: torch.from_numpy(file[name].astype(np.float32)) for name in file.files}
    args = {
        "embed_dim": 8, "depths": [2, 1, 2, 1], "num_heads": [1, 1, 2, 2], "window_size": [8, 8, 8, 4],
        "pretrained_window_sizes": [12, 12, 12, 6],
    }  # fmt: skip
    depth = BackboneSpec(model="swinv2_base_window12_192", args=args, image_size=128, norm_eps=eps)
    model = build_backbone(depth, final_norm=True).eval()
    load(model, {name.removeprefix("w."): tensor for name, tensor in golden.items() if name.startswith("w.")})
    with torch.no_grad():
        (features,) = feature_maps(model, golden["x"], final_norm=True)
    difference = (features - golden["encoder_out"]).abs().max().item()
    assert difference < 1e-5 if eps else 5e-4 < difference < 5e-3


@each_family
def test_a_cut_model_gives_the_same_map_and_uses_all_that_it_has(family: str) -> None:
    whole, levels = backbone(family, levels=range(len(FAMILIES[family][2]))), [1]
    cut = build_backbone(spec(family), SIZE, levels).eval()
    assert set(cut.state_dict()) < set(whole.state_dict())
    cut.load_state_dict({name: whole.state_dict()[name] for name in cut.state_dict()})
    assert feature_info(cut) == feature_info(whole)[:2]
    (expected,), (of_cut,), (last,) = (
        feature_maps(whole, images(), levels), feature_maps(cut, images(), levels), feature_maps(cut, images()),
    )  # fmt: skip
    assert torch.equal(of_cut, expected)
    assert torch.equal(last, expected)
    of_cut.square().sum().backward()
    assert [name for name, parameter in cut.named_parameters() if parameter.grad is None] == []
    with pytest.raises(ValueError, match=r"levels \[2\]: the backbone has levels 0 to 1 \(-1: the last\)"):
        feature_maps(cut, images(), [2])


@pytest.mark.parametrize("levels", [[], [-2], [9]])
def test_levels_that_are_not_there_are_refused(levels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"the backbone has levels 0 to 3"):
        build_backbone(spec("swinv2"), levels=levels)


def test_a_model_without_maps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Linear has no feature maps .*use another backbone\.model"):
        feature_info(nn.Linear(1, 1))


@pytest.mark.parametrize("family", ["swinv2", "vit", "beit"])
def test_images_of_a_size_that_was_not_built_for_are_refused(family: str) -> None:
    with pytest.raises(ValueError, match=r"images of 128 x 64 pixels for a \w+ built for 64 x 128: .* input_size"):
        feature_maps(backbone(family), images((128, 64)))


@pytest.mark.parametrize("family", ["swinv2", "swin", "vit", "replknet", "resnet"])
def test_a_model_for_any_size_gives_the_maps_of_one_built_for_it(family: str) -> None:
    sizes = [(64, 128), (128, 64), (64, 64)]
    model = backbone(family, (128, 128), levels=[1], any_size=True)
    for size in sizes:
        other = build_backbone(spec(family), size, [1]).eval()
        load(other, model.state_dict())
        with torch.no_grad():
            (actual,), (expected,) = (feature_maps(net, images(size), [1]) for net in (model, other))
        torch.testing.assert_close(actual, expected)


def test_a_shift_stays_where_a_map_shrinks_to_one_window() -> None:
    """As in SwinTrack, whose template has one window of 7 x 7 tokens; a model built for that size would not shift."""
    args = {**SWIN, "depths": [1, 2, 1, 1]}
    tracked = BackboneSpec(model="swinv2_base_window12_192", args=args, image_size=64)
    torch.manual_seed(0)
    both = stirred(build_backbone(tracked, levels=[1], any_size=True))
    alone, shifting = (
        build_backbone(tracked.model_copy(update={"args": {**args, **other}}), (32, 32), [1]).eval()
        for other in ({}, {"always_partition": True})
    )
    maps = []
    with torch.no_grad():
        for net in (both, alone, shifting):
            net.load_state_dict(both.state_dict())
            maps.append(feature_maps(net, images((32, 32)), [1])[0])
    assert torch.equal(maps[0], maps[2])
    assert not torch.allclose(maps[0], maps[1])


def test_sizes_that_windows_or_patches_do_not_divide_are_refused() -> None:
    swin, vit = (backbone(family, (64, 64), any_size=True) for family in ("swinv2", "vit"))
    with pytest.raises(
        ValueError,
        match=r"window 4 .* 8 x 10 tokens \(an input of 64 x 80 .* heights 64, 128, 192, 256; widths 64, 128",
    ):
        feature_maps(swin, images((64, 80)))
    with pytest.raises(ValueError, match=r"VisionTransformer, images .*64, 72.* divisible by patch size"):
        feature_maps(vit, images((64, 72)))


def test_a_model_of_one_size_is_not_built_for_any() -> None:
    with pytest.raises(ValueError, match=r"beit_base_patch16_224 takes images of one size only"):
        build_backbone(spec("beit"), any_size=True)


@each_family
def test_recomputed_activations_give_the_same_gradients(family: str) -> None:
    gradients = []
    for again in (False, True):
        model = backbone(family).train()
        model.set_grad_checkpointing(again)  # type: ignore[operator]
        sum(one.square().sum() for one in feature_maps(model, images())).backward()  # type: ignore[union-attr]
        gradients.append([parameter.grad for parameter in model.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


@each_family
def test_maps_under_channels_last_and_bf16(family: str) -> None:
    model = backbone(family, levels=[0, 2])
    with torch.no_grad():
        plain = feature_maps(model, images(), [0, 2])
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        last = feature_maps(model, images().contiguous(memory_format=torch.channels_last), [0, 2])
        with torch.autocast("cpu", torch.bfloat16):
            half = feature_maps(model, images(), [0, 2])
    for one, other, rough in zip(plain, last, half, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        assert (rough.float() - one).norm() < 0.05 * one.norm()


class Dense(nn.Module):
    """As a task's model: a backbone, and a head over two of its maps."""

    def __init__(self, family: str) -> None:
        super().__init__()
        self.backbone = backbone(family, levels=[0, 2]).train()
        info = feature_info(self.backbone)
        self.head = nn.ModuleList(nn.Conv2d(info[level].channels, 2, 1) for level in (0, 2))

    def forward(self, x: Tensor) -> Tensor:
        maps = feature_maps(self.backbone, x, [0, 2])
        return torch.stack([head(one).mean((2, 3)) for head, one in zip(self.head, maps, strict=True)])


@pytest.fixture
def one_worker(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("family", ["swinv2", "simmim's vit", "replknet"])
@pytest.mark.usefixtures("one_worker")
def test_a_task_model_trains_under_ddp_and_fsdp(family: str) -> None:
    """Two steps: DDP complains in the second about parameters that the first did not use."""
    losses = []
    for wrap in (None, "ddp", "fsdp"):
        torch.manual_seed(0)
        model: nn.Module = Dense(family)
        if wrap:
            model = wrap_distributed(model, wrap, torch.device("cpu"))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(2):
            loss = model(images()).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)
