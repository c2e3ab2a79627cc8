"""Jobs whose trials have a length in iterations: planned, searched and reported in rounds, without Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process_backend import Machine, drive_to_end
from k12_job import BASE, RAND, job

from orchestrator.engine import membership
from orchestrator.plan.cost import cost
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.resource_fit import Node
from orchestrator.records.states import JobState
from orchestrator.report.build import build
from orchestrator.report.verify import verify
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store.store import Store, open_store
from workers.errors import Stopped
from workers.messages import Assignment, Outcome, Report, Weights

OPTIM = {"lr": 1e-3, "iterations": 110, "warmup_iterations": 0, "batch": 64}
TRIAL = {**BASE, "optim": OPTIM, "runtime": {"report_iterations": 10}}
ROUNDS = 11
RANGES = {"optim.lr": {"loguniform": [1e-4, 1e-2]}}
EACH = {"task.dataset": ["digits"], "backbone.init": [RAND]}
FINAL = {"name": "final", "from": "search", "override": {"task.evaluate": "test"}}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(membership, "BEAT_S", 0.02)
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


class Trainer:
    """Gains its learning rate in every round, starting from the value of the trial from which it resumes."""

    def __init__(self) -> None:
        self.state: dict[str, float] = {}

    def __call__(self, assignment: Assignment, emit: Any, stop: Any) -> Outcome:
        trial = assignment.trial
        value = self.state[trial.parent] if trial.first_round and trial.parent else 0.0
        for number in range(trial.first_round + 1, trial.last_round + 1):
            value += trial.optim.lr
            emit(Report(number, number * 10, {"train_loss": -value, trial.task.metric: value}, 0.01))
            if stop():
                raise Stopped
        self.state[trial.key] = value
        kept = assignment.keep_weights or trial.last_round < trial.rounds
        weights = Weights(f"{assignment.folder}/weights", "0" * 64) if kept else None
        return Outcome({trial.task.metric: value, "loss": -value}, {"train_seconds": 0.02, "device": "cpu"}, weights)


def searching(**fields: Any) -> JobSpec:
    sweep = {"search": RANGES, "each": EACH, "sampler": "random", **fields}
    return job({"name": "search", "sweep": sweep}, FINAL, trial=TRIAL)


def test_a_grid_plans_runs_and_reports_in_rounds(store: Store, tmp_path: Path) -> None:
    grid = {"name": "search", "per": list(EACH), "sweep": {"grid": {**EACH, "optim.lr": [1e-3, 2e-3]}}}
    study = job(grid, FINAL, trial=TRIAL)
    estimate = cost(study, lambda keys: {}, DurationModel(), [Node(cpus=1)])
    assert [stage.trials for stage in estimate.stages] == [2, 1]
    assert drive_to_end(store, study, Machine(execute=Trainer()), tmp_path)[0] is JobState.done
    rows = store.trials.placed(job_id(study))
    assert {(row.epoch, row.epochs) for row in rows} == {(ROUNDS, ROUNDS)}
    assert verify(store, job_id(study)) == []
    (cell,) = build(store, job_id(study)).cells
    assert cell.value == pytest.approx(100 * ROUNDS * 2e-3)


def test_early_stopping_decides_after_rounds(store: Store, tmp_path: Path) -> None:
    stopping = {"asha": {"grace_epochs": 2, "reduction_factor": 2}}
    study = searching(trials=8, at_once=1, stopping=stopping)
    assert drive_to_end(store, study, Machine(slots=1, execute=Trainer()), tmp_path)[0] is JobState.done
    (events,) = store.search_log.events(job_id(study)).values()
    decided = {event.body["epoch"] for event in events if event.kind in ("continued", "stopped")}
    assert decided == {2, 4, 8}
    assert verify(store, job_id(study)) == []


def test_a_population_trains_in_parts_of_rounds(store: Store, tmp_path: Path) -> None:
    """The last round of a schedule may be shorter, so 11 rounds are 101 to 110 iterations; a generation of 11 rounds is
    the whole schedule, and one of a single round makes 11 generations."""
    study = searching(trials=2, population={"size": 2, "every_epochs": 1})
    estimate = cost(study, lambda keys: {}, DurationModel(), [Node(cpus=1)])
    assert [stage.trials for stage in estimate.stages] == [2 * ROUNDS, 1]
    assert drive_to_end(store, study, Machine(slots=1, execute=Trainer()), tmp_path)[0] is JobState.done
    rows = store.trials.placed(job_id(study), "search")
    assert Counter(row.epochs for row in rows) == dict.fromkeys(range(1, ROUNDS + 1), 2)
    (winner,) = store.choices.of(job_id(study))
    assert winner.candidates == 2
    (final,) = store.trials.placed(job_id(study), "final")
    assert store.trials.get(final.key).spec["span"] == {"first_epoch": ROUNDS - 1, "last_epoch": ROUNDS}
    kept = store.weights.retention_facts().candidates[job_id(study), "search", "digits/RAND"]
    assert {each.key for each in kept.candidates} == {row.key for row in rows if row.epochs == ROUNDS}
    assert verify(store, job_id(study)) == []
