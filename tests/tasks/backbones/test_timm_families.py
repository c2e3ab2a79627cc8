"""One small model of every timm family that gives feature maps: levels as stated, all weights used, weights load."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from tasks.backbones.features import feature_info, feature_maps
from tasks.backbones.loading import fitted
from tasks.backbones.model import build, build_backbone
from tasks.backbones.spec import BackboneSpec

DEPTHS3, DEPTHS4, DEPTH = {"depths": [1, 1, 1]}, {"depths": [1, 1, 1, 1]}, {"depth": 2}
LAYERS4 = {"layers": [1, 1, 1, 1]}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "beit": ("beit_base_patch16_224", DEPTH),
    "byobnet": ("test_byobnet", {}),
    "cait": ("cait_xxs24_224", DEPTH),
    "coat": ("coat_tiny", {"serial_depths": [1, 1, 1, 1], "parallel_depth": 1}),
    "convit": ("convit_tiny", {"depth": 3, "local_up_to_layer": 2}),
    "convmixer": ("convmixer_768_32", {}),
    "convnext": ("test_convnext", {}),
    "cpubone": ("cpubone_nano", {}),
    "crossvit": ("crossvit_tiny_240", {}),
    "csatv2": ("csatv2", {"depths": [1, 1, 1, 1], "transformer_depths": [0, 0, 1, 1]}),
    "cspnet": ("cs3darknet_focus_s", {}),
    "cspnext": ("cspnext_tiny", {}),
    "davit": ("davit_tiny", DEPTHS4),
    "deepseek_vit": ("deepseek_vit_412m", DEPTH),
    "densenet": ("densenet121", {"block_config": [1, 1, 1, 1]}),
    "dla": ("dla46x_c", {}),
    "dpn": ("dpn48b", {"k_sec": [1, 1, 1, 1]}),
    "edgenext": ("edgenext_xx_small", DEPTHS4),
    "efficientformer": ("efficientformer_l1", DEPTHS4),
    "efficientformer_v2": ("efficientformerv2_s0", DEPTHS4),
    "efficientnet": ("test_efficientnet", {}),
    "efficientvim": ("efficientvim_m1", {}),
    "efficientvit_mit": ("efficientvit_b0", {}),
    "efficientvit_msra": ("efficientvit_m0", {}),
    "eva": ("eva02_tiny_patch14_224", DEPTH),
    "fasternet": ("fasternet_t0", {}),
    "fastvit": ("fastvit_t8", LAYERS4),
    "focalnet": ("focalnet_tiny_srf", {}),
    "gcvit": ("gcvit_xxtiny", {}),
    "gemma4_vit": ("gemma4_vit_167m", DEPTH),
    "ghostnet": ("ghostnet_050", {}),
    "hgnet": ("hgnetv2_b0", {}),
    "hiera": ("hiera_tiny_224", {}),
    "hieradet_sam2": ("sam2_hiera_tiny", {}),
    "hrnet": ("hrnet_w18_small", {}),
    "iformer": ("iformer_t", {}),
    "inception_next": ("inception_next_atto", DEPTHS4),
    "inception_resnet_v2": ("inception_resnet_v2", {}),
    "inception_v3": ("inception_v3", {}),
    "inception_v4": ("inception_v4", {}),
    "lcnetv2": ("lcnetv2_small", {}),
    "levit": ("levit_128s", {}),
    "lowformer": ("lowformer_b0", {}),
    "mambaout": ("test_mambaout", {}),
    "maxxvit": ("test_coatnet", {}),
    "metaformer": ("poolformer_s12", {}),
    "mlp_mixer": ("mixer_s32_224", {}),
    "mobilenetv3": ("lcnet_035", {}),
    "mobilenetv5": ("mobilenetv5_base", {}),
    "mvitv2": ("mvitv2_tiny", {}),
    "naflexvit": ("naflexvit_base_patch16_parfac_gap", DEPTH),
    "nasnet": ("nasnetalarge", {}),
    "nest": ("nest_tiny", {}),
    "nextvit": ("nextvit_small", {}),
    "nfnet": ("test_nfnet", {}),
    "pit": ("pit_ti_224", {"depth": [1, 1, 1]}),
    "pnasnet": ("pnasnet5large", {}),
    "pvt_v2": ("pvt_v2_b0", DEPTHS4),
    "qwen3_vit": ("qwen3_vit_88m", DEPTH),
    "rdnet": ("rdnet_tiny", {}),
    "regnet": ("regnetx_002", {}),
    "repghost": ("repghostnet_050", {}),
    "repvit": ("repvit_m1_0", {}),
    "resnet": ("test_resnet", {}),
    "resnetv2": ("resnetv2_18", LAYERS4),
    "rexnet": ("rexnet_100", {}),
    "selecsls": ("selecsls42", {}),
    "senet": ("legacy_seresnet18", {}),
    "sequencer": ("sequencer2d_s", LAYERS4),
    "shvit": ("shvit_s1", {"depth": [1, 1, 1]}),
    "starnet": ("starnet_s050", DEPTHS4),
    "swiftformer": ("swiftformer_xs", LAYERS4),
    "swin_transformer": ("swin_tiny_patch4_window7_224", DEPTHS4),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", DEPTHS4),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", DEPTHS4),
    "tiny_vit": ("tiny_vit_5m_224", DEPTHS4),
    "tnt": ("tnt_s_legacy_patch16_224", DEPTH),
    "tresnet": ("tresnet_m", LAYERS4),
    "twins": ("twins_svt_small", DEPTHS4),
    "vgg": ("vgg11", {}),
    "visformer": ("visformer_tiny", {"depth": [1, 1, 1]}),
    "vision_transformer": ("test_vit", {}),
    "vision_transformer_relpos": ("test_vit_relpos", {}),
    "vision_transformer_sam": ("samvit_base_patch16_224", {"depth": 2, "global_attn_indexes": [1]}),
    "volo": ("volo_d1_224", {}),
    "vovnet": ("ese_vovnet19b_slim_dw", {}),
    "xception": ("legacy_xception", {}),
    "xception_aligned": ("xception41p", {}),
    "xcit": ("xcit_nano_12_p8_224", DEPTH),
}
"""Module in timm.models -> a small model of it, and arguments that make it smaller."""

SIZES = {"csatv2": 128, "hieradet_sam2": 224, "sequencer": 112}
"""Input in pixels where not the model's own."""

SKIPPED = {
    "gemma4_vit": "its forward pass reads values, which tensors on the meta device do not have",
    "nasnet": "its 3 seconds are too long; pnasnet has the same cells",
}

OTHER_SHAPES = {
    "crossvit": "its second branch gets the image resized to 224 of 240 pixels",
    "inception_resnet_v2": "unpadded convolutions",
    "inception_v3": "unpadded convolutions",
    "inception_v4": "unpadded convolutions",
    "pit": "unpadded patch embedding",
    "pnasnet": "unpadded stem",
    "tresnet": "timm states stride 2 for the first level, which has 4",
    "xception": "unpadded stem",
}
"""Maps that are not of the size that timm's stride promises; their channels are."""

UNUSED = {"efficientvim": ["weights"]}
"""Parameters that no map depends on (of the classifier, but not removed with it): DDP refuses these models."""


@cache
def families() -> set[str]:
    """Every module of timm with feature maps."""
    files = (Path(timm.__file__).parent / "models").glob("*.py")
    return {file.stem for file in files if "def forward_intermediates" in file.read_text(encoding="utf-8")}


def test_every_family_is_in_the_table() -> None:
    assert set(MODELS) == families()


@pytest.mark.parametrize("family", sorted(MODELS.keys() - SKIPPED.keys()))
def test_a_family_has_the_levels_that_it_states(family: str) -> None:
    name, args = MODELS[family]
    size = SIZES.get(family, timm.get_pretrained_cfg_value(name, "input_size")[-1])
    spec = BackboneSpec(model=name, args=args, image_size=size)
    with torch.device("meta"):
        classifier = build(spec, 10)
        levels = range(len(feature_info(classifier)))
        model = build_backbone(spec, levels=levels)
        maps = feature_maps(model, torch.zeros(2, 3, size, size), levels)
    sum(one.sum() for one in maps).backward()  # type: ignore[union-attr]
    assert [one.shape[:2] for one in maps] == [(2, level.channels) for level in feature_info(model)]
    stated = [(-(-size // level.stride), -(-size // level.stride)) for level in feature_info(model)]
    assert ([one.shape[2:] for one in maps] == stated) == (family not in OTHER_SHAPES)
    assert [n for n, parameter in model.named_parameters() if parameter.grad is None] == UNUSED.get(family, [])
    weights, _ = fitted(model, classifier.state_dict())
    assert weights.keys() == model.state_dict().keys()
