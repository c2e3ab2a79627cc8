"""What enters a trial's key and what does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tasks.backbones.spec import BackboneSpec, FromFile, FromTrial
from tasks.classification.task import Classify
from tasks.datasets.augment import Augment
from workers.optim_spec import OptimSpec
from workers.trial import KEY_VERSION, NOT_IN_KEY, RuntimeSpec, Span, TrialSpec, plain_number

BACKBONE = {"model": "vit_tiny_patch16_224", "image_size": 16}


def spec(**changes: Any) -> TrialSpec:
    whole = {
        "task": {"kind": "classify", "dataset": "digits"},
        "backbone": BACKBONE,
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
    assert KEY_VERSION == 3
    assert {model.__name__: _defaults(model) for model in (Classify, BackboneSpec, OptimSpec, RuntimeSpec)} == PINNED


def test_a_key_is_what_earlier_versions_of_the_code_recorded() -> None:
    """A change of this key is a change of all: recorded trials would be run again."""
    assert spec().key == "bf4d64daf9bc98390cbaf5cf68c488f681b62d1ae4e41d7dce264df72b4a765e"
    init = {"kind": "trial", "name": "MIM", "trial": "a" * 64}
    started = spec(backbone={**BACKBONE, "drop_path": 0.1, "init": init})
    assert started.key == "5fe26266d4167b4c17d3671383de2626d0b8b29d5e7f6b10e1004d3b3596cd59"


def test_another_key_version_is_another_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    before, same = spec().key, spec().key
    monkeypatch.setattr("workers.trial.KEY_VERSION", KEY_VERSION + 1)
    assert spec().key != before == same


def test_a_warm_up_is_a_fifth_of_the_training_and_at_most_20_epochs() -> None:
    plain: dict[str, Any] = {"lr": 1e-3, "batch": 8}
    for epochs, warmup in ((1, 0.2), (3, 0.6), (10, 2.0), (100, 20.0), (800, 20.0), (0, 0.0)):
        optim = spec(optim={**plain, "epochs": epochs}).optim
        assert optim.warmup_epochs == warmup
        assert spec(optim={**plain, "epochs": epochs, "warmup_epochs": warmup}).key == spec(optim=optim).key
        assert optim.model_dump()["warmup_epochs"] == warmup
        assert OptimSpec.model_validate(optim.model_dump(mode="json")) == optim
    assert spec(optim={**plain, "epochs": 10, "warmup_epochs": 0}).optim.warmup_epochs == 0
    assert spec(optim={**plain, "epochs": 10, "warmup_epochs": 0}).key != spec(optim={**plain, "epochs": 10}).key
    assert "default" not in OptimSpec.model_json_schema()["properties"]["warmup_epochs"]


@pytest.mark.parametrize(("warmup", "epochs"), [(10, 10), (11, 10), (100, 10)])
def test_a_warm_up_as_long_as_the_training_is_refused(warmup: int, epochs: int) -> None:
    """The learning rate would never be reached."""
    with pytest.raises(ValueError, match=f"warmup_epochs {warmup} must be below epochs {epochs}"):
        spec(optim={"lr": 1e-3, "batch": 8, "epochs": epochs, "warmup_epochs": warmup})
    assert spec(optim={"lr": 1e-3, "batch": 8, "epochs": 10, "warmup_epochs": 9.9}).optim.warmup_epochs == 9.9


HUGE = [2**31, 2**63, 10**30]
OUT_OF_BOUNDS: list[tuple[str, list[Any]]] = [
    ("seed", [2**63, 10**30, -1]),
    ("optim.lr", [0, 1e7, 1e308]),
    ("optim.weight_decay", [1e7, -1]),
    ("optim.betas", [[0.9, 1.0], [1.0, 0.9], [-0.1, 0.9], [0.9, 1.5]]),
    ("optim.eps", [0, 1.5, 1e300]),
    ("optim.epochs", HUGE),
    ("optim.iterations", [*HUGE, 0]),
    ("optim.warmup_epochs", [1e300, -1]),
    ("optim.warmup_iterations", [*HUGE, -1]),
    ("optim.warmup_lr", [1e7, -1]),
    ("optim.min_lr", [1e7, -1]),
    ("optim.lr_lag", [2, -1]),
    ("optim.step_iterations", [[2**63]]),
    ("optim.step_epochs", [[1e300], [-1]]),
    ("optim.step_factor", [0, 2]),
    ("optim.up_epochs", [0, 1e300]),
    ("optim.up_iterations", [0, *HUGE]),
    ("optim.up_power", [0, 1e300]),
    ("optim.batch", [0, *HUGE]),
    ("optim.micro_batch", [0, *HUGE]),
    ("optim.clip", [-1, 1e300]),
    ("optim.layer_decay", [0, 1.5]),
    ("runtime.report_iterations", [0, *HUGE]),
    ("runtime.evaluate_every", [0, *HUGE]),
    ("runtime.checkpoint_epochs", [0, *HUGE]),
    ("runtime.checkpoint_minutes", [0, 1e300]),
    ("runtime.loader_workers", [-1, *HUGE]),
    ("runtime.pictures_every", [0, *HUGE]),
    ("runtime.max_unreadable", [-0.1, 1]),
    ("span.first_epoch", [-1, *HUGE]),
    ("span.last_epoch", [0, *HUGE]),
    ("batch_workers", [0, *HUGE]),
]


@pytest.mark.parametrize(("path", "values"), OUT_OF_BOUNDS, ids=[path for path, _ in OUT_OF_BOUNDS])
def test_numbers_that_nothing_can_hold_are_refused(path: str, values: list[Any]) -> None:
    """One message, at the field, with the bound."""
    section, _, name = path.rpartition(".")
    whole: dict[str, dict[str, Any]] = {
        "optim": {"lr": 1e-3, "batch": 8, "epochs": 100}, "runtime": {}, "span": {"first_epoch": 0, "last_epoch": 2},
    }  # fmt: skip
    for value in values:
        changed = {section: {**whole[section], name: value}} if section else {name: value}
        with pytest.raises(ValidationError) as caught:
            spec(**changed)
        (problem,) = caught.value.errors()
        assert ".".join(str(step) for step in problem["loc"] if not isinstance(step, int)) == path
        assert problem["type"].startswith(("less_than", "greater_than", "literal"))


def test_every_number_of_a_trial_has_bounds_on_both_sides() -> None:
    """So that a new field cannot be without."""
    upper, lower = ("maximum", "exclusiveMaximum"), ("minimum", "exclusiveMinimum")
    numbers = [
        (f"{model.__name__}.{name}", number)
        for model in (OptimSpec, RuntimeSpec, Span, TrialSpec)
        for name, field in model.model_json_schema()["properties"].items()
        for number in _numbers(field)
    ]
    listed = {path.rpartition(".")[2] for path, _ in OUT_OF_BOUNDS} - {"lr_lag"}  # which is one of two numbers
    assert listed <= {name.partition(".")[2] for name, _ in numbers}
    for name, number in numbers:
        assert any(bound in number for bound in upper), name
        assert any(bound in number for bound in lower), name


def _numbers(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a field's JSON schema that are for numbers of any size."""
    parts = [
        *schema.get("anyOf", ()),
        *schema.get("prefixItems", ()),
        *([schema["items"]] if "items" in schema else ()),
    ]
    own = [schema] if schema.get("type") in ("integer", "number") and "enum" not in schema else []
    return own + [number for part in parts for number in _numbers(part)]


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
        "sizes": {}, "probe": "none", "knn": None, "plugin_metrics": [], "choose_by": "",
    },
    "BackboneSpec": {
        "args": {}, "drop_path": 0.0, "norm_eps": None, "init": {"kind": "none", "name": "RAND"}, "drop_last": None,
        "cut": {"drop_path": "respaced", "final_norm": "fresh", "decay_levels": "cut"}, "sample_layers": None,
        "freeze": {"stem": False, "blocks": 0, "norms": False},
    },
    "OptimSpec": {
        "lr_convention": "absolute", "layer_decay": 1.0, "layer_decay_scheme": "timm", "weight_decay": 0.05,
        "backbone_lr_factor": 1.0, "no_decay": "timm", "betas": [0.9, 0.999], "eps": 1e-8, "epochs": 100,
        "warmup_epochs": 0,
        "warmup_lr": 2.5e-7, "warmup_prefix": False, "schedule": "cosine", "min_lr": 2.5e-7, "step_epochs": [],
        "step_factor": 0.1, "micro_batch": None, "clip": 5.0, "iterations": None, "warmup_iterations": None,
        "step_iterations": [], "lr_lag": 0, "up_epochs": None, "up_iterations": None, "up_power": 0.9,
        "poly_power": 1.0,
        "optimizer": "adamw", "momentum": 0.9, "nesterov": None, "trust_coeff": 0.001, "always_adapt": False,
        "ema": None,
    },
    "RuntimeSpec": {
        "precision": "auto", "tf32": False, "channels_last": "auto", "compile": False, "deterministic": False,
        "evaluate_every": 1, "report_iterations": 1000, "max_unreadable": 0.0, "sync_batchnorm": None,
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


def test_a_trial_that_was_not_planned_to_may_not_read_test() -> None:
    task = {"kind": "classify", "dataset": "digits", "train": "trainval", "evaluate": "test"}
    with pytest.raises(ValueError, match=r"asks for test data before selection; .*set task.evaluate to another split"):
        spec(task=task)
    assert spec(task=task, may_test=True).may_test


def test_numbers_that_only_rounding_tells_apart_are_one_setting() -> None:
    assert plain_number(0.9500000000000001) == 0.95
    assert plain_number(0.1 + 0.2) == 0.3
    assert plain_number(1.00000000001) == 1.00000000001  # 12 digits
    assert plain_number(1.000000000001) == 1.0
    assert plain_number(float("inf")) == float("inf")
