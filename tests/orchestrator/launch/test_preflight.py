"""A job whose backbones cannot be built, or do not take their weights, is refused before a trial starts."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import pytest
from published_checkpoints import VIT, swinv2
from safetensors.torch import save_file

from orchestrator.errors import SpecError
from orchestrator.launch.preflight import ModelPreflight
from orchestrator.launch.submit import refusal_recorded
from orchestrator.plan.durations import DurationModel
from orchestrator.records.rows import JobRecord
from orchestrator.records.states import JobState, TrialSnapshot, TrialState
from orchestrator.store.store import open_store
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


def test_every_wrong_backbone_is_said_once(tmp_path: Path) -> None:
    save_file({name: t.clone() for name, t in swinv2().state_dict().items()}, tmp_path / "swin.safetensors")
    digest = hashlib.sha256((tmp_path / "swin.safetensors").read_bytes()).hexdigest()
    file = {"kind": "file", "name": "MIM", "path": "swin.safetensors", "sha256": digest}
    wrong = [trial({"patch_sise": 4}), trial({"patch_sise": 4}, drop_path=0.0), trial(init=file), trial(init=file)]
    with (
        contextlib.closing(ModelPreflight([trial(), *wrong], DurationModel(), tmp_path)) as all_,
        pytest.raises(SpecError) as caught,
    ):
        all_.end()
    said = caught.value.problems
    assert len(said) == 3
    assert "patch_sise" in said[0]
    assert "missing: cls_token" in said[1]
    assert said[2] == "No trial was started."


def test_what_is_known_or_tells_itself_at_once_is_not_tried() -> None:
    speed, known, new = DurationModel(), trial({"patch_sise": 4}), trial()
    speed.record(known, TrialSnapshot(TrialState.done, facts={"parameters": 7}))
    for specs in ([], [known], [new], [known, new, known]):
        preflight = ModelPreflight(specs, speed, Path("/nowhere"))
        assert preflight._process is None
        preflight.end()


def test_a_model_that_another_kind_of_task_has_had_is_tried(tmp_path: Path) -> None:
    """What runs as a classifier may be nothing that SimMIM is written for."""
    task = {"kind": "pretrain", "dataset": "digits-pretrain", "mask_patch": 16}
    speed, wrong = DurationModel(), []
    for name in ("resnet18", "resnet34"):
        known = TrialSpec.model_validate({**trial().model_dump(), "backbone": {"model": name, "image_size": 64}})
        speed.record(known, TrialSnapshot(TrialState.done, facts={"parameters": 7}))
        wrong.append(TrialSpec.model_validate({**known.model_dump(), "task": task}))
    with contextlib.closing(ModelPreflight(wrong, speed, tmp_path)) as all_, pytest.raises(SpecError, match="SimMIM"):
        all_.end()


def test_the_process_ends_with_the_job() -> None:
    preflight = ModelPreflight([trial(), trial({"depth": 3})], DurationModel(), Path("/nowhere"))
    assert preflight._process is not None
    preflight.close()
    assert preflight._process.returncode is not None
    preflight.close()


def test_a_refused_job_is_not_left_queued(tmp_path: Path) -> None:
    """Queued would promise that it is to run; what a job said of an earlier run stays."""
    with contextlib.closing(open_store(f"sqlite:///{tmp_path}/r.db")) as store:
        for name, before, after in (
            ("a-1", JobState.queued, JobState.incomplete),
            ("b-2", JobState.cancelled, JobState.cancelled),
        ):
            store.jobs.put(JobRecord(name, name, "", {}, ""))
            store.jobs.set_state(name, before)
            with pytest.raises(SpecError), refusal_recorded(store, name):
                raise SpecError(["backbone: 1 missing: cls_token"])
            assert store.jobs.get(name).state is after
        assert store.jobs.get("a-1").message == "refused: backbone: 1 missing: cls_token"
