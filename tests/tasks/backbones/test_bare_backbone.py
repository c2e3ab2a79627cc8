"""Backbones for dense heads: how they are built, and that weights of every origin find their place in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from published_checkpoints import (
    BEIT,
    OWN,
    REPLKNET,
    SHARED,
    SWIN,
    VIT,
    State,
    beit,
    moco,
    official_swin,
    replknet,
    simmim,
    swin,
    swinv2,
    vit,
)
from torch import nn

from tasks.backbones.features import feature_info, feature_maps
from tasks.backbones.loading import fitted, load
from tasks.backbones.model import build, build_backbone
from tasks.backbones.spec import BackboneSpec
from tasks.pretraining.simmim import SimMIM
from workers.layer_decay import levels as decay_levels

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "swinv2": ("swinv2_base_window12_192", SWIN),
    "swin": ("swin_base_patch4_window7_224", SWIN),
    "vit": ("vit_base_patch16_224", VIT),
    "shared": ("beit_base_patch16_224", {**BEIT, **SHARED}),
    "beit": ("beit_base_patch16_224", {**BEIT, **OWN}),
    "replknet": ("replknet_31b", REPLKNET),
}


def spec(name: str, **other: Any) -> BackboneSpec:
    model, args = MODELS[name]
    return BackboneSpec(model=model, args=args, **{"image_size": 64, **other})


def pretrained(source: nn.Module) -> State:
    """As our own pre-training keeps it."""
    source.reset_classifier(0)  # type: ignore[operator]
    return SimMIM(source, 64, 32).state_dict()


def depth_code(source: nn.Module) -> State:
    names = {n: n.replace("cpb_mlp", "rpe_mlp") for n in official_swin(source) if not n.startswith("head.")}
    state = {f"module.encoder.{new}": official_swin(source)[old] for old, new in names.items()}
    return {n.replace("encoder.norm.", "encoder.norm3."): tensor for n, tensor in state.items()}


def pose_model() -> State:
    """As a task of ours keeps it."""
    state = build_backbone(spec("swinv2"), final_norm=True).state_dict()
    return {f"backbone.{name}": tensor for name, tensor in state.items()} | {"head.final.weight": torch.zeros(17)}


ORIGINS: dict[str, tuple[str, Callable[[], State]]] = {
    "supervised SwinV2": ("swinv2", lambda: official_swin(swinv2())),
    "supervised Swin": ("swin", lambda: official_swin(swin())),
    "SimMIM's SwinV2": ("swinv2", lambda: simmim(official_swin(swinv2()), 128)["model"]),
    "SimMIM's ViT": ("shared", lambda: simmim(dict(beit(**SHARED).state_dict()), 16, 16)["model"]),
    "SimMIM's ViT in another model": ("beit", lambda: simmim(dict(beit(**SHARED).state_dict()), 16, 16)["model"]),
    "depth code": ("swinv2", lambda: depth_code(swinv2())),
    "MoCo v3": ("vit", lambda: moco(dict(vit().state_dict()))["state_dict"]),
    "timm and DeiT": ("vit", lambda: dict(vit().state_dict())),
    "our SwinV2": ("swinv2", lambda: pretrained(swinv2())),
    "our ViT": ("vit", lambda: pretrained(vit())),
    "RepLKNet": ("replknet", lambda: dict(replknet().state_dict())),
    "a pose model": ("swinv2", pose_model),
}  # fmt: skip
"""Model that they are loaded into, and the weights."""


@pytest.mark.parametrize("origin", ORIGINS)
def test_weights_find_the_same_place_as_in_a_classifier(origin: str) -> None:
    name, make = ORIGINS[origin]
    state = make()
    classifier = build(spec(name), 5)
    load(classifier, state)
    known = classifier.state_dict()
    last = len(feature_info(classifier)) - 1
    for levels, final_norm in (([last], True), ([last], False), ([0], False)):
        model = build_backbone(spec(name), levels=levels, final_norm=final_norm).eval()
        drawn = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        load(model, state)
        for key, tensor in model.state_dict().items():
            if key in known:
                assert torch.equal(tensor, known[key]), key
        fresh = {key for key in drawn if torch.equal(drawn[key], model.state_dict()[key])}
        assert not any(key.endswith("weight") and tensor.ndim > 1 for key, tensor in drawn.items() if key in fresh)
        assert feature_maps(model, IMAGES, final_norm=final_norm)[0].isfinite().all()


def test_a_norm_of_every_token_is_loaded_also_into_a_model_that_norms_after_pooling() -> None:
    source = beit(**SHARED)
    model = build_backbone(spec("beit"), final_norm=True).eval()
    notes = load(model, simmim(dict(source.state_dict()), 16, 16)["model"])
    with torch.no_grad():
        expected = source.forward_features(IMAGES)[:, 1:]  # type: ignore[operator]
        (normed,) = feature_maps(model, IMAGES, final_norm=True)
    torch.testing.assert_close(normed.flatten(2).transpose(1, 2), expected)
    assert not any("as drawn" in note for note in notes)


def test_a_norm_after_pooling_is_left_out_and_noted() -> None:
    source = beit(**OWN)
    model = build_backbone(spec("beit"), final_norm=True)
    notes = load(model, source.state_dict())
    assert notes == [
        "weights: 2 entries of parts that this backbone lacks left out (fc_norm)",
        "weights: they were normed after pooling (fc_norm); the final norm of the maps starts as drawn",
    ]
    assert torch.equal(model.norm.weight, torch.ones(16))
    without = build_backbone(spec("beit"))
    assert load(without, source.state_dict()) == notes[:1]
    with pytest.raises(ValueError, match=r"missing: .*norm.weight, norm.bias; 4 left over: .*fc_norm"):
        load(build(spec("shared"), 5), source.state_dict())  # a classifier is not to lose its norm


def test_parts_that_were_cut_are_named_and_may_be_missing() -> None:
    source, model = swinv2(), build_backbone(spec("swinv2"), levels=[2])
    (note,) = load(model, source.state_dict())
    assert note == "weights: 22 entries of parts that this backbone lacks left out (layers.3, norm)"
    assert load(model, {name: t for name, t in source.state_dict().items() if name in model.state_dict()}) == []


def test_what_a_bare_backbone_has_must_be_there_and_nothing_unknown() -> None:
    state = dict(swinv2().state_dict())
    with pytest.raises(ValueError, match=r"1 left over: layers.2.blocks.9.norm1.bias$"):
        load(build_backbone(spec("swinv2"), levels=[2]), {**state, "layers.2.blocks.9.norm1.bias": torch.zeros(1)})
    del state["layers.2.blocks.0.norm1.bias"]
    with pytest.raises(ValueError, match=r"1 missing: layers.2.blocks.0.norm1.bias$"):
        load(build_backbone(spec("swinv2"), levels=[2]), state)
    with torch.device("meta"):
        empty = build_backbone(spec("swinv2"), levels=[2])
    assert fitted(empty, swinv2().state_dict())[0].keys() == empty.state_dict().keys()


def test_windows_of_pretraining_are_compared_for_the_stages_that_are_there() -> None:
    state = official_swin(swinv2())
    load(build_backbone(spec("swinv2"), levels=[1]), state)
    larger = BackboneSpec(model="swinv2_base_window12_192", args={**SWIN, "window_size": 8}, image_size=64)
    with pytest.raises(
        ValueError, match=r"learned with windows \(4, 4, 4, 2\), .* with \(8, 8\); add .*\[4, 4, 4, 2\]"
    ):
        load(build_backbone(larger, (128, 64), levels=[1]), state)


def test_size_drop_path_and_eps_are_those_asked_for() -> None:
    for name in ("swinv2", "vit"):
        model = build_backbone(spec(name, drop_path=0.3, norm_eps=1e-4), (64, 128))
        assert model.patch_embed.img_size == (64, 128)
        blocks = model.blocks if name == "vit" else model.layers[-1].blocks
        assert blocks[-1].drop_path1.drop_prob == pytest.approx(0.3)
        assert {part.eps for part in model.modules() if isinstance(part, nn.LayerNorm)} == {1e-4}
        assert not any(key.startswith(("head", "fc_norm", "norm.")) for key in model.state_dict())


@pytest.mark.parametrize(
    ("name", "scheme", "levels", "deepest"),
    [
        ("swinv2", "swin29", [3], 9), ("swinv2", "swin26", [3], 6), ("swinv2", "swin29", [2], 7),
        ("swinv2", "timm", [2], 5), ("beit", "beit", [1], 3), ("vit", "timm", [0], 2),
        ("replknet", "replknet13", [1], 3),
    ],
)  # fmt: skip
def test_layer_decay_finds_its_levels_in_a_task_model(name: str, scheme: str, levels: list[int], deepest: int) -> None:
    """Below the head, which has the full learning rate: every block (and merging) that is there, and the embedding."""
    model = nn.ModuleDict({"backbone": build_backbone(spec(name), levels=levels), "head": nn.Linear(2, 2)})
    depths = decay_levels(model, scheme)
    assert max(depths.values()) == deepest
    assert {depths["head.weight"], depths["head.bias"]} == {0}
