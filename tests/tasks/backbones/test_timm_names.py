"""timm's names without timm (test_backbone compares all of them with timm's own list)."""

from __future__ import annotations

import pytest

from tasks.backbones.timm_names import check_timm_name, unknown_parts


def test_tag_of_the_weights_is_left_to_timm() -> None:
    name = "swinv2_base_window12_192.ms_in22k"
    assert check_timm_name(name) == name


def test_unknown_name_comes_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no such timm model; nearest: vit_tiny_patch16_224,"):
        check_timm_name("vit_tini_patch16_224")


def test_our_own_models_are_known_too() -> None:
    assert check_timm_name("replknet_31b_mim") == "replknet_31b_mim"
    with pytest.raises(ValueError, match="nearest: replknet_31b"):
        check_timm_name("replknet_31")


def test_names_of_other_code_are_told_from_timms() -> None:
    names = ["stages.0.blocks.1.conv.weight", "Mixed_6a.x", "reduction_cell_1.y", "cls_token1", "conv2d_1a.conv.weight"]
    assert unknown_parts(names) == []
    foreign = ["vit.embeddings.cls_token", "vit.encoder.layer.0.q", "visual.conv1.weight", "decoder_blocks.0.norm.bias"]
    assert unknown_parts([*names, *foreign]) == ["vit", "visual", "decoder_blocks"]
