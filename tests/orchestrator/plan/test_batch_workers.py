"""Trials whose loss is computed over each worker's whole share of the batch: the number of workers is part of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from k12_job import BASE, job, run
from more_tasks import allow

from orchestrator.errors import SpecError
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.spec import load

GRID = {"name": "grid", "sweep": {"grid": {"optim.lr": [1e-3, 2e-3]}}}
NEAR = {"name": "near", "from": "grid", "neighbourhood": {"near": {"optim.lr": {"multiply": [0.5]}}}}
LAST = {"name": "last", "from": "grid", "resources": {"workers": 4}}


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch)


def planned(kind: str, workers: int, micro_batch: int | None = None) -> dict[str, set[tuple[int, str]]]:
    """Stage -> (batch_workers, key) of its trials."""
    task = {"kind": "shared"} if kind == "shared" else BASE["task"]
    optim = {"lr": 1e-3, "epochs": 4, "warmup_epochs": 1, "batch": 64, "micro_batch": micro_batch}
    trial = {**BASE, "task": task, "optim": optim}
    planner = Planner(job(GRID, NEAR, LAST, trial=trial, resources={"workers": workers}), DurationModel())
    run(planner, lambda each: TrialSnapshot(TrialState.done, figures={each.spec.task.metric: each.spec.optim.lr}))
    stages: dict[str, set[tuple[int, str]]] = {}
    for each in planner.placed:
        stages.setdefault(each.stage, set()).add((each.spec.batch_workers, each.key))
    return stages


def test_the_number_of_workers_of_each_stage_enters_the_trial() -> None:
    two, one = planned("shared", 2), planned("shared", 1)
    counts = {stage: {workers for workers, _ in trials} for stage, trials in two.items()}
    assert counts == {"grid": {2}, "near": {2}, "last": {4}}
    assert {workers for workers, _ in one["grid"]} == {1}
    assert not {key for _, key in two["grid"]} & {key for _, key in one["grid"]}
    assert {key for _, key in two["last"]} == {key for _, key in one["last"]}
    assert planned("shared", 2, micro_batch=32)["grid"]


def test_other_tasks_have_the_same_trials_with_any_number_of_workers() -> None:
    assert planned("classify", 2) == planned("classify", 1)
    assert {workers for trials in planned("classify", 2).values() for workers, _ in trials} == {1}


SPEC = """\
name: shared
trial:
  task: {kind: shared}
  backbone: {model: vit_tiny_patch16_224, image_size: 16}
  optim: {lr: 1e-3, batch: 32, epochs: 4, warmup_epochs: 1}
resources: {workers: 4}
stages:
  - {name: only}
"""


def test_a_spec_fixes_the_number_of_workers_of_such_a_trial(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"

    def problem(before: str, after: str) -> str:
        assert before in SPEC
        path.write_text(SPEC.replace(before, after))
        with pytest.raises(SpecError) as caught:
            load(path)
        (line,) = caught.value.problems
        return line.removeprefix(f"{path}:")

    elastic = "stages.only: resources.min_workers: 2: the loss needs a worker's whole share of the batch"
    assert problem("workers: 4", "workers: 4, min_workers: 2").startswith(f"6:25: {elastic}")
    assert problem("name: only", "name: only, resources: {workers: 4, min_workers: 2}").startswith(f"8:42: {elastic}")
    small = "optim.micro_batch 4 is below a worker's share of 8 (batch 32, 4 workers)"
    assert small in problem("batch: 32", "batch: 32, micro_batch: 4")
    assert "set by the planner alone; remove it" in problem("trial:\n", "trial:\n  batch_workers: 4\n")
    assert "set by the planner alone; remove it" in problem("name: only", "name: only, override: {batch_workers: 4}")
    for same in ("batch: 32, micro_batch: 8", "batch: 32"):
        path.write_text(SPEC.replace("batch: 32", same))
        assert load(path).resources.workers == 4
    other = SPEC.replace("kind: shared", "kind: classify, dataset: faces")
    path.write_text(other.replace("workers: 4", "workers: 4, min_workers: 2"))
    assert load(path).resources.min_workers == 2
