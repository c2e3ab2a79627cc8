"""What enters a trial's key and what does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from tasks.backbones.spec import BackboneSpec, FromFile, FromTrial
from tasks.classification.task import Classify
from tasks.datasets.augment import Augment
from workers.optim_spec import OptimSpec
from workers.trial import KEY_VERSION, NOT_IN_KEY, RuntimeSpec, TrialSpec


def spec(**changes: Any) -> TrialSpec:
    whole = {
        "task": {"kind": "classify", "dataset": "digits"},
        "backbone": {"model": "vit_tiny_patch16_224", "image_size": 16},
        "optim": {"lr": 1e-3, "batch": 8},
        **changes,
    }
    return TrialSpec.model_validate(whole)


def test_a_field_written_at_its_default_is_the_same_trial() -> None:
    said = spec(optim={"lr": 1e-3, "batch": 8, "clip": 5.0, "weight_decay": 0.05}, runtime={"evaluate_every": 1})
    assert said.key == spec().key


def test_every_other_value_is_another_trial() -> None:
    changes: list[dict[str, Any]] = [
        {"seed": 1},
        {"optim": {"lr": 1e-3, "batch": 8, "clip": 4.0}},
        {"runtime": {"precision": "bf16"}},
        {"backbone": {"model": "vit_tiny_patch16_224", "image_size": 16, "drop_path": 0.1}},
        {"task": {"kind": "classify", "dataset": "faces"}},
        {"span": {"first_epoch": 0, "last_epoch": 3}},
    ]
    assert len({spec().key, *(spec(**change).key for change in changes)}) == 1 + len(changes)


@pytest.mark.parametrize("name", NOT_IN_KEY)
def test_how_a_trial_is_carried_out_is_no_part_of_its_key(name: str) -> None:
    other: dict[str, Any] = {"parallel": "fsdp", "grad_checkpointing": True}
    assert spec(runtime={name: other.get(name, 3)}).key == spec().key


def test_weights_enter_by_the_trial_that_made_them_and_not_by_their_label() -> None:
    def started(name: str, trial: str) -> str:
        backbone = spec().backbone.model_copy(update={"init": FromTrial(name=name, trial=trial)})
        return spec().model_copy(update={"backbone": backbone}).key

    assert started("MIM", "a") == started("SimMIM", "a")
    assert started("MIM", "a") != started("MIM", "b")


def test_a_file_enters_by_its_digest_wherever_it_lies() -> None:
    def started(path: str, sha256: str | None) -> str:
        backbone = spec().backbone.model_copy(update={"init": FromFile(name="MIM", path=path, sha256=sha256)})
        return spec().model_copy(update={"backbone": backbone}).key

    assert started("a.safetensors", "1" * 64) == started("https://host/b.safetensors", "1" * 64)
    assert started("a.safetensors", "1" * 64) != started("a.safetensors", "2" * 64)
    assert started("a.safetensors", None) != started("b.safetensors", None)


def test_defaults_are_what_recorded_keys_take_them_for() -> None:
    """A default is no part of a key: to change one is to change what recorded keys mean, so KEY_VERSION must rise
    (then write the new defaults here). A new field whose default means what was done before is added below."""
    assert KEY_VERSION == 2
    assert {model.__name__: _defaults(model) for model in (Classify, BackboneSpec, OptimSpec, RuntimeSpec)} == PINNED


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    plain = {}
    for name, field in model.model_fields.items():
        if field.is_required() or name == "kind" or name in NOT_IN_KEY:
            continue
        value = field.get_default(call_default_factory=True)
        plain[name] = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.loads(json.dumps(plain))  # type: ignore[no-any-return]


PINNED: dict[str, dict[str, Any]] = {
    "Classify": {
        "train": "train", "evaluate": "val", "val_fraction": 0.2, "split_seed": 0, "counts": "exact",
        "head": "trunc_normal", "normalize": "imagenet", "preprocessing": "stated",
        "augment": Augment().model_dump(mode="json"),
        "caltech_background": True, "official_val": "val", "manifests": {},
        "sizes": {},
    },
    "BackboneSpec": {"args": {}, "drop_path": 0.0, "norm_eps": None, "init": {"kind": "none", "name": "RAND"}},
    "OptimSpec": {
        "lr_convention": "absolute", "layer_decay": 1.0, "layer_decay_scheme": "timm", "weight_decay": 0.05,
        "no_decay": "timm", "betas": [0.9, 0.999], "eps": 1e-8, "epochs": 100, "warmup_epochs": 20,
        "warmup_lr": 2.5e-7, "warmup_prefix": False, "schedule": "cosine", "min_lr": 2.5e-7, "step_epochs": [],
        "step_factor": 0.1, "micro_batch": None, "clip": 5.0, "iterations": None, "warmup_iterations": None,
        "step_iterations": [],
    },
    "RuntimeSpec": {
        "precision": "auto", "channels_last": "auto", "compile": False, "deterministic": False, "evaluate_every": 1,
        "report_iterations": 1000, "max_unreadable": 0.0, "sync_batchnorm": None,
    },
}  # fmt: skip


def test_a_step_that_never_comes_is_refused() -> None:
    step = {"lr": 1e-3, "batch": 8, "schedule": "step", "epochs": 30}
    assert spec(optim={**step, "step_epochs": [29.5]}).optim.step_epochs == (29.5,)
    for epoch in (0, 30):
        with pytest.raises(ValueError, match=f"step_epochs {epoch} never comes in 30 epochs"):
            spec(optim={**step, "step_epochs": [20, epoch]})


def test_a_length_has_one_unit() -> None:
    plain: dict[str, Any] = {"lr": 1e-3, "batch": 8}
    iterations = spec(optim={**plain, "iterations": 80, "warmup_iterations": 5})
    assert (iterations.optim.epochs, iterations.optim.warmup_epochs, iterations.rounds) == (0, 0, 1)
    assert TrialSpec.model_validate(iterations.model_dump(mode="json")) == iterations
    assert TrialSpec.model_validate(iterations.model_dump(mode="json")).key == iterations.key
    assert spec(optim={**plain, "iterations": 80, "epochs": 0, "warmup_iterations": 5}).key == iterations.key
    assert spec(optim={**plain, "epochs": 9, "warmup_iterations": 5}).optim.warmup_epochs == 0
    for wrong, words in (
        ({"iterations": 80, "epochs": 100}, "epochs 100 cannot be combined with iterations 80: leave epochs out"),
        ({"iterations": 80, "warmup_epochs": 2}, r"warmup_epochs 2 cannot .* iterations 80 \(use warmup_iterations\)"),
        ({"warmup_epochs": 2, "warmup_iterations": 5}, "warmup_epochs 2 cannot be combined with warmup_iterations 5"),
        ({"iterations": 80, "warmup_iterations": 80}, "warmup_iterations 80 must be below iterations 80"),
        ({"iterations": 80, "schedule": "step"}, "schedule step needs step_iterations"),
        ({"iterations": 80, "schedule": "step", "step_iterations": [80]}, "step_iterations 80 never comes in 80"),
        (
            {"iterations": 80, "step_epochs": [2]},
            "step_epochs cannot be combined with iterations 80: write step_iterations",
        ),
        ({"step_iterations": [2]}, "step_iterations is for a length in iterations: set iterations"),
    ):
        with pytest.raises(ValueError, match=words):
            spec(optim={**plain, **wrong})


def test_the_length_of_a_round_enters_the_key_only_where_rounds_are_not_epochs() -> None:
    assert spec(runtime={"report_iterations": 50}).key == spec().key
    optim = {"lr": 1e-3, "batch": 8, "iterations": 800}
    lengths = (spec(optim=optim), spec(optim=optim, runtime={"report_iterations": 50}))
    assert [each.rounds for each in lengths] == [1, 16]
    assert lengths[0].key != lengths[1].key
