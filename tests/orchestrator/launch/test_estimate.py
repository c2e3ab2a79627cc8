"""The parameters that an estimate counts are those of the model that trials train."""

from __future__ import annotations

from typing import Any

import pytest
from k12_job import BASE

from orchestrator.errors import SpecError
from orchestrator.launch.estimate import parameters
from tasks.classification.task import Classify
from workers.trial import TrialSpec


def trial(task: dict[str, Any], **backbone: Any) -> TrialSpec:
    return TrialSpec.model_validate({**BASE, "task": task, "backbone": {**BASE["backbone"], **backbone}})


def test_the_head_counts() -> None:
    small, large = (parameters(trial({"kind": "classify", "dataset": name})) for name in ("digits", "cifar100"))
    assert small is not None
    assert large is not None
    assert large - small == (100 - 10) * (192 + 1)  # vit_tiny has 192 features


def test_the_decoder_of_a_pre_training_counts_and_the_classifier_does_not() -> None:
    masked = parameters(trial({"kind": "pretrain", "dataset": "digits", "mask_patch": 16}))
    classifier = parameters(trial({"kind": "classify", "dataset": "digits"}))
    assert masked is not None
    assert classifier is not None
    decoder = (192 + 1) * 16 * 16 * 3
    assert masked - classifier == decoder + 192 - 10 * (192 + 1)  # and the mask token


def test_a_model_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(SpecError, match=r"backbone: .*patch_sise"):
        parameters(trial({"kind": "classify", "dataset": "digits"}, args={"patch_sise": 4}))


def test_a_model_that_only_its_content_could_tell_of_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*arguments: Any) -> None:
        raise NotImplementedError("Cannot copy out of meta tensor; no data!")

    monkeypatch.setattr(Classify, "build", build)
    assert parameters(trial({"kind": "classify", "dataset": "digits"})) is None
