"""A recorded job whose trials this version refuses is one line, not a traceback."""

from __future__ import annotations

import pytest

from orchestrator.errors import SpecError
from orchestrator.launch.recorded_trials import check_recorded_trials
from orchestrator.spec.job import JobSpec


def job(model: str) -> JobSpec:
    trial = {
        "task": {"kind": "classify", "dataset": "digits"}, "backbone": {"model": model, "image_size": 32},
        "optim": {"lr": 1e-3, "batch": 40, "epochs": 1, "warmup_epochs": 0},
    }  # fmt: skip
    return JobSpec.model_validate({"name": "x", "trial": trial, "stages": [{"name": "one"}]})


def test_a_model_that_timm_has_no_more_is_one_line() -> None:
    with pytest.raises(SpecError, match=r"x-12ab: backbone\.model: .*no such timm model.*mended spec") as caught:
        check_recorded_trials(job("vit_gone_patch16"), "x-12ab")
    assert len(caught.value.problems) == 1
    assert "\n" not in caught.value.problems[0]


def test_what_can_still_run_is_no_problem() -> None:
    check_recorded_trials(job("resnet10t"), "x-12ab")
