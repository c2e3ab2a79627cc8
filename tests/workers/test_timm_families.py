"""One model of every timm family is planned, built without memory and taken through layer decay, or told why not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm_families import MODELS, SIZES

from orchestrator.launch.estimate import parameters
from tasks.backbones.model import build
from tasks.backbones.model_arguments import arguments, usual_image_size
from tasks.backbones.timm_names import unknown_parts
from workers.layer_decay import levels
from workers.model_check import problem
from workers.trial import TrialSpec

OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "byoanet": ("botnet26t_256", {}),
    "deit": ("deit_tiny_distilled_patch16_224", {"depth": 2}),
    "hardcorenas": ("hardcorenas_a", {}),
    "mobilevit": ("mobilevit_xxs", {}),
    "res2net": ("res2net50_26w_4s", {}),
    "resnest": ("resnest14d", {}),
    "sknet": ("skresnet18", {}),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", {"depth": 2}),
    "vitamin": ("vitamin_small_224", {}),
}
"""Modules without a class of their own: those of MODELS build their models."""
FAMILIES = {**MODELS, **OTHERS}

WITHOUT_LAYER_DECAY = {"csatv2", "metaformer", "pit"}
"""Models to which timm gives no group_matcher."""


def trial(family: str, layer_decay: float, **backbone: Any) -> TrialSpec:
    name, args = FAMILIES[family]
    size = {"image_size": SIZES[family]} if family in SIZES else {}  # else timm's own
    optim = {"lr": 1e-3, "epochs": 2, "warmup_epochs": 1, "batch": 50, "layer_decay": layer_decay}
    model = {"model": name, "args": args, **size, **backbone}
    return TrialSpec.model_validate(
        {"task": {"kind": "classify", "dataset": "digits"}, "backbone": model, "optim": optim}
    )


def test_no_family_of_timm_is_left_out() -> None:
    files = (Path(timm.__file__).parent / "models").glob("*.py")
    registering = {file.stem for file in files if re.search(r"^@register_model", file.read_text("utf-8"), re.MULTILINE)}
    assert registering == FAMILIES.keys()


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_is_planned_built_and_has_levels_or_the_reason_is_told(family: str) -> None:
    spec = trial(family, layer_decay=0.75)
    if family in WITHOUT_LAYER_DECAY:
        assert "layer decay needs one part of the model with timm's group_matcher" in str(problem(spec, None))
        assert problem(trial(family, layer_decay=1.0), None) is None
        return
    assert problem(spec, None) is None
    with torch.device("meta"):
        model = build(spec.backbone, 10)
    depths = levels(model, "timm")
    assert set(depths.values()) >= {0, 1, 2}
    assert parameters(spec) == sum(parameter.numel() for parameter in model.parameters())
    assert unknown_parts(model.state_dict()) == []


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("vit_tiny_patch16_224", {"img_size", "drop_path_rate", "patch_size"}),  # its class names them
        ("levit_128s", {"img_size", "drop_path_rate", "embed_dim"}),  # LevitDistilled passes them on to Levit
        ("naflexvit_base_patch16_gap", {"img_size", "drop_path_rate", "embed_dim"}),  # fields of its configuration
        ("test_byobnet", {"img_size", "drop_path_rate", "stem_type"}),
        ("caformer_s18", {"drop_path_rate", "depths"}),
        ("hrnet_w18_small", {"head", "output_stride"}),
        ("resnet10t", {"drop_path_rate", "layers"}),
    ],
)
def test_what_a_model_takes_is_asked_of_its_class(model: str, expected: set[str]) -> None:
    state = torch.get_rng_state()
    known = arguments(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert expected <= known
    assert ("img_size" in known) == ("img_size" in expected)
    assert ("drop_path_rate" in known) == ("drop_path_rate" in expected)
    assert {"self", "kwargs", "no_such"}.isdisjoint(known)


@pytest.mark.parametrize("family", ["metaformer", "vovnet", "hrnet", "convnext", "resnet"])
def test_the_image_size_of_the_spec_stands_where_the_model_has_none(family: str) -> None:
    assert problem(trial(family, layer_decay=1.0, image_size=64), None) is None
    assert trial(family, 1.0, image_size=64).key != trial(family, 1.0).key


def test_an_image_size_that_is_left_out_is_timms_and_is_recorded() -> None:
    spec = trial("vision_transformer", 1.0)
    assert spec.backbone.image_size == usual_image_size("test_vit") == 160
    assert spec.key == trial("vision_transformer", 1.0, image_size=160).key
    assert spec.model_dump(mode="json")["backbone"]["image_size"] == 160


@pytest.mark.parametrize(
    ("family", "args", "said"),
    [
        ("vision_transformer", {"patch_sise": 8}, r"not among its arguments: patch_sise \(nearest: patch_size\)"),
        ("metaformer", {"depth": [1, 1, 1, 1]}, r"not among its arguments: depth \(nearest: depths\)"),
        ("hrnet", {"global_poo": "avg"}, r"not among its arguments: global_poo \(nearest: global_pool\)"),
        ("resnet", {"blok_args": {}}, r"not among its arguments: blok_args \(nearest: block_args\)"),
        ("vgg", {"mlp_ration": 1.0}, r"not among its arguments: mlp_ration \(nearest: mlp_ratio\)"),
        ("regnet", {"group_sise": 8}, r"not among its arguments: group_sise \(nearest: group_size\)"),
    ],
)
def test_a_misspelt_argument_is_told_with_the_nearest_whatever_the_family_words(
    family: str, args: dict[str, Any], said: str
) -> None:
    assert re.search(said, str(problem(trial(family, 1.0, args=args), None)))


def test_an_argument_that_is_wrong_in_itself_is_told_where_the_image_size_is_dropped_too() -> None:
    """A TypeError of another cause is not taken for a family without an image size."""
    said = str(problem(trial("vision_transformer", 1.0, args={"depth": "two"}), None))
    assert "'depth': 'two'" in said
    assert "vgg11 has no drop path; set backbone.drop_path to 0" in str(problem(trial("vgg", 1.0, drop_path=0.1), None))


def test_a_tag_that_timm_does_not_have_is_told() -> None:
    spec = trial("vision_transformer", 1.0, model="vit_tiny_patch16_224.no_such", image_size=224)
    assert "Invalid pretrained tag (no_such)" in str(problem(spec, None))
