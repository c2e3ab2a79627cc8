"""Trials without an optimizer step: tasks that only measure, and given weights evaluated once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from analysis_task import AnalysisTrial, analysis
from pydantic import ValidationError
from tiny_task import Tiny, digest, run, trial, weights_of

from tasks.backbones.spec import FromTrial
from workers.checkpoint import clear
from workers.errors import ErrorClass, TrialError
from workers.optim_spec import OptimSpec
from workers.trial import NO_TRAINING, Span, TrialSpec

EVALUATED: dict[str, Any] = {"epochs": 0, "warmup_epochs": 0}


def test_a_task_that_only_measures_has_one_report_and_figures(tmp_path: Path) -> None:
    outcome, (report,) = run(analysis({"draws": 1}), tmp_path, keep_weights=False)
    assert (report.epoch, report.step, report.pictures) == (1, 0, ("pictures/draw-0-0001.png",))
    assert report.values["top1"] == outcome.figures["top1"]
    assert set(outcome.figures) == {"top1", "spread"}
    assert not {name for name in report.values if name.startswith("train_")} | ({"lr"} & set(report.values))
    facts = outcome.facts
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["steps"], facts["train_images"], facts["micro_batch"]) == (0, 0, 0)
    assert (facts["step_seconds"], facts["images_per_second"], facts["mfu"]) == (None, None, None)
    assert facts["train_seconds"] > 0
    assert outcome.weights is None
    files = ["evaluation-0-0.jsonl", "outcome.json", "pictures", "token"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_its_outcome_is_given_again_until_it_is_recorded(tmp_path: Path) -> None:
    first, reports = run(analysis(), tmp_path, keep_weights=False)
    again, same = run(analysis(), tmp_path, keep_weights=False)
    assert (again, same) == (first, reports)
    clear(tmp_path)
    anew, _ = run(analysis(), tmp_path, keep_weights=False)
    assert anew.figures == first.figures


def test_given_weights_are_evaluated_once_as_after_their_training(tmp_path: Path) -> None:
    parent, _ = run(trial(), tmp_path / "parent")
    assert parent.weights is not None
    key = trial().key
    spec = trial(init=FromTrial(name="before", trial=key), **EVALUATED)
    for name, keep in (("plain", False), ("kept", True)):
        outcome, (report,) = run(spec, tmp_path / name, parents={key: parent.weights}, keep_weights=keep)
        assert outcome.figures == parent.figures
        assert (report.epoch, report.step) == (1, 0)
        assert (outcome.weights is not None) == keep
    assert digest(outcome) == digest(parent)


def test_a_real_task_is_evaluated_without_training(tmp_path: Path) -> None:
    """Also with mixup, whose loaders want an even batch."""
    spec = TrialSpec.model_validate(
        {
            "task": {"kind": "classify", "dataset": "digits", "augment": {"rand_augment": "none"}},
            "backbone": {
                "model": "vit_tiny_patch16_224", "image_size": 16,
                "args": {"patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 2},
            },
            "optim": {"lr": 1e-3, "batch": 1, "epochs": 0},
        }
    )  # fmt: skip
    outcome, _ = run(spec, tmp_path)
    assert 0 <= outcome.figures["top1"] < 0.4
    assert outcome.facts["steps"] == 0


def test_test_data_are_evaluated(tmp_path: Path) -> None:
    outcome, (report,) = run(trial({"test": True}, may_test=True, **EVALUATED), tmp_path)
    assert report.values["top1"] == outcome.figures["top1"]


def test_broken_weights_are_no_result(tmp_path: Path) -> None:
    parent, _ = run(trial(), tmp_path / "parent")
    from workers.checkpoint import Folder

    broken = {name: tensor * torch.nan for name, tensor in weights_of(parent).items()}
    weights = Folder(tmp_path / "broken", "k", 0).save_weights(broken)
    spec = trial(init=FromTrial(name="x", trial="k"), **EVALUATED)
    with pytest.raises(TrialError, match="weights are not finite") as caught:
        run(spec, tmp_path / "child", parents={"k": weights})
    assert caught.value.error_class is ErrorClass.diverged


def test_a_model_without_parameters_can_be_measured(tmp_path: Path) -> None:
    outcome, _ = run(analysis({"parameters": False}), tmp_path)
    assert outcome.figures["top1"] == 1.0


def test_optim_is_required_only_where_it_is_used() -> None:
    assert analysis().optim == NO_TRAINING
    assert not analysis().trains
    plain = trial().model_dump(mode="json")
    del plain["optim"]
    with pytest.raises(ValidationError) as caught:
        TrialSpec.model_validate({**plain, "task": {"kind": "classify", "dataset": "digits"}})
    assert [(error["type"], error["loc"]) for error in caught.value.errors()] == [("missing", ("optim",))]


def test_what_is_not_used_is_not_in_the_key(tmp_path: Path) -> None:
    fields = analysis().model_dump(mode="json")
    written = AnalysisTrial.model_validate({**fields, "optim": {"lr": 3e-4, "batch": 64, "epochs": 30}})
    assert (written.optim, written.key, written.rounds) == (NO_TRAINING, analysis().key, 1)
    assert trial(lr=1e-3, **EVALUATED).key == trial(lr=1e-2, **EVALUATED).key
    assert trial(**EVALUATED).key != trial().key
    assert trial(seed=1, **EVALUATED).key != trial(seed=2, **EVALUATED).key
    # also where only the task was exchanged, as `model_copy` does
    assert trial().model_copy(update={"task": analysis().task}).rounds == 1


def test_it_has_no_parts() -> None:
    with pytest.raises(ValueError, match=r"span: with optim.epochs 0 nothing is trained"):
        trial(span=Span(first_epoch=0, last_epoch=1), **EVALUATED)
    assert Tiny.trains
    assert OptimSpec(lr=1, batch=1, epochs=0, schedule="step").trains is False
