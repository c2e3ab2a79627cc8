"""A job whose models cannot be built, or do not take their weights, is refused before a trial starts."""

from __future__ import annotations

import contextlib
import hashlib
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from published_checkpoints import VIT, swinv2
from safetensors.torch import save_file

from orchestrator.errors import SpecError
from orchestrator.launch.driving import refusal_recorded
from orchestrator.launch.preflight import ModelPreflight, different_models
from orchestrator.plan.durations import DurationModel
from orchestrator.records.rows import JobRecord
from orchestrator.records.states import JobState, TrialSnapshot, TrialState
from orchestrator.store.store import open_store
from tasks.classification.task import Classify
from workers.trial import TrialSpec


def trial(args: dict[str, Any] | None = None, **backbone: Any) -> TrialSpec:
    return TrialSpec.model_validate(
        {
            "task": {"kind": "classify", "dataset": "digits"},
            "backbone": {
                "model": "vit_base_patch16_224",
                "image_size": 64,
                "args": {**VIT, **(args or {})},
                **backbone,
            },
            "optim": {"lr": 1e-3, "epochs": 2, "warmup_epochs": 1, "batch": 50},
        }
    )


def test_every_wrong_backbone_is_named_once(tmp_path: Path) -> None:
    save_file({name: t.clone() for name, t in swinv2().state_dict().items()}, tmp_path / "swin.safetensors")
    digest = hashlib.sha256((tmp_path / "swin.safetensors").read_bytes()).hexdigest()
    file = {"kind": "file", "name": "MIM", "path": "swin.safetensors", "sha256": digest}
    wrong = [trial({"patch_sise": 4}), trial({"patch_sise": 4}, drop_path=0.0), trial(init=file), trial(init=file)]
    with (
        contextlib.closing(ModelPreflight([trial(), *wrong], DurationModel(), tmp_path)) as preflight,
        pytest.raises(SpecError) as caught,
    ):
        preflight.end()
    problems = caught.value.problems
    assert len(problems) == 3
    assert "patch_sise" in problems[0]
    assert "missing: cls_token" in problems[1]
    assert problems[2] == "No trial was started."


def recorded(*specs: TrialSpec) -> DurationModel:
    """Durations of trials that have built these models."""
    return DurationModel((spec, TrialSnapshot(TrialState.done, facts={"parameters": 7})) for spec in specs)


def test_a_recorded_model_and_a_single_new_one_start_no_process() -> None:
    known, new = trial({"patch_sise": 4}), trial()
    for specs in ([], [known], [new], [known, new, known]):
        preflight = ModelPreflight(specs, recorded(known), Path("/nowhere"))
        assert preflight._process is None
        preflight.end()


def test_a_model_that_another_kind_of_task_has_built_is_checked(tmp_path: Path) -> None:
    """SimMIM is not written for every backbone of a classifier."""
    task = {"kind": "pretrain", "dataset": "digits-pretrain", "mask_patch": 16}
    known = [
        TrialSpec.model_validate({**trial().model_dump(), "backbone": {"model": name, "image_size": 64}})
        for name in ("resnet18", "resnet34")
    ]
    wrong = [TrialSpec.model_validate({**spec.model_dump(), "task": task}) for spec in known]
    with (
        contextlib.closing(ModelPreflight(wrong, recorded(*known), tmp_path)) as preflight,
        pytest.raises(SpecError, match="SimMIM"),
    ):
        preflight.end()


def test_models_are_alike_if_the_options_that_shape_them_are() -> None:
    def task(**fields: Any) -> TrialSpec:
        return trial().model_copy(update={"task": Classify(dataset="digits").model_copy(update=fields)})

    def checked(*specs: TrialSpec) -> int:
        return len(different_models(specs, recorded(task()), Path("/nowhere")))

    assert checked(task(), task(train="trainval"), task(split_seed=3)) == 0
    assert checked(task(head="keep"), task(head="keep", split_seed=3)) == 1
    assert checked(task(dataset="faces"), task(dataset="faces", head="zero"), task(dataset="digits-pretrain")) == 2
    shorter = task().model_copy(update={"backbone": task().backbone.model_copy(update={"drop_last": 1})})
    assert checked(task(), shorter) == 1
    assert recorded(shorter).parameters(task()) is None


def test_the_process_ends_with_the_job() -> None:
    preflight = ModelPreflight([trial(), trial({"depth": 3})], DurationModel(), Path("/nowhere"))
    assert preflight._process is not None
    assert psutil.pid_exists(preflight._process.pid)
    preflight.close()
    assert not psutil.pid_exists(preflight._process.pid)
    assert preflight._process.returncode == -signal.SIGKILL
    preflight.close()


def test_a_refused_job_is_not_left_queued(tmp_path: Path) -> None:
    """A queued job would seem about to run. The state of an earlier run is kept."""
    with contextlib.closing(open_store(f"sqlite:///{tmp_path}/r.db")) as store:
        for name, before, after in (
            ("a-1", JobState.queued, JobState.incomplete),
            ("b-2", JobState.cancelled, JobState.cancelled),
        ):
            store.jobs.put(JobRecord(name, name, "", {}, ""))
            store.jobs.set_state(name, before)
            with pytest.raises(SpecError, match="cls_token"), refusal_recorded(store, name):
                raise SpecError(["backbone: 1 missing: cls_token"])
            assert store.jobs.get(name).state is after
        assert store.jobs.get("a-1").message == "refused: backbone: 1 missing: cls_token"
