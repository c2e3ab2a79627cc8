"""What a task says of its own fields (data sets, split, what a population may change) decides what a spec may do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from more_tasks import allow

from orchestrator.errors import SpecError
from orchestrator.spec import load
from orchestrator.spec.job import JobSpec

HEAD = """\
name: parted
trial:
  task: {kind: parted}
  backbone: {model: vit_tiny_patch16_224, image_size: 16}
  optim: {lr: 1e-3, batch: 32, epochs: 20, warmup_epochs: 2}
report: {columns: task.frames}
stages:
"""
FINAL = "  - {name: final, from: first, override: {task.part: final}}\n"

Read = Callable[[str], JobSpec]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    allow(monkeypatch)

    def read(stages: str, columns: str = "task.frames") -> JobSpec:
        path = tmp_path / "spec.yaml"
        path.write_text(HEAD.replace("task.frames", columns) + stages)
        return load(path)

    return read


def test_one_winner_is_of_one_data_set(read: Read) -> None:
    """Whatever the report shows: noise is a column here, and no data set."""
    stages = (
        "  - {name: first, PERsweep: {grid: {task.frames: [street, house], optim.lr: [1e-3, 2e-3]}}}\n"
        "  - {name: again, from: first, override: {optim.epochs: 30}}\n"
    )
    with pytest.raises(SpecError, match=r"stages.first.per: lacks task.frames, whose values are tried"):
        read(stages.replace("PER", ""), columns="task.noise")
    read(stages.replace("PER", "per: task.frames, "), columns="task.noise")


def test_the_field_of_the_split_is_named_where_test_may_not_be_read(read: Read) -> None:
    first = "  - {name: first, override: {task.part: final}, sweep: {grid: {optim.lr: [1e-3, 2e-3]}}}\n"
    with pytest.raises(SpecError) as caught:
        read(first + FINAL)
    (problem,) = caught.value.problems
    assert "spec.yaml:8:41: stages.first: task.part: final: test data before selection" in problem
    assert read(first.replace("override: {task.part: final}, ", "") + FINAL).stages[1].name == "final"


POPULATION = """\
  - name: first
    sweep: {search: {optim.lr: {loguniform: [1e-4, 1e-2]}}, trials: 4, population: {size: 4, every_epochs: 5}}
"""


def test_a_population_changes_what_its_task_allows(read: Read) -> None:
    def searching(field: str) -> str:
        return POPULATION.replace("1e-2]}}", f"1e-2]}}, {field}: {{uniform: [0, 0.5]}}}}")

    read(searching("task.noise") + FINAL)
    with pytest.raises(SpecError) as caught:
        read(searching("task.dropout") + FINAL)
    (problem,) = caught.value.problems
    assert "task.dropout: members change their settings during training, and this one cannot change" in problem
    assert "possible: optim.lr and similar, backbone.drop_path, task.noise" in problem


def test_the_winner_of_a_population_may_be_measured_on_another_split_alone(read: Read) -> None:
    read(POPULATION + FINAL)
    with pytest.raises(SpecError, match=r"task.noise: .* only task.part may be set"):
        read(POPULATION + FINAL.replace("task.part: final", "task.part: final, task.noise: 0.1"))
