"""The parameters that an estimate counts are those of the model that trials train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from k12_job import BASE

from orchestrator.errors import SpecError
from orchestrator.launch.estimate import estimate, parameters
from orchestrator.plan.resource_fit import Node
from orchestrator.settings import settings
from orchestrator.spec.job import JobSpec
from tasks.classification.task import Classify
from tasks.datasets.augment import Augment
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


def test_preprocessing_that_differs_from_that_of_the_weights_is_noted_once_in_the_plan(tmp_path: Path) -> None:
    """In the table it is a caveat (see test_caveats): here it is told before anything runs."""
    augment = {**Augment.none().model_dump(mode="json"), "interpolation": "bilinear"}
    init = {"kind": "timm", "name": "A", "tag": "vit_tiny_patch16_224.augreg_in21k"}
    inits = [init, {**init, "name": "B", "tag": "deit_tiny_patch16_224.fb_in1k"}, {"kind": "none", "name": "RAND"}]
    stage = {"name": "one", "sweep": {"grid": {"optim.lr": [1e-3, 2e-3], "backbone.init": inits}}}
    task = {"kind": "classify", "dataset": "digits", "augment": augment}
    trial = {**BASE, "task": task, "backbone": {"model": "vit_tiny_patch16_224", "image_size": 224}}
    job = JobSpec.model_validate({"name": "norm", "trial": trial, "stages": [stage]})
    where = settings(folder=str(tmp_path), data_root=str(tmp_path))
    lines = [line for line in estimate(job, where, [Node(2, 0)]).basis if line.startswith("weights ")]
    assert [line[:9] for line in lines] == ["weights A", "weights B"]
    assert "mean 0.5 (here 0.485 0.456 0.406)" in lines[0]
    assert "mean" not in lines[1]
    assert "interpolation bicubic (here bilinear)" in lines[1]
