"""Trials that need the weights of several others: of their backbone, and of models that their task names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from k12_job import BASE, PRETRAIN, RAND, done, failed, planner_of, run
from more_tasks import MoreTasks, allow

from orchestrator.errors import SpecError
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.recorded_spec import parents
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.spec import load
from workers.trial import TrialSpec

SECOND = {"name": "second", "override": {"task.dataset": "digits-pretrain"}, "sweep": {"grid": {"seed": [1, 2]}}}


def start(stage: str) -> dict[str, str]:
    return {"kind": "stage", "name": stage.upper(), "stage": stage}


def third(init: dict[str, str]) -> dict[str, Any]:
    return {"model": "vit_tiny_patch16_224", "image_size": 32, "init": init}


COMPARE = {
    "name": "compare",
    "override": {
        "backbone.init": start("second"),
        "task": {"kind": "compared", "other": start("pretrain"), "more": [third(RAND), third(start("second"))]},
    },
}


@pytest.fixture(autouse=True)
def _tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch)


def by_stage(planner: Planner, stage: str) -> list[PlannedTrial]:
    return [each for each in planner.placed if each.stage == stage]


def test_a_trial_waits_for_all_the_weights_it_needs() -> None:
    planner = planner_of(PRETRAIN, SECOND, COMPARE)
    (pretrained,), second = by_stage(planner, "pretrain"), by_stage(planner, "second")
    assert all(each.keep_weights for each in (pretrained, *second))
    assert not by_stage(planner, "compare")
    planner.update(second[0].key, done(second[0]))
    assert not by_stage(planner, "compare")  # which of the two of second is the better is not known yet
    planner.update(second[1].key, done(second[1]))
    (decision,) = planner.decisions
    assert (decision.stage, decision.candidates) == ("compare: weights of second", 2)
    (compared,) = by_stage(planner, "compare")
    assert compared.needs == (decision.key, pretrained.key)
    spec = compared.spec.model_dump(mode="json")
    assert spec["task"]["other"] == {"kind": "trial", "name": "PRETRAIN", "trial": pretrained.key}
    assert [each["init"].get("trial") for each in spec["task"]["more"]] == [None, decision.key]
    assert parents(spec) == [decision.key, pretrained.key]
    assert compared.spec.parent == decision.key
    assert [each.key for each in run(planner)] == [pretrained.key, compared.key]
    assert planner.finished()
    assert planner.incomplete() == []


def test_weights_that_cannot_be_had_block_it() -> None:
    planner = planner_of(PRETRAIN, SECOND, COMPARE)
    (pretrained,) = by_stage(planner, "pretrain")
    for each in by_stage(planner, "second"):
        planner.update(each.key, done(each))
    planner.update(pretrained.key, failed())
    assert planner.finished()
    assert any(line.startswith("compare all: trial") and "pretrain" in line for line in planner.incomplete())
    removed = TrialSnapshot(TrialState.done, figures=done(pretrained).figures)
    planner.update(pretrained.key, removed)
    assert [each.key for each in run(planner)] == [pretrained.key, by_stage(planner, "compare")[0].key]


def compared(**task: Any) -> TrialSpec:
    return MoreTasks.model_validate({**BASE, "task": {"kind": "compared", **task}})


def test_a_label_of_any_source_of_weights_is_no_part_of_the_key() -> None:
    def file(name: str, path: str) -> dict[str, str]:
        return {"kind": "file", "name": name, "path": path, "sha256": "1" * 64}

    def trial(name: str, key: str) -> dict[str, str]:
        return {"kind": "trial", "name": name, "trial": key}

    assert compared(other=trial("A", "k")).key == compared(other=trial("B", "k")).key
    assert compared(other=trial("A", "k")).key != compared(other=trial("A", "l")).key
    assert compared(other=file("A", "a.safetensors")).key == compared(other=file("B", "b.safetensors")).key
    assert compared(more=[third(trial("A", "k"))]).key == compared(more=[third(trial("B", "k"))]).key
    assert compared(more=[third(trial("A", "k"))]).key != compared(more=[third(trial("A", "l"))]).key
    with pytest.raises(ValueError, match=r"task.more.1.init still names stage 'second': plan it first"):
        _ = compared(more=[third(RAND), third(start("second"))]).key


HEAD = """\
name: comparing
trial:
  task: {kind: classify, dataset: digits-pretrain}
  backbone: {model: vit_tiny_patch16_224, image_size: 32}
  optim: {lr: 1e-3, batch: 32, epochs: 4, warmup_epochs: 1}
stages:
"""


def test_a_spec_names_earlier_stages_in_every_source_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    for other, what in (
        ("{kind: stage, name: A, stage: frist}", "task.other: frist: no such stage; earlier stages: first"),
        ("{kind: stage, name: A, stage: compare}", "a stage cannot take from itself"),
        ("{kind: trial, name: A, trial: abc}", "set by the planner alone; write {kind: stage, ...}"),
    ):
        compare = f"  - {{name: compare, override: {{task: {{kind: compared, other: {other}}}}}}}\n"
        path.write_text(f"{HEAD}  - {{name: first}}\n{compare}")
        with pytest.raises(SpecError) as caught:
            load(path)
        (problem,) = caught.value.problems
        assert what in problem
        assert "spec.yaml:8:" in problem
    path.write_text(
        path.read_text().replace("{kind: trial, name: A, trial: abc}", "{kind: stage, name: A, stage: first}")
    )
    assert len(Planner(load(path), DurationModel()).placed) == 2


def test_a_stage_whose_weights_a_task_reads_may_not_read_test(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(
        f"{HEAD}  - {{name: first, override: {{task.dataset: digits, task.evaluate: test, task.train: trainval}}}}\n"
        "  - {name: compare, override: {task: {kind: compared, other: {kind: stage, name: A, stage: first}}}}\n"
    )
    with pytest.raises(SpecError, match="test data before selection: compare starts from its weights"):
        load(path)
