"""Where a trial comes from, over choices, weights and other jobs, as `describe` shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from in_process_backend import Machine, drive_to_end
from k12_job import BASE, FINAL, PRETRAIN, REFINE, grid, job
from two_jobs import SEVERAL, SMALL, only, run

from orchestrator.engine.plan_rows import placement_of
from orchestrator.launch.submit import record_job
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.report import describe, lineage
from orchestrator.spec.job import job_id
from orchestrator.store.store import Store, open_store
from workers.trial import TrialSpec


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()


def test_the_chain_from_the_final_number_to_the_pre_training(store: Store, tmp_path: Path) -> None:
    study = job(PRETRAIN, grid(**SMALL), REFINE, FINAL)
    run(store, study, tmp_path)
    final, pretrain = only(store, study, "final"), only(store, study, "pretrain")
    choices = {winner.stage: winner for winner in store.choices.of(job_id(study))}
    told = describe.trial(store, final, tmp_path).to_json()
    json.dumps(told, allow_nan=False)
    steps = told["lineage"]
    assert [(step["link"], step["kind"], step.get("stage")) for step in steps] == [
        ("settings", "trial", "refine"),
        ("weights", "trial", "pretrain"),
        ("neighbourhood", "trial", "grid"),
        ("weights", "none", None),
    ]
    assert [step["of"] for step in steps] == [final, final, steps[0]["key"], pretrain]
    assert steps[0]["key"] == choices["final"].key
    assert steps[0]["decision"]["candidates"] == choices["final"].candidates > 3
    assert steps[0]["decision"]["sources"] == ["grid", "refine"]
    assert steps[2]["key"] == choices["refine"].key
    assert steps[1]["key"] == pretrain
    assert (steps[1]["task"], steps[1]["dataset"], steps[1]["epochs"]) == ("classify", "digits-pretrain", 4)
    assert steps[1]["value"] == store.trials.get(pretrain).value
    assert steps[1]["weights"] == dict(zip(("path", "sha256"), store.trials.get(pretrain).weights or (), strict=True))
    assert steps[3]["seed"] == 0
    text = describe.trial(store, final, tmp_path).text()
    value = f"{choices['final'].value:.6g}"
    assert f"settings from {steps[0]['name']} {steps[0]['key'][:12]} (job {job_id(study)})" in text
    assert f"taken by final: best of {choices['final'].candidates} in grid, refine, top1 {value}" in text
    assert f"tried around {steps[2]['name']}" in text
    assert f"weights from {steps[1]['name']}" in text
    assert "SHA-256 " + "0" * 64 in text
    assert text.index("weights from pretrain") < text.index("random initial weights, drawn from seed 0")


def test_what_follows_from_a_trial(store: Store, tmp_path: Path) -> None:
    study = job(PRETRAIN, grid(**SMALL), REFINE, FINAL)
    run(store, study, tmp_path)
    pretrain = only(store, study, "pretrain")
    told = describe.trial(store, pretrain, tmp_path).to_json()["children"]
    assert told["count"] == len(store.trials.placed(job_id(study))) - 1 > lineage.LISTED == len(told["first"])
    assert told["taken"] == []
    text = describe.trial(store, pretrain, tmp_path).text()
    assert f"{told['count']} trials start from its weights" in text
    assert f"and {told['count'] - lineage.LISTED} more" in text
    winner = store.choices.of(job_id(study))[0]
    taken = describe.trial(store, winner.key, tmp_path).to_json()["children"]["taken"]
    assert ("refine", 3) in [(each["by"], each["candidates"]) for each in taken]


def test_weights_chosen_among_several_say_so(store: Store, tmp_path: Path) -> None:
    study = job(SEVERAL, grid(**SMALL))
    run(store, study, tmp_path)
    key = store.trials.placed(job_id(study), "grid")[0].key
    (step, *_) = describe.trial(store, key, tmp_path).to_json()["lineage"]
    assert step["stage"] == "pretrain"
    assert step["decision"]["candidates"] == 2
    assert step["decision"]["by"] == "grid: weights of pretrain"


def test_files_and_tags_are_shown_with_their_digest(store: Store, tmp_path: Path) -> None:
    """A file's from the spec; a tag's as the trial noted it, where the spec leaves it open."""
    digest = "5" * 64
    file = {"kind": "file", "name": "SimMIM", "path": "weights/simmim.safetensors", "sha256": digest}
    tag = {"kind": "timm", "name": "1K", "tag": "vit_tiny_patch16_224.augreg_in21k", "sha256": None}
    study = job(grid(**{**SMALL, "init": [file, tag], "lr": [1e-4]}))
    record_job(store, study, job_id(study))
    machine = Machine()
    drive_to_end(store, study, machine, tmp_path)
    found = {}
    for row in store.trials.placed(job_id(study)):
        trial = store.trials.get(row.key)
        found[row.group.rpartition("/")[2]] = lineage.beginning(trial)
        (step,) = lineage.lineage(store, trial)
        assert step["link"] == "weights"
    assert found["SimMIM"] == {"kind": "file", "name": "SimMIM", "path": file["path"], "sha256": digest}
    assert found["1K"]["sha256"] is None
    text = "\n".join(lineage.lines("a", [{"link": "weights", "of": "a", "decision": None, **found["SimMIM"]}]))
    assert text == f"  weights from file weights/simmim.safetensors (SHA-256 {digest})"


def test_a_tags_digest_is_the_one_the_trial_noted(store: Store, tmp_path: Path) -> None:
    study = job(PRETRAIN)
    run(store, study, tmp_path)
    trial = store.trials.get(only(store, study, "pretrain"))
    tag = "vit_tiny_patch16_224.augreg_in21k"
    spec = {"backbone": {"init": {"kind": "timm", "name": "1K", "tag": tag, "sha256": None}}}
    notes = ["loader: cached", f"weights: {tag} of timm, SHA-256 {'7' * 64}"]
    assert lineage.beginning(replace(trial, spec=spec, facts={"notes": notes}))["sha256"] == "7" * 64
    assert lineage.beginning(replace(trial, spec=spec, facts={}))["sha256"] is None


def test_a_part_of_a_schedule_goes_on_from_the_part_before_it(tmp_path: Path) -> None:
    """Population-based training: from the training state, not from the weights alone."""
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    study = job(PRETRAIN)
    record_job(store, study, job_id(study))
    first = TrialSpec.model_validate({**study.trial, "span": {"first_epoch": 0, "last_epoch": 2}})
    again = {"kind": "trial", "name": "RAND", "trial": first.key}
    second = TrialSpec.model_validate(
        {**study.trial, "span": {"first_epoch": 2, "last_epoch": 4}, "backbone": {**BASE["backbone"], "init": again}}  # type: ignore[dict-item]
    )
    (placed,) = [placement_of(planned) for planned in Planner(study, DurationModel()).placed]
    parts = [replace(placed, key=spec.key, spec=spec.model_dump(mode="json")) for spec in (first, second)]
    store.trials.place(job_id(study), parts)
    steps = lineage.lineage(store, store.trials.get(second.key))
    assert [(step["link"], step.get("key")) for step in steps] == [("state", first.key), ("weights", None)]
    assert any("resumes pretrain/all" in line for line in lineage.lines(second.key, steps))
    store.close()
