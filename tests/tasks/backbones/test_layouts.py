"""Other people's layouts: each becomes timm's names with the same outputs, or is refused with what does not fit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from published_checkpoints import (
    OWN,
    SHARED,
    State,
    beit,
    coordinates,
    mmpretrain,
    moco,
    official_swin,
    replknet,
    simmim,
    swin,
    swinv2,
    vit,
)
from torch import nn

from tasks.backbones.layouts import fit, translate
from tasks.backbones.loading import fitted, load, load_notes
from tasks.backbones.model import build
from tasks.backbones.spec import BackboneSpec
from tasks.pretraining.simmim import SimMIM

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(2, 3, 64, 64, generator=GENERATOR)


def fresh(net: nn.Module) -> nn.Module:
    """A model of the same kind with other weights."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.5).add_(0.01)
    return net


def features(net: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return net.forward_features(IMAGES)  # type: ignore[operator, no-any-return]


def same(one: nn.Module, other: nn.Module) -> bool:
    return torch.equal(features(one), features(other))


@pytest.mark.parametrize("make", [swinv2, swin])
def test_supervised_swin_as_published(make: type) -> None:
    source, child = make(), fresh(make())
    assert not same(source, child)
    notes = load(child, official_swin(source), keep_head=True)
    with torch.no_grad():
        assert torch.equal(source(IMAGES), child(IMAGES))
    assert notes == load_notes(child)
    assert "layout swin, " in notes[0]
    assert "relative_position_index" in notes[1]


@pytest.mark.parametrize("make", [swinv2, swin])
def test_swin_pretrained_by_simmim(make: type) -> None:
    source, child = make(), fresh(make())
    named = translate(simmim(official_swin(source), width=128)["model"])
    assert named.layout == "simmim/swin"
    assert {"encoder.mask_token", "decoder.0.weight", "decoder.0.bias"} < set(named.dropped)
    load(child, simmim(official_swin(source), width=128)["model"])
    assert same(source, child)


def test_the_older_name_of_the_position_network() -> None:
    source, child = swinv2(), fresh(swinv2())
    older = {name.replace("cpb_mlp", "rpe_mlp"): tensor for name, tensor in official_swin(source).items()}
    load(child, simmim(older, width=128)["model"])
    assert same(source, child)


def test_depth_and_pose_code() -> None:
    source = swinv2()
    plain = {
        name.replace("cpb_mlp", "rpe_mlp").replace("norm.", "norm3.") if name.startswith("norm.") else name: tensor
        for name, tensor in official_swin(source).items()
        if not name.startswith("head.")
    }
    depth = {f"module.encoder.{name}": tensor for name, tensor in plain.items()}
    depth |= {"module.decoder.deconv_layers.0.weight": torch.zeros(3), "module.last_layer_depth.0.bias": torch.zeros(3)}
    pose = {f"backbone.{name}": t for name, t in plain.items()} | {"keypoint_head.final_layer.bias": torch.zeros(17)}
    for state, layout in ((depth, "encoder/swin"), (pose, "backbone/swin")):
        child = fresh(swinv2())
        assert translate(state).layout == layout
        load(child, state)
        assert same(source, child)


@pytest.mark.parametrize("inside", ["attn.cpb_mlp", "attn.w_msa"])
def test_two_entries_that_would_get_one_name_are_refused(inside: str) -> None:
    """Today's and an older name of one weight; a weight with and without the prefix of torch.compile."""
    if inside == "attn.cpb_mlp":
        state = official_swin(swinv2())
        for name in [name for name in state if "cpb_mlp" in name]:
            state[name.replace("cpb_mlp", "rpe_mlp")] = state[name] * 2
        said = r"two entries for 'layers.0.blocks.0.attn.cpb_mlp.0.weight': .*cpb_mlp.0.weight' and .*rpe_mlp.0.weight'"
    else:
        state = mmpretrain(swin())["state_dict"]
        state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
        state["backbone.patch_embed.proj.bias"] = state["backbone.patch_embed.projection.bias"] * 2
        said = r"two entries for 'patch_embed.proj.bias': .*projection.bias' and .*proj.bias'; remove the one"
    with pytest.raises(ValueError, match=said):
        translate(state)


def test_a_weight_twice_because_of_a_wrapper_is_refused() -> None:
    state = dict(vit().state_dict())
    state["blocks.0._orig_mod.norm1.bias"] = state["blocks.0.norm1.bias"] + 1
    with pytest.raises(ValueError, match=r"two entries for 'blocks.0.norm1.bias'"):
        load(vit(), state)
    norms = {f"encoder.{name}": tensor for name, tensor in official_swin(swinv2()).items() if "head" not in name}
    norms["encoder.layers.0.blocks.0._checkpoint_wrapped_module.norm1.bias"] = torch.zeros(16)
    with pytest.raises(ValueError, match="two entries for"):
        translate(norms)


@pytest.mark.parametrize(
    ("wrapped", "stripped"),
    [
        ("module.", "module."),
        ("_orig_mod.", "_orig_mod."),
        ("model.", "model."),
        ("model._orig_mod.", "model., _orig_mod."),
        ("module._orig_mod.", "module., _orig_mod."),
        ("_orig_mod.module.", "_orig_mod., module."),
        ("module.module.model.", "module., model."),
        ("module.model._fsdp_wrapped_module.model.", "module., model."),
        ("model.encoder.", "model."),
        ("module.backbone._orig_mod.", "module., _orig_mod."),
    ],
)
def test_prefixes_of_wrappers_are_stripped_again_and_again_and_it_is_said(wrapped: str, stripped: str) -> None:
    source, child = vit(), fresh(vit())
    state = {f"{wrapped}{name}": tensor for name, tensor in source.state_dict().items()}
    notes = load(child, state)
    assert same(source, child)
    (line,) = [note for note in notes if "prefixes of wrappers" in note]
    assert set(stripped.split(", ")) <= set(line.rpartition(": ")[2].split(", "))


def test_an_averaged_model_and_compiled_blocks_are_known() -> None:
    source, child = vit(), fresh(vit())
    averaged = torch.optim.swa_utils.AveragedModel(source).state_dict()
    notes = load(child, averaged)
    assert same(source, child)
    assert any("1 entries no backbone needs dropped (n_averaged)" in note for note in notes)
    state = {name.replace("blocks.0.", "blocks.0._orig_mod."): t for name, t in source.state_dict().items()}
    child = fresh(vit())
    load(child, state)
    assert same(source, child)
    nested = {f"module.{name}": t for name, t in averaged.items()}
    load(fresh(vit()), nested)


def test_a_prefix_that_only_some_names_have_is_no_wrapper() -> None:
    state = {f"model.{name}": tensor for name, tensor in vit().state_dict().items()} | {"loss.scale": torch.ones(1)}
    with pytest.raises(ValueError, match=r"left over: model.cls_token"):
        load(vit(), state)


@pytest.mark.parametrize(
    ("prefix", "others"),
    [
        ("pyramid.maps.backbone.", ("pyramid.fpn.a", "pyramid.maps.norms.0.weight", "rpn.head.a", "roi_heads.a")),
        ("maps.backbone.", ("maps.resampled.a", "maps.norms.0.weight", "heads.a", "decoders.a", "criterion.a")),
        ("backbone.", ("fusion.a", "head.a", "norm.weight", "search_projection.a", "template_projection.a")),
    ],
)
def test_our_tasks_that_norm_the_maps_themselves_lack_the_final_norm(prefix: str, others: tuple[str, ...]) -> None:
    source, child = vit(), fresh(vit())
    norm = child.norm.weight.clone()
    inside = {name: t for name, t in source.state_dict().items() if not name.startswith(("norm.", "head."))}
    state = {f"{prefix}{name}": t for name, t in inside.items()} | {name: torch.ones(1) for name in others}
    notes = load(child, state)
    assert all(torch.equal(child.state_dict()[name], t) for name, t in inside.items())
    assert torch.equal(child.norm.weight, norm)
    assert any(note.startswith("weights: the final norm, which these weights were trained without") for note in notes)
    del state[f"{prefix}blocks.0.norm1.bias"]
    with pytest.raises(ValueError, match=r"1 missing: blocks.0.norm1.bias$"):
        load(fresh(vit()), state)


def test_mmpretrain_swin_gives_the_outputs_of_its_model() -> None:
    source, child = swin(), fresh(swin())
    state = mmpretrain(source)["state_dict"]
    notes = load(child, state)
    assert translate(state).layout == "backbone/mmpretrain-swin"
    assert same(source, child)
    assert any("layout backbone/mmpretrain-swin" in note for note in notes)
    bare = {name.removeprefix("backbone."): t for name, t in state.items() if name.startswith("backbone.")}
    load(child := fresh(swin()), bare)
    assert same(source, child)


def test_mmpretrain_merges_in_the_order_of_unfold() -> None:
    """Its merging, written down here with torch's Unfold, gives what timm's gives with the translated weights."""
    source = swin()
    state = mmpretrain(source)["state_dict"]
    at = "backbone.stages.0.downsample"
    images = torch.randn(2, 16, 8, 8, generator=GENERATOR)
    columns = nn.functional.unfold(images, 2, stride=2).transpose(1, 2)
    normed = nn.functional.layer_norm(columns, (64,), state[f"{at}.norm.weight"], state[f"{at}.norm.bias"])
    theirs = normed @ state[f"{at}.reduction.weight"].T
    ours = source.layers[1].downsample(images.permute(0, 2, 3, 1))
    torch.testing.assert_close(ours.flatten(1, 2), theirs)


def test_mmpretrain_swinv2_is_refused_by_name() -> None:
    state = mmpretrain(swinv2())["state_dict"]
    with pytest.raises(ValueError, match=r"SwinV2 under mmpretrain's names .* is not translated; import"):
        load(swinv2(), state)


def test_vit_pretrained_by_simmim_shares_its_position_table_with_every_block() -> None:
    source = beit(**SHARED)
    for args in (SHARED, {**OWN, "global_pool": "token"}):
        child = fresh(beit(**args))
        notes = load(child, simmim(dict(source.state_dict()), width=16, patch=16)["model"])
        torch.testing.assert_close(features(child), features(source))
    assert any("shared was copied to 2 blocks" in line for line in notes)


def test_vit_fine_tuned_on_pooled_tokens_norms_anew() -> None:
    source, child = beit(**SHARED), fresh(beit(**OWN))
    before = child.fc_norm.weight.clone()
    notes = load(child, simmim(dict(source.state_dict()), width=16, patch=16)["model"])
    assert torch.equal(child.fc_norm.weight, before)
    with torch.no_grad():
        torch.testing.assert_close(source.norm(features(child)), features(source))
    assert any("fc_norm" in line for line in notes)


def test_weights_with_both_norms_keep_both() -> None:
    own = fresh(beit(**OWN))
    state = {**own.state_dict(), "norm.weight": torch.ones(16), "fc_norm.weight": torch.full((16,), 3.0)}
    changed, notes = fit(state, own)
    assert notes == []
    assert torch.equal(changed["fc_norm.weight"], state["fc_norm.weight"])
    assert "norm.weight" in changed


def test_a_table_that_cannot_be_resized_stops_no_other() -> None:
    model = swin(128, window_size=8)
    first, second = [name for name in model.state_dict() if name.endswith("bias_table")][:2]
    state = {first: torch.zeros(50, 1), second: torch.ones(49, model.state_dict()[second].shape[1])}
    changed, notes = fit(state, model)
    assert torch.equal(changed[first], state[first])
    assert changed[second].shape == model.state_dict()[second].shape
    assert notes == [f"weights: 1 tables of relative positions resized from 49 to {len(changed[second])} rows"]


def test_moco_v3_brings_its_base_encoder_without_the_projector() -> None:
    source, child = vit(), fresh(vit())
    head = child.head.weight.clone()
    state = moco(dict(source.state_dict()))["state_dict"]
    assert translate(state).layout == "moco-v3/timm"
    assert not [name for name in translate(state).tensors if name.startswith(("head.", "fc."))]
    assert {"module.base_encoder.head.0.weight", "module.base_encoder.head.1.running_mean"} < {
        *translate(state).dropped
    }
    load(child, state)
    assert same(source, child)
    assert torch.equal(child.head.weight, head)
    with pytest.raises(ValueError, match=r"2 missing: head.weight, head.bias"):
        load(child, state, keep_head=True)


def test_timm_names_and_our_own() -> None:
    source = vit()
    state = dict(source.state_dict())
    ours = {f"encoder.{name}": tensor for name, tensor in state.items() if not name.startswith("head.")}
    ours |= {"decoder.0.weight": torch.zeros(2), "mask_token": torch.zeros(1, 1, 16)}
    assert translate(state).layout == "timm"
    assert translate(state).notes == []
    assert translate(ours).layout == "pretrain/timm"
    for given in (state, ours, {f"module.{name}": tensor for name, tensor in state.items()}):
        child = fresh(vit())
        load(child, given)
        assert same(source, child)


def test_translating_twice_is_translating_once() -> None:
    once = translate(simmim(official_swin(swinv2()), width=128)["model"]).tensors
    assert translate(once).tensors.keys() == once.keys()
    assert translate(once).layout == "timm"


def test_position_embeddings_of_a_vit_are_resampled_and_it_is_said() -> None:
    source, child = vit(96), fresh(vit(64))
    notes = load(child, dict(source.state_dict()))
    assert notes == ["weights: position embedding resampled from 6 x 6 to 4 x 4 patches (bicubic)"]
    assert torch.equal(child.pos_embed[:, :1], source.pos_embed[:, :1])  # the class token's
    flat = {**source.state_dict(), "pos_embed": torch.ones(1, 37, 16)}
    load(child, flat)
    assert torch.allclose(child.pos_embed, torch.ones(1, 17, 16))


@pytest.mark.parametrize("tokens", [36, 38, 40])
def test_a_position_embedding_that_is_no_square_is_refused_as_it_is(tokens: int) -> None:
    state = {**vit().state_dict(), "pos_embed": torch.ones(1, tokens, 16)}
    with pytest.raises(ValueError, match=rf"1 of another shape: pos_embed \(1, {tokens}, 16\) for \(1, 17, 16\)"):
        load(vit(), state)


@pytest.mark.parametrize(("rows", "heads"), [(49, 2), (50, 1), (169, 3)])
def test_a_table_of_other_heads_or_no_square_is_refused_as_it_is(rows: int, heads: int) -> None:
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    state = {**swin(128, window_size=8).state_dict(), name: torch.zeros(rows, heads)}
    with pytest.raises(ValueError, match=rf"1 of another shape: {name} \({rows}, {heads}\) for \(225, 1\)"):
        load(swin(128, window_size=8), state)


@pytest.mark.parametrize(("make", "args"), [(swin, {}), (beit, OWN), (beit, SHARED)])
def test_position_tables_are_resized_where_the_window_changes(make: type, args: dict[str, bool]) -> None:
    """A bias of the vertical offset alone stays one, rises, and keeps its middle and its ends."""
    small, large = make(64, **args), fresh(make(128, **({"window_size": 8} if make is swin else {}), **args))
    extra = 3 if make is beit else 0  # of the class token
    state: State = {}
    for name, tensor in small.state_dict().items():
        state[name] = tensor
        if name.endswith("bias_table"):
            side = round((len(tensor) - extra) ** 0.5)
            offsets = torch.arange(side * side) // side - side // 2
            column = torch.cat([offsets, torch.full((extra,), 77)]).float()
            state[name] = column[:, None].expand_as(tensor).contiguous()
    notes = load(large, state)
    assert any("tables of relative positions resized" in line for line in notes)
    for name, tensor in large.state_dict().items():
        if not name.endswith("bias_table"):
            continue
        assert (tensor[len(tensor) - extra :] == 77).all()
        side = round((len(tensor) - extra) ** 0.5)
        table = tensor[: side * side].view(side, side, -1)
        torch.testing.assert_close(table, table[:, :1, :1].expand_as(table))
        line, end = table[:, 0, 0], state[name][0, 0]
        assert (line.diff() >= 0).all()
        torch.testing.assert_close(line[[0, side // 2, -1]], torch.stack([end, end * 0, -end]), atol=1e-4, rtol=0)


def test_swinv2_at_another_window_keeps_its_weights_and_needs_to_be_told_the_first_one() -> None:
    source = swinv2(64)
    state = official_swin(source)
    with pytest.raises(
        ValueError, match=r"learned with windows \(4, 4, 4, 2\), .* \(8, 8, 8, 4\); add .*\[4, 4, 4, 2\]"
    ):
        load(swinv2(128, window_size=8), state)
    child = fresh(swinv2(128, window_size=8, pretrained_window_sizes=[4, 4, 4, 2]))
    load(child, state)
    own = dict(child.state_dict())
    assert all(torch.equal(own[name], tensor) for name, tensor in source.state_dict().items() if "head" not in name)
    table = child.layers[0].blocks[0].attn.relative_coords_table
    assert torch.allclose(table, coordinates(8, 4), atol=1e-6)


@pytest.mark.parametrize("window", [2, 6, 7, 8, 12, 14, 16, 24, 30])
@pytest.mark.parametrize("pretrained", [2, 6, 12, 16, 24])
def test_the_window_of_pretraining_is_read_from_the_coordinates(window: int, pretrained: int) -> None:
    table = coordinates(window, pretrained)
    assert translate({"layers.0.blocks.0.attn.relative_coords_table": table}).windows == ((pretrained, pretrained),)


def test_weights_of_another_model_are_refused_with_their_names() -> None:
    deep = swinv2(depths=[1, 1, 3, 1])
    with pytest.raises(ValueError, match=r"\d+ left over: layers.2.blocks.2.attn"):
        load(swinv2(), official_swin(deep))
    with pytest.raises(ValueError, match=r"\d+ missing: layers.2.blocks.2.attn"):
        load(deep, official_swin(swinv2()))
    with pytest.raises(
        ValueError, match=r"of another shape: patch_embed.proj.weight \(32, 3, 4, 4\) for \(16, 3, 4, 4\)"
    ):
        load(swinv2(), official_swin(swinv2(embed_dim=32)))
    with pytest.raises(ValueError, match=r"missing: cls_token.*left over: patch_embed.norm"):
        load(vit(), official_swin(swinv2()))
    with pytest.raises(ValueError, match=r"left over: .*blocks.0.gamma_1"):
        load(vit(), simmim(dict(beit(**SHARED).state_dict()), width=16, patch=16)["model"])


def test_a_wrapper_with_unknown_parts_is_not_unwrapped() -> None:
    """What stands beside the backbone must be known, or a part of the backbone could be dropped in silence."""
    state = {f"encoder.{name}": t for name, t in vit().state_dict().items()} | {"bottleneck.weight": torch.zeros(2)}
    assert translate(state).layout == "timm"
    with pytest.raises(ValueError, match=r"left over: encoder.cls_token"):
        load(vit(), state)


def test_one_missing_tensor_is_enough_to_refuse() -> None:
    state = simmim(official_swin(swinv2()), width=128)["model"]
    del state["encoder.layers.2.downsample.norm.bias"]
    with pytest.raises(ValueError, match=r"1 missing: layers.3.downsample.norm.bias$"):
        load(swinv2(), state)


@pytest.mark.parametrize("make", [swinv2, swin, vit, lambda: beit(**SHARED), replknet])
def test_what_our_own_pretraining_keeps(make: Callable[[], nn.Module]) -> None:
    source, child = make(), fresh(make())
    source.reset_classifier(0)  # type: ignore[operator]
    state = SimMIM(source, 64, 32).state_dict()
    assert {"decoder", "encoder", "mask_token"} == {name.split(".")[0] for name in state}
    named = translate(state)
    assert named.layout == "pretrain/timm"
    assert all(name.startswith(("decoder.", "mask_token")) for name in named.dropped)
    load(child, state)
    assert same(source, child)


@pytest.mark.parametrize(
    ("name", "args", "tensors"),
    [
        ("swinv2_base_window12_192", {}, 423),
        ("swinv2_large_window12_192", {}, 423),
        ("swin_base_patch4_window7_224", {}, 327),
    ],
)
def test_the_published_names_of_whole_models(name: str, args: dict[str, object], tensors: int) -> None:
    """Shapes alone. (SwinV2-B has 425 tensors, head included; by its published names timm's loader finds none.)"""
    size = 192 if "v2" in name else 224
    with torch.device("meta"):
        net = build(BackboneSpec(model=name, args=dict(args), image_size=size), 1000)
    state = {key: tensor for key, tensor in simmim(official_swin(net), 1024)["model"].items() if "coords" not in key}
    assert (
        sum(key.startswith("encoder.") and "relative_position_index" not in key and "mask" not in key for key in state)
        == tensors
    )
    given, _ = fitted(net, state)
    assert len(given) == tensors
    assert {key: tensor.shape for key, tensor in given.items()} == {
        key: tensor.shape for key, tensor in net.state_dict().items() if not key.startswith("head.")
    }
