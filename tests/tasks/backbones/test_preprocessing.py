"""Preprocessing that belongs to published weights: told where a task's differs, and taken where a task asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tasks.backbones.preprocessing import Preprocessing, differences, published
from tasks.backbones.spec import BackboneSpec, FromFile, FromTimm, Init, Scratch
from tasks.base import DataContext
from tasks.classification.task import Classify
from tasks.datasets.augment import Augment
from tasks.errors import DataError
from tasks.pretraining.task import Pretrain
from workers.trial import TrialSpec

HALF = "vit_tiny_patch16_224.augreg_in21k"
"""Trained with mean and deviation 0.5, bicubic, crop 0.9."""
PLAIN = Augment.none()


def timm(tag: str = HALF) -> FromTimm:
    return FromTimm(name="A", tag=tag)


def backbone(init: Init) -> BackboneSpec:
    return BackboneSpec(model="vit_tiny_patch16_224", image_size=224, init=init)


def context(init: Init | None) -> DataContext:
    return DataContext(Path("/nowhere"), (16, 16), "cpu", seed=0, batch=40, init=init)


def classify(**other: Any) -> Classify:
    return Classify(dataset="digits", **other)


def test_the_case_of_a_study_that_normalised_otherwise_than_its_weights() -> None:
    task = classify(normalize="imagenet", augment=PLAIN.model_copy(update={"interpolation": "bilinear"}))
    (line,) = task.all_caveats(backbone(timm()))
    assert line == (
        "weights A: trained with other preprocessing, by timm's word for the tag: mean 0.5 (here 0.485 0.456 0.406), "
        "standard deviation 0.5 (here 0.229 0.224 0.225), interpolation bicubic (here bilinear), evaluation crop 0.9 "
        "(here 1)"
    )


@pytest.mark.parametrize(
    ("tag", "normalize", "said"),
    [
        ("vit_base_patch16_clip_224.openai", "imagenet", "mean 0.4815 0.4578 0.4082 (here 0.485 0.456 0.406)"),
        ("tf_efficientnet_b0.in1k", "half", "mean 0.485 0.456 0.406 (here 0.5)"),
        ("convmixer_768_32.in1k", "half", "standard deviation 0.229 0.224 0.225 (here 0.5)"),
        ("levit_128s.fb_dist_in1k", "half", "mean 0.485"),
    ],
)
def test_other_tags_are_told_too(tag: str, normalize: str, said: str) -> None:
    (line,) = classify(normalize=normalize).all_caveats(backbone(timm(tag)))
    assert said in line


def test_pre_training_from_published_weights_is_told_too() -> None:
    (line,) = Pretrain(dataset="digits-pretrain", mask_patch=16).all_caveats(backbone(timm()))
    assert "mean 0.5 (here 0.485 0.456 0.406)" in line


@pytest.mark.parametrize(
    "init", [Scratch(), FromFile(name="F", path="w.safetensors"), timm("vit_tiny_patch16_224.no_such_tag")]
)
def test_nothing_is_told_where_nothing_is_stated(init: Init) -> None:
    assert classify().all_caveats(backbone(init)) == ()


def test_nothing_is_told_where_nothing_differs() -> None:
    same = classify(normalize="half", augment=PLAIN.model_copy(update={"eval_crop": 0.9}))
    assert same.all_caveats(backbone(timm())) == ()
    assert classify(preprocessing="weights").all_caveats(backbone(timm())) == ()
    assert differences(timm(), None) == []


def test_a_task_may_take_the_preprocessing_of_its_weights() -> None:
    """The images are those of the same spec with these numbers written out, and the record says them."""
    own = classify(preprocessing="weights", augment=PLAIN.model_copy(update={"interpolation": "bilinear"}))
    loaders = own.loaders(context(timm()))
    assert loaders.preprocessing == {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    written = classify(normalize="half", augment=PLAIN).loaders(context(timm()))
    other = classify(normalize="imagenet", augment=PLAIN).loaders(context(timm()))
    assert written.preprocessing is None
    taken, expected, stated = (next(iter(each.evaluation()))["images"] for each in (loaders, written, other))
    assert torch.equal(taken, expected)
    assert not torch.equal(taken, stated)
    trained, plain = (next(each.epoch(0))["images"] for each in (loaders, written))
    assert torch.equal(trained, plain)


def test_one_image_at_a_time_is_prepared_alike() -> None:
    jitter = PLAIN.model_copy(update={"color_jitter": 0.4})
    taken = classify(preprocessing="weights", augment=jitter).loaders(context(timm()))
    written = classify(normalize="half", augment=jitter).loaders(context(timm()))
    assert torch.equal(next(taken.epoch(0))["images"], next(written.epoch(0))["images"])


@pytest.mark.parametrize("init", [{"kind": "none"}, {"kind": "file", "name": "F", "path": "w.safetensors"},
                                  {"kind": "trial", "name": "T", "trial": "a" * 64}])  # fmt: skip
def test_other_weights_state_none_and_the_spec_is_refused(init: dict[str, Any]) -> None:
    trial = {
        "task": {"kind": "classify", "dataset": "digits", "preprocessing": "weights"},
        "backbone": {"model": "vit_tiny_patch16_224", "image_size": 16, "init": init},
        "optim": {"lr": 1e-3, "epochs": 2, "warmup_epochs": 1, "batch": 50},
    }
    with pytest.raises(ValidationError, match=rf"backbone.init is of kind {init['kind']}: set task.preprocessing to"):
        TrialSpec.model_validate(trial)


def test_a_tag_of_which_timm_states_nothing_is_refused_when_it_runs() -> None:
    with pytest.raises(DataError, match="timm states none for weights A; set it to stated"):
        classify(preprocessing="weights").loaders(context(timm("vit_tiny_patch16_224.no_such_tag")))


def test_what_timm_states_is_read() -> None:
    assert published(timm()) == Preprocessing((0.5,) * 3, (0.5,) * 3, "bicubic", 0.9)


def test_the_choice_is_part_of_the_key_and_its_default_is_not() -> None:
    def key(**task: Any) -> str:
        return TrialSpec.model_validate(
            {
                "task": {"kind": "classify", "dataset": "digits", **task},
                "backbone": {"model": "vit_tiny_patch16_224", "image_size": 16, "init": timm().model_dump()},
                "optim": {"lr": 1e-3, "epochs": 2, "warmup_epochs": 1, "batch": 50},
            }
        ).key

    assert key() == key(preprocessing="stated") != key(preprocessing="weights")
