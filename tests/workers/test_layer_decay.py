"""The named schemes of layer decay and weight decay, against timm's groups and the rules of the reference codes."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
import timm
import torch
from pydantic import ValidationError
from timm.optim import param_groups_layer_decay
from torch import nn

import tasks.backbones.replknet  # makes it known to timm
from tasks.backbones.model import build
from tasks.backbones.spec import BackboneSpec, CutOptions
from tasks.pretraining.simmim import SimMIM
from workers.layer_decay import levels, no_weight_decay
from workers.optim import parameter_groups
from workers.optim_spec import OptimSpec
from workers.trial import TrialSpec

DEPTHS = (2, 2, 18, 2)
SHALLOW = {"depths": (1, 1, 2, 1), "embed_dim": 16, "num_heads": (1, 2, 4, 8), "img_size": 64, "window_size": 4}
TINY_REPLKNET = {"layers": (1, 1, 3, 1), "channels": (4, 6, 8, 10), "kernels": (9, 7, 7, 3), "small_kernel": 3}


def made(name: str, **arguments: Any) -> nn.Module:
    """The model in its true size, without memory."""
    with torch.device("meta"):
        return timm.create_model(name, **arguments)


@pytest.fixture(scope="module")
def swinv2() -> nn.Module:
    return made("swinv2_base_window12_192")


def optim(**changes: Any) -> OptimSpec:
    return OptimSpec(**{"lr": 1e-3, "epochs": 10, "warmup_epochs": 2, "batch": 64, "layer_decay": 0.75, **changes})


def table(model: nn.Module, **changes: Any) -> dict[str, tuple[float, float]]:
    """Parameter -> factor of the learning rate, weight decay."""
    groups = parameter_groups(model, optim(**changes))
    return {name: (group.lr_scale, group.weight_decay) for group in groups for name in group.names}


def differing(model: nn.Module, scheme: str, other: str = "timm") -> list[str]:
    one, two = levels(model, scheme), levels(model, other)
    assert one.keys() == two.keys() == dict(model.named_parameters()).keys()
    return [name for name in one if one[name] != two[name]]


@pytest.mark.parametrize(
    "name",
    ["swinv2_base_window12_192", "swin_tiny_patch4_window7_224", "beit_base_patch16_224", "vit_tiny_patch16_224",
     "convnext_atto", "resnet10t", "replknet_31b_mim"],
)  # fmt: skip
def test_timm_is_timms_own_table(name: str) -> None:
    model = made(name, num_classes=5)
    no_decay = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    theirs = param_groups_layer_decay(model, 0.05, no_weight_decay_list=no_decay, layer_decay=0.75)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    expected = {names[id(p)]: (group["lr_scale"], group["weight_decay"]) for group in theirs for p in group["params"]}
    assert table(model) == expected
    assert len(expected) == len(names)


def test_swin26_and_timm_differ_in_11_of_425_tensors(swinv2: nn.Module) -> None:
    assert len(list(swinv2.parameters())) == 425
    merging = [f"layers.{s}.downsample.{part}" for s in (1, 2, 3) for part in ("reduction.weight", "norm.weight",
                                                                              "norm.bias")]  # fmt: skip
    assert sorted(differing(swinv2, "swin26")) == sorted([*merging, "norm.weight", "norm.bias"])
    one, two = levels(swinv2, "swin26"), levels(swinv2, "timm")
    assert {two[name] - one[name] for name in merging} == {-1}
    assert (one["norm.weight"], two["norm.weight"]) == (0, 1)


def block_index(name: str) -> int | None:
    """Of the blocks in a row, 0 to 23."""
    found = re.match(r"layers\.(\d)\.blocks\.(\d+)\.", name)
    return sum(DEPTHS[: int(found[1])]) + int(found[2]) if found else None


def test_swin26_is_simmims_rule(swinv2: nn.Module) -> None:
    for name, level in levels(swinv2, "swin26").items():
        block = block_index(name)
        if block is not None:
            assert level == 24 - block, name
        elif name.startswith("layers."):  # layers.1.downsample here is layers.0.downsample there
            assert level == 24 - (sum(DEPTHS[: int(name[7])]) - 1), name
        else:
            assert level == (25 if name.startswith("patch_embed") else 0), name
    scales = {scale for scale, _ in table(swinv2, layer_decay_scheme="swin26", layer_decay=0.8).values()}
    assert sorted(scales) == pytest.approx([0.8**k for k in range(25, -1, -1)])


def test_swin29_is_the_rule_of_the_depth_and_pose_code(swinv2: nn.Module) -> None:
    for _ in range(2):  # that code changes its list of depths in place: the second table there is another one
        for name, level in levels(swinv2, "swin29").items():
            block = block_index(name)
            if block is not None:
                assert level == 28 - (1 + block + int(name[7])), name  # one merging before each later stage
            elif name.startswith("layers."):
                stage = int(name[7])
                assert level == 28 - (sum(DEPTHS[:stage]) + stage), name
            else:
                assert level == (28 if name.startswith("patch_embed") else 0), name
    scales = {scale for scale, _ in table(swinv2, layer_decay_scheme="swin29", layer_decay=0.9).values()}
    assert sorted(scales) == pytest.approx([0.9**k for k in range(28, -1, -1)])


def test_other_depths_have_other_numbers_of_levels() -> None:
    swin = made("swinv2_base_window12_192", **SHALLOW)
    assert sorted(set(levels(swin, "swin26").values())) == list(range(5 + 2))
    assert sorted(set(levels(swin, "swin29").values())) == list(range(5 + 3 + 2))
    replknet = made("replknet_31b", **TINY_REPLKNET)
    assert sorted(set(levels(replknet, "replknet13").values())) == list(range((1 + 1 + 2 + 1) + 2))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("beit_base_patch16_224", {}), ("vit_base_patch16_224", {"global_pool": "avg"}), ("deit_base_patch16_224", {})],
)
def test_beit_and_timm_differ_in_no_tensor_of_a_transformer_that_pools_first(name: str, arguments: Any) -> None:
    model = made(name, **arguments)
    expected = [] if "deit" not in name else ["norm.weight", "norm.bias"]  # DeiT normalises, then takes the class token
    assert differing(model, "beit") == expected
    assert sorted(set(levels(model, "beit").values())) == list(range(14))
    assert levels(model, "beit")["blocks.0.norm1.weight"] == 12
    assert levels(model, "beit")["cls_token"] == levels(model, "beit")["patch_embed.proj.weight"] == 13


def test_a_shared_position_bias_is_at_the_heads_level_in_beit() -> None:
    model = made("beit_base_patch16_224", use_shared_rel_pos_bias=True, use_rel_pos_bias=False, global_pool="token")
    shared = "rel_pos_bias.relative_position_bias_table"
    assert differing(model, "beit") == [shared, "norm.weight", "norm.bias"]
    assert (levels(model, "beit")[shared], levels(model, "timm")[shared]) == (0, 13)


def test_replknet13_is_the_reference_codes_rule() -> None:
    model = made("replknet_31b_mim")
    found = levels(model, "replknet13")
    assert differing(model, "replknet13") == []
    expected = {
        "entry.weight": 13, "stem.3.bn.bias": 13, "stages.0.blocks.0.pw1.conv.weight": 12,
        "stages.0.blocks.3.pw2.conv.weight": 12, "transitions.0.1.conv.weight": 12,
        "stages.1.blocks.3.preffn_bn.weight": 11, "transitions.1.0.conv.weight": 11,
        "stages.2.blocks.3.pw1.conv.weight": 10, "stages.2.blocks.4.pw1.conv.weight": 9,
        "stages.2.blocks.35.pw1.conv.weight": 2, "transitions.2.0.conv.weight": 2,
        "stages.3.blocks.0.large_kernel.lkb_origin.conv.weight": 1, "norm.weight": 0, "head.weight": 0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert sorted(set(found.values())) == list(range(14))
    scales = {scale for scale, _ in table(model, layer_decay_scheme="replknet13", layer_decay=0.8).values()}
    assert sorted(scales) == pytest.approx([0.8**k for k in range(13, -1, -1)])


@pytest.mark.parametrize(
    ("name", "scheme", "said"),
    [
        (
            "vit_tiny_patch16_224",
            "swin26",
            r"vit_tiny_patch16_224 \(VisionTransformer\): it has no place for cls_token, pos_embed, "
            r"blocks.0.norm1.weight, ..; schemes that fit it: timm, beit$",
        ),
        ("swin_tiny_patch4_window7_224", "beit", "layers.0.blocks.0.*schemes that fit it: timm, swin26, swin29$"),
        ("swinv2_cr_tiny_224", "swin29", "stages.0.blocks.0.*schemes that fit it: timm$"),
        ("convnext_atto", "replknet13", "stages.0.blocks.0.*schemes that fit it: timm$"),
        ("replknet_31b", "swin26", "stem.0.conv.weight.*schemes that fit it: timm, replknet13$"),
    ],
)
def test_a_scheme_that_does_not_fit_is_refused(name: str, scheme: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"optim.layer_decay_scheme {scheme} does not fit .*{said}"):
        parameter_groups(made(name), optim(layer_decay_scheme=scheme, layer_decay=1.0))


def test_it_is_refused_when_the_spec_is_read_where_the_names_tell() -> None:
    task = {"kind": "classify", "dataset": "digits"}
    vit = {"model": "vit_tiny_patch16_224", "image_size": 16}
    with pytest.raises(ValidationError, match=r"layer_decay_scheme swin26 does not fit backbone.model vit_tiny"):
        TrialSpec.model_validate({"task": task, "backbone": vit, "optim": optim(layer_decay_scheme="swin26")})
    TrialSpec.model_validate({"task": task, "backbone": vit, "optim": optim(layer_decay_scheme="beit")})


@pytest.fixture(scope="module")
def simmim() -> SimMIM:
    return SimMIM(timm.create_model("swinv2_base_window12_192", num_classes=0, **SHALLOW), 64, 32)


def test_a_backbone_inside_another_model_keeps_its_levels(simmim: SimMIM) -> None:
    inside = levels(simmim.encoder, "swin26")
    whole = levels(simmim, "swin26")
    assert {name: whole[f"encoder.{name}"] for name in inside} == inside
    outside = {name: level for name, level in whole.items() if not name.startswith("encoder.")}
    assert outside == {"mask_token": 6, "decoder.0.weight": 0, "decoder.0.bias": 0}
    # timm numbers an encoder without a head from its last block; the decoder is one above it
    assert levels(simmim, "timm")["encoder.layers.3.blocks.0.attn.qkv.weight"] == 1
    assert levels(simmim, "timm")["decoder.0.weight"] == 0


@pytest.mark.parametrize(
    ("name", "arguments", "scheme"),
    [
        ("swinv2_base_window12_192", {**SHALLOW, "depths": (1, 1, 6, 2)}, "swin26"),
        ("swinv2_base_window12_192", {**SHALLOW, "depths": (1, 1, 6, 2)}, "swin29"),
        ("swinv2_base_window12_192", {**SHALLOW, "depths": (1, 1, 6, 2)}, "timm"),
        ("vit_base_patch16_224", {"embed_dim": 16, "depth": 6, "num_heads": 2, "img_size": 64}, "beit"),
        ("vit_base_patch16_224", {"embed_dim": 16, "depth": 6, "num_heads": 2, "img_size": 64}, "timm"),
        ("replknet_31b", {**TINY_REPLKNET, "layers": (1, 1, 6, 1)}, "replknet13"),
        ("replknet_31b", {**TINY_REPLKNET, "layers": (1, 1, 6, 1)}, "timm"),
    ],
)
def test_a_cut_backbone_has_its_own_levels_or_those_of_the_whole(name: str, arguments: Any, scheme: str) -> None:
    args = {key: value for key, value in arguments.items() if key != "img_size"}

    def backbone(**cut: Any) -> nn.Module:
        with torch.device("meta"):
            return build(BackboneSpec(model=name, args=args, image_size=64, **cut), 5)

    whole = levels(backbone(), scheme)
    own = levels(backbone(drop_last=2), scheme)
    kept_model = backbone(drop_last=2, cut=CutOptions(decay_levels="whole"))
    kept = levels(kept_model, scheme)
    norm_and_head = {key for key in own if key.startswith(("norm.", "head."))}
    assert {key: whole[key] for key in own} == kept
    assert {key: own[key] for key in norm_and_head} == {key: kept[key] for key in norm_and_head}
    removed = max(whole.values()) - max(own.values())
    assert removed == len({level for key, level in whole.items() if key not in own})
    assert {kept[key] - own[key] for key in own.keys() - norm_and_head} == {removed}
    assert levels(nn.ModuleDict({"backbone": kept_model, "neck": nn.Linear(2, 2)}), scheme) == {
        **{f"backbone.{key}": level for key, level in kept.items()},
        "neck.weight": 0,
        "neck.bias": 0,
    }


def test_levels_of_a_cut_swinv2_b() -> None:
    """Baseline of section 3.2, nine blocks of the third stage: 13 blocks, patch embedding, head."""
    with torch.device("meta"):
        model = build(BackboneSpec(model="swinv2_base_window12_192", drop_last=9), 5)
    assert max(levels(model, "swin26").values()) == 2 + 2 + 9 + 1
    assert max(levels(model, "swin29").values()) == 2 + 2 + 9 + 2 + 1


def test_two_backbones_are_refused() -> None:
    two = nn.ModuleDict({name: timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=12) for name in "ab"})
    with pytest.raises(ValueError, match=r"ModuleDict has 2 \(a\., b\.\)"):
        levels(two, "timm")


def kinds(names: set[str]) -> set[str]:
    """Without the numbers of stages and blocks."""
    return {re.sub(r"\.\d+", "", name) for name in names}


def test_weight_decay_of_simmims_pre_training_is_what_its_code_does(simmim: SimMIM) -> None:
    every = {name for name, parameter in simmim.named_parameters() if parameter.ndim > 1}
    # its keywords (cpb_mlp, logit_scale, relative_position_bias_table) get a prefix, and match nothing
    decayed = every - no_weight_decay(simmim, "simmim_swin_pretrain")
    assert every - decayed == {"mask_token"}
    assert {"encoder.layers.blocks.attn.logit_scale", "encoder.layers.blocks.attn.cpb_mlp.weight"} <= {
        re.sub(r"\.\d+", "", name) for name in decayed
    }
    assert kinds(no_weight_decay(simmim, "timm") & every) == {
        "mask_token", "encoder.layers.blocks.attn.logit_scale", "encoder.layers.blocks.attn.cpb_mlp.weight",
    }  # fmt: skip
    assert no_weight_decay(simmim, "one_dimensional") & every == set()
    groups = parameter_groups(simmim, optim(layer_decay=1.0, no_decay="simmim_swin_pretrain"))
    spared = {name for group in groups if group.weight_decay == 0 for name in group.names}
    assert spared == no_weight_decay(simmim, "simmim_swin_pretrain")


def test_weight_decay_of_swins_fine_tuning_is_timms(swinv2: nn.Module) -> None:
    for model in (swinv2, made("swin_tiny_patch4_window7_224")):
        reference = {
            name
            for name, parameter in model.named_parameters()
            if parameter.ndim == 1
            or any(word in name for word in ("cpb_mlp", "logit_scale", "relative_position_bias_table"))
        }
        assert no_weight_decay(model, "timm") == reference


def test_simmims_vision_transformer_decays_tables_and_mask_token() -> None:
    encoder = timm.create_model(
        "beit_base_patch16_224", img_size=32, embed_dim=16, depth=2, num_heads=2, num_classes=0, global_pool="token",
        use_shared_rel_pos_bias=True, use_rel_pos_bias=False, use_abs_pos_emb=True,
    )  # fmt: skip
    model = SimMIM(encoder, 32, 32)
    high = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
    table = "encoder.rel_pos_bias.relative_position_bias_table"
    assert no_weight_decay(model, "simmim_vit") & high == {"encoder.cls_token", "encoder.pos_embed"}
    assert no_weight_decay(model, "timm") & high == {"encoder.cls_token", "encoder.pos_embed", table, "mask_token"}


def test_of_replknet_only_what_has_one_dimension_is_spared() -> None:
    model = made("replknet_31b")
    assert no_weight_decay(model, "timm") == no_weight_decay(model, "one_dimensional")
    assert Counter(model.get_parameter(name).ndim for name in no_weight_decay(model, "timm")).keys() == {1}
    assert tasks.backbones.replknet.RepLKNet is type(model)
