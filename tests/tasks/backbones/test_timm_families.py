"""One small model of every timm family that gives feature maps: levels as stated, all weights used, weights load."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import timm
import torch
from timm_families import MODELS, SIZES

from tasks.backbones.features import feature_info, feature_maps
from tasks.backbones.loading import fitted
from tasks.backbones.model import build, build_backbone
from tasks.backbones.spec import BackboneSpec

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
