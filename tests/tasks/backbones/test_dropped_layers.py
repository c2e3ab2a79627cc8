"""Backbones without their last blocks: they equal the whole model up to there, and take its weights or drawn ones."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from published_checkpoints import BEIT, SHARED, State, beit, moco, model, official_swin, simmim
from pydantic import ValidationError
from torch import Tensor, nn

from tasks.backbones.dropped_layers import cut_facts, drawn_blocks
from tasks.backbones.features import FeatureLevel, feature_info, feature_maps
from tasks.backbones.loading import load
from tasks.backbones.model import build, build_backbone
from tasks.backbones.spec import BackboneSpec, CutOptions, FromTrial, SampleLayers
from tasks.pretraining.simmim import SimMIM
from workers.trial import TrialSpec

SWIN = {"embed_dim": 16, "depths": [1, 2, 6, 2], "num_heads": [1, 2, 4, 8], "window_size": 2}
VIT = {"embed_dim": 16, "depth": 6, "num_heads": 2, "patch_size": 16}
REPLKNET = {"channels": [8, 12, 16, 20], "layers": [1, 1, 6, 1], "kernels": [7, 7, 5, 5]}
FAMILIES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "swinv2": ("swinv2_base_window12_192", SWIN, "layers.2.blocks", "layers.2"),
    "swin": ("swin_base_patch4_window7_224", SWIN, "layers.2.blocks", "layers.2"),
    "replknet": ("replknet_31b", REPLKNET, "stages.2.blocks", "stages.2"),
    "vit": ("vit_base_patch16_224", VIT, "blocks", "blocks.{last}"),
    "beit": ("beit_base_patch16_224", VIT, "blocks", "blocks.{last}"),
    "simmim's vit": ("beit_base_patch16_224", {**BEIT, **VIT, **SHARED}, "blocks", "blocks.{last}"),
}
"""Model, arguments, module with the blocks, and the last level of what is left."""
PYRAMIDS = ("swinv2", "swin", "replknet")
each_family = pytest.mark.parametrize("family", FAMILIES)
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
WEIGHTS = FromTrial(name="SUP", trial="0" * 64)


def spec(family: str, **other: Any) -> BackboneSpec:
    name, args, _, _ = FAMILIES[family]
    return BackboneSpec(model=name, args=args, image_size=64, **other)


@cache
def whole(family: str) -> nn.Module:
    name, args, _, _ = FAMILIES[family]
    return model(name, args)


def loaded(family: str, state: State, **other: Any) -> nn.Module:
    net = build(spec(family, **other), 5)
    load(net, state)
    return net.eval()


def after_block(net: nn.Module, family: str, block: int) -> Tensor:
    """What the whole model has after a block, as a map (n, c, h, w)."""
    _, _, blocks, _ = FAMILIES[family]
    module = 2 * block + 1 if family == "replknet" else block
    outputs: list[Tensor] = []
    handle = net.get_submodule(f"{blocks}.{module}").register_forward_hook(lambda _, __, out: outputs.append(out))
    net(IMAGES)
    handle.remove()
    (out,) = outputs
    if out.ndim == 3:
        return out[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    return out if family == "replknet" else out.permute(0, 3, 1, 2)


@each_family
@pytest.mark.parametrize("dropped", [0, 4])
def test_the_cut_model_computes_what_the_whole_one_has_at_that_block(family: str, dropped: int) -> None:
    source = whole(family)
    cut = loaded(family, dict(source.state_dict()), drop_last=dropped)
    bare = build_backbone(spec(family, drop_last=dropped))
    load(bare, source.state_dict())
    with torch.no_grad():
        expected = after_block(source, family, 5 - dropped)
        for net in (cut, bare.eval()):
            (found,) = feature_maps(net, IMAGES)
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert cut(IMAGES).shape == (2, 5)
    assert expected.abs().mean() > 0.1


@each_family
@pytest.mark.parametrize("dropped", [0, 2])
def test_heads_find_width_and_stride_of_what_is_left(family: str, dropped: int) -> None:
    channels = {"swinv2": 64, "swin": 64}.get(family, 16)
    name = FAMILIES[family][3].format(last=5 - dropped)
    for net in (build(spec(family, drop_last=dropped), 5), build_backbone(spec(family, drop_last=dropped))):
        assert feature_info(net)[-1] == FeatureLevel(name, channels, 16)
        assert len(feature_info(net)) == (3 if family in PYRAMIDS else 6 - dropped)
    assert build(spec(family, drop_last=dropped), 5).num_features == channels


@pytest.mark.parametrize("family", ["swinv2", "swin", "vit", "simmim's vit"])
def test_simmim_reconstructs_from_what_is_left(family: str) -> None:
    encoder = build(spec(family, drop_last=2), 0)
    net = SimMIM(encoder, 64, 16)
    assert net(IMAGES, torch.zeros(2, 4, 4, dtype=torch.bool)).shape == (2, 3, 64, 64)
    again = build(spec(family, drop_last=2), 5)
    assert not any("drop_last" in note for note in load(again, net.state_dict()))  # as a later stage takes it
    for key, tensor in encoder.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key


def pretrained(family: str) -> State:
    source = copy.deepcopy(whole(family))
    source.reset_classifier(0)  # type: ignore[operator]
    return SimMIM(source, 64, 32).state_dict()


ORIGINS: dict[str, tuple[str, Callable[[], State]]] = {
    "published SwinV2": ("swinv2", lambda: official_swin(whole("swinv2"))),
    "published Swin": ("swin", lambda: official_swin(whole("swin"))),
    "SimMIM's SwinV2": ("swinv2", lambda: simmim(official_swin(whole("swinv2")), 128)["model"]),
    "SimMIM's ViT": ("beit", lambda: simmim(dict(beit(**{**SHARED, "depth": 6}).state_dict()), 16, 16)["model"]),
    "MoCo v3": ("vit", lambda: moco(dict(whole("vit").state_dict()))["state_dict"]),
    "our SwinV2": ("swinv2", lambda: pretrained("swinv2")),
    "our RepLKNet": ("replknet", lambda: dict(whole("replknet").state_dict())),
}


@pytest.mark.parametrize("origin", ORIGINS)
def test_weights_of_every_origin_find_their_place(origin: str) -> None:
    family, make = ORIGINS[origin]
    state = make()
    args = {"use_rel_pos_bias": True, **BEIT, **VIT} if origin == "SimMIM's ViT" else FAMILIES[family][1]
    name = FAMILIES[family][0]
    known = build(BackboneSpec(model=name, args=args, image_size=64), 5)
    load(known, state)
    net = build(BackboneSpec(model=name, args=args, image_size=64, drop_last=2), 5)
    notes = load(net, state)
    for key, tensor in net.state_dict().items():
        if not key.startswith(("norm.", "fc_norm.", "head.")):
            assert torch.equal(tensor, known.state_dict()[key]), key
    norms = [tensor for key, tensor in net.state_dict().items() if key.startswith(("norm.", "fc_norm."))]
    assert norms
    assert all(set(tensor.flatten().tolist()) <= {0.0, 1.0} for tensor in norms)
    assert any("entries of what drop_last leaves out were not loaded" in note for note in notes)


def test_the_notes_name_what_was_not_loaded() -> None:
    net = build(spec("swinv2", drop_last=2), 5)
    assert load(net, whole("swinv2").state_dict()) == [
        "weights: 71 entries of what drop_last leaves out were not loaded (layers.2.blocks 4 to 5, layers.3)",
        "weights: the final norm of the whole model was left out; that of the cut one starts as drawn",
    ]
    net = build(spec("replknet", drop_last=1), 5)
    note, _ = load(net, whole("replknet").state_dict())
    assert note.endswith("(stages.2.blocks 5, stages.3, transitions.2)")


@each_family
def test_only_what_was_dropped_may_be_left_over_or_missing(family: str) -> None:
    state = dict(whole(family).state_dict())
    blocks = FAMILIES[family][2]
    net = build(spec(family, drop_last=2), 5)
    with pytest.raises(ValueError, match=rf"1 left over: {blocks}.0.surplus$"):
        load(net, {**state, f"{blocks}.0.surplus": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"1 left over: layers.9.surplus$"):
        load(net, {**state, "layers.9.surplus": torch.zeros(1)})
    gone = next(name for name in state if name.startswith(f"{blocks}.1."))
    with pytest.raises(ValueError, match=rf"1 missing: {gone}$"):
        load(net, {name: tensor for name, tensor in state.items() if name != gone})


@each_family
def test_trained_weights_of_a_cut_model_keep_their_norm(family: str) -> None:
    trained = build(spec(family, drop_last=2), 5)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1)
    again = build(spec(family, drop_last=2), 5)
    assert load(again, trained.state_dict()) == []
    shorter = build(spec(family, drop_last=3), 5)
    load(shorter, trained.state_dict())
    for key, tensor in trained.state_dict().items():
        if not key.startswith("head."):
            assert torch.equal(again.state_dict()[key], tensor), key
        if key in ("norm.weight", "fc_norm.weight"):
            assert not torch.equal(shorter.state_dict()[key], tensor)


def test_nothing_dropped_from_a_stack_is_the_whole_model() -> None:
    source = whole("vit")
    cut = loaded("vit", dict(source.state_dict()), drop_last=0)
    known = source.state_dict()
    assert all(torch.equal(t, known[key]) for key, t in cut.state_dict().items() if not key.startswith("head."))


def test_a_pyramid_of_three_stages_has_no_fourth_to_drop() -> None:
    args = {**SWIN, "depths": [1, 2, 6], "num_heads": [1, 2, 4]}
    source = model("swinv2_base_window12_192", args)
    for dropped, notes in ((0, 0), (2, 2)):
        net = build(BackboneSpec(model="swinv2_base_window12_192", args=args, image_size=64, drop_last=dropped), 5)
        assert len(load(net, source.state_dict())) == notes
    kept = {"drop_last": 2, "cut": CutOptions(final_norm="pretrained")}
    net = build(BackboneSpec(model="swinv2_base_window12_192", args=args, image_size=64, **kept), 5)
    load(net, source.state_dict())
    assert torch.equal(net.norm.weight, source.norm.weight)


def test_the_norm_of_the_whole_stack_can_be_kept_and_that_of_a_fourth_stage_cannot() -> None:
    source = whole("vit")
    kept = loaded("vit", dict(source.state_dict()), drop_last=2, cut=CutOptions(final_norm="pretrained"))
    assert torch.equal(kept.norm.weight, source.norm.weight)
    fresh = loaded("vit", dict(source.state_dict()), drop_last=2)
    assert torch.equal(fresh.norm.weight, torch.ones(16))
    assert torch.equal(fresh.norm.bias, torch.zeros(16))
    with pytest.raises(ValueError, match=r"final norm of swinv2.* has 128 channels and the third stage has 64; set .*"):
        build(spec("swinv2", drop_last=2, cut=CutOptions(final_norm="pretrained")), 5)


def rates(net: nn.Module) -> list[float]:
    return [part.drop_prob for name, part in net.named_modules() if hasattr(part, "drop_prob")]


@each_family
def test_drop_path_is_spaced_over_what_is_left_or_kept(family: str) -> None:
    before = rates(build(spec(family, drop_path=0.3), 5))
    respaced = rates(build(spec(family, drop_path=0.3, drop_last=2), 5))
    kept = rates(build(spec(family, drop_path=0.3, drop_last=2, cut=CutOptions(drop_path="kept")), 5))
    assert before[-1] == respaced[-1] == pytest.approx(0.3)
    assert kept == before[: len(kept)]
    assert len(kept) == len(respaced)
    assert kept[-1] < 0.25


def test_lists_with_an_entry_per_stage_lose_that_of_the_fourth() -> None:
    args = {**SWIN, "window_size": [4, 4, 2, 2], "pretrained_window_sizes": [4, 4, 4, 2]}
    net = build(BackboneSpec(model="swinv2_base_window12_192", args=args, image_size=64, drop_last=1), 5)
    assert [layer.blocks[0].window_size for layer in net.layers] == [(4, 4), (4, 4), (2, 2)]
    assert [len(layer.blocks) for layer in net.layers] == [1, 2, 5]


def test_building_a_cut_model_draws_the_same_numbers_as_the_same_model_written_out() -> None:
    torch.manual_seed(3)
    cut = build(spec("swinv2", drop_last=2), 5).state_dict()
    args = {**SWIN, "depths": [1, 2, 4], "num_heads": [1, 2, 4]}
    torch.manual_seed(3)
    written = build(BackboneSpec(model="swinv2_base_window12_192", args=args, image_size=64), 5).state_dict()
    assert cut.keys() == written.keys()
    assert all(torch.equal(cut[key], written[key]) for key in cut)


@pytest.mark.parametrize(
    ("model_name", "args", "dropped", "message"),
    [
        ("swinv2_base_window12_192", {}, 18, r"drop_last 18: swinv2_base_window12_192 has 18 blocks in its third "
                                             r"stage, of which at least one has to be left; use 0 to 17$"),
        ("vit_base_patch16_224", {}, 12, r"drop_last 12: vit_base_patch16_224 has 12 blocks, of .* use 0 to 11$"),
        ("replknet_31b", {}, 20, r"has 18 blocks in its third stage"),
        ("resnet18", {}, 1, r"drop_last 1 is not written for resnet18 \(ResNet\): use a Swin, .*; or set .* to null"),
        ("swinv2_base_window12_192", {**SWIN, "depths": [1, 1], "num_heads": [1, 2]}, 0,
         r"drop_last 0 drops blocks from the third stage, and swinv2.* has 2 stages here; set drop_last to null"),
    ],
)  # fmt: skip
def test_what_a_model_does_not_have_cannot_be_dropped(
    model_name: str, args: dict[str, Any], dropped: int, message: str
) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build(BackboneSpec(model=model_name, args=args, drop_last=dropped), 5)


# -- drawn blocks


def test_draws_are_these_forever() -> None:
    assert drawn_blocks(18, 9, 0, "drawn") == DRAW_0
    assert drawn_blocks(18, 9, 0, "sorted") == tuple(sorted(DRAW_0))
    assert len({drawn_blocks(18, 9, draw, "drawn") for draw in range(5)}) == 5


DRAW_0 = (4, 9, 5, 2, 8, 7, 0, 13, 10)


def test_every_block_is_drawn_equally_often_at_every_place() -> None:
    places = [drawn_blocks(6, 3, draw, "drawn") for draw in range(3000)]
    assert all(len(set(each)) == 3 for each in places)
    for place in range(3):
        counts = Counter(each[place] for each in places)
        assert sum((n - 500) ** 2 / 500 for n in counts.values()) < 20.5  # chi-square, 5 degrees of freedom, p 0.001


@each_family
@pytest.mark.parametrize("order", ["drawn", "sorted"])
def test_blocks_start_from_the_drawn_ones_with_all_that_belongs_to_them(family: str, order: Any) -> None:
    source = whole(family)
    sampled = SampleLayers(order=order, draw=0)
    net = loaded(family, dict(source.state_dict()), drop_last=3, sample_layers=sampled, init=WEIGHTS)
    drawn = drawn_blocks(6, 3, 0, order)
    blocks = FAMILIES[family][2]
    each = 2 if family == "replknet" else 1
    for place, block in enumerate(drawn):
        for part in range(each):
            mine = net.get_submodule(f"{blocks}.{place * each + part}").state_dict()
            theirs = source.get_submodule(f"{blocks}.{block * each + part}").state_dict()
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(tensor, theirs[key]) for key, tensor in mine.items())
    known = source.state_dict()
    for key, tensor in net.state_dict().items():
        if not key.startswith((blocks, "norm.", "fc_norm.", "head.")):
            assert torch.equal(tensor, known[key]), key
    assert cut_facts(nn.ModuleDict({"backbone": net})) == {
        "blocks_left": f"3 of 6 in {blocks}", "sampled_layers": list(drawn)
    }  # fmt: skip
    assert sorted(drawn) == [0, 2, 4]
    assert any(f"were not loaded ({blocks} 1 3 5" in note for note in net.load_notes)
    assert f"weights: blocks of {blocks} start from those of {', '.join(map(str, drawn))} (of 6)" in net.load_notes


def test_a_shift_stays_with_the_place() -> None:
    sampled = {"drop_last": 3, "sample_layers": SampleLayers(), "init": WEIGHTS}
    net = loaded("swinv2", dict(whole("swinv2").state_dict()), **sampled)
    assert [block.shift_size for block in net.layers[2].blocks] == [(0, 0), (1, 1), (0, 0)]


def test_there_must_be_all_blocks_to_draw_from() -> None:
    sampled = {"drop_last": 3, "sample_layers": SampleLayers(), "init": WEIGHTS}
    before = loaded("swinv2", dict(whole("swinv2").state_dict()), **sampled)
    with pytest.raises(
        ValueError, match=r"draws from 6 blocks of layers.2.blocks, and these weights have 3; .* without"
    ):
        loaded("swinv2", before.state_dict(), **sampled)
    assert loaded("swinv2", before.state_dict(), drop_last=3).load_notes == ()
    with pytest.raises(ValueError, match=r"drop_last 0: no part of vit.* is dropped.*; set drop_last to 1 to 5"):
        build(spec("vit", drop_last=0, sample_layers=SampleLayers(), init=WEIGHTS), 5)


@pytest.mark.parametrize("family", PYRAMIDS)
def test_blocks_are_not_drawn_again_where_only_the_fourth_stage_is_gone(family: str) -> None:
    """With drop_last 0 a trained cut model has all blocks of its third stage, in the order in which they were drawn."""
    sampled = {"drop_last": 0, "sample_layers": SampleLayers(), "init": WEIGHTS}
    before = loaded(family, dict(whole(family).state_dict()), **sampled)
    with pytest.raises(ValueError, match=r"these weights lack what drop_last 0 leaves out: .* load without"):
        loaded(family, before.state_dict(), **sampled)
    kept, again = (net.get_submodule(FAMILIES[family][2]).state_dict()
                   for net in (before, loaded(family, before.state_dict(), drop_last=0)))  # fmt: skip
    assert all(tensor.equal(again[name]) for name, tensor in kept.items())


def test_a_draw_needs_weights_and_a_number_of_blocks() -> None:
    with pytest.raises(ValidationError, match="sample_layers draws as many blocks as drop_last leaves"):
        spec("vit", sample_layers=SampleLayers(), init=WEIGHTS)
    with pytest.raises(ValidationError, match="init is of kind none: name weights in init"):
        spec("vit", drop_last=3, sample_layers=SampleLayers())


def test_defaults_stay_out_of_the_key_and_options_enter_it() -> None:
    def key(**backbone: Any) -> str:
        return TrialSpec.model_validate(
            {"task": {"kind": "classify", "dataset": "digits"}, "optim": {"lr": 1e-3, "batch": 20, "epochs": 1},
             "backbone": {"model": "vit_tiny_patch16_224", "image_size": 224, "init": WEIGHTS, **backbone}}
        ).key  # fmt: skip

    plain = key()
    assert plain == key(drop_last=None, cut={}, sample_layers=None)
    assert plain == key(cut={"final_norm": "pretrained"})  # not used without drop_last
    several = [
        plain,
        key(drop_last=0),
        key(drop_last=1),
        key(drop_last=1, cut={"final_norm": "pretrained"}),
        key(drop_last=1, cut={"drop_path": "kept"}),
        key(drop_last=1, cut={"decay_levels": "whole"}),
        key(drop_last=1, sample_layers={}),
        key(drop_last=1, sample_layers={"draw": 1}),
        key(drop_last=1, sample_layers={"order": "sorted"}),
    ]
    assert len(set(several)) == len(several)
    assert key(drop_last=1, sample_layers={}) == key(drop_last=1, cut={}, sample_layers={"draw": 0, "order": "drawn"})
