"""Replicates under the control loop, without Ray: what is recorded and checked, what runs again, what searches see."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from in_process_backend import Machine, crashing, drive_to_end, killed, made_up, prepared_driver
from k12_job import FINAL, PRETRAIN, RAND, SUP, grid, job
from search_job import FROM_SEARCH, log_of, search

from orchestrator.cli.cost_table import lines as cost_lines
from orchestrator.engine import membership
from orchestrator.plan.cost import cost
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.resource_fit import Node
from orchestrator.records.states import JobState
from orchestrator.report.verify import verify
from orchestrator.rules.retention import reasons
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store import tables
from orchestrator.store.store import Store, open_store
from workers.errors import ErrorClass, TrialError

SMALL = grid(dataset=["digits"], init=[RAND, SUP], lr=[1e-4, 6e-4], layer_decay=[0.85])


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "BEAT_S", 0.02)


def study(count: int) -> JobSpec:
    final = {**FINAL, "from": "grid", "replicates": 2}
    return job({**PRETRAIN, "replicates": 2}, {**SMALL, "replicates": count}, final)


def run(store: Store, what: JobSpec, folder: Path, **options: Any) -> Machine:
    machine = Machine(**options)
    assert drive_to_end(store, what, machine, folder)[0] is JobState.done, store.jobs.get(job_id(what)).message
    return machine


def test_a_choice_is_recorded_with_its_seeds_and_checked(store: Store, tmp_path: Path) -> None:
    run(store, study(2), tmp_path)
    assert verify(store, job_id(study(2))) == []
    for choice in store.choices.of(job_id(study(2))):
        rows = {row.key: row for row in store.trials.placed(job_id(study(2)), "grid")}
        best = [row for row in rows.values() if row.group == choice.group and row.settings["optim.lr"] == 6e-4]
        assert [row.seed for row in best] == [0, 1]
        assert (choice.key, choice.candidates) == (best[0].key, 2)
        assert choice.value == statistics.fmean(row.value for row in best if row.value is not None)
        assert choice.rule["seeds"] == [0, 1]
        assert choice.rule["values"] == [row.value for row in best]
    kept = reasons(store.weights.retention_facts())
    finals = store.trials.placed(job_id(study(2)), "final")
    assert [row.seed for row in finals] == [2, 3] * 2
    assert {row.key for row in finals} <= set(kept)
    assert next(row.name for row in finals if row.group == "digits/SUP").endswith("lr=0.0006,layer_decay=0.85,seed=2")


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [("value", 1.0, "recorded with top1 1.0, its figure is"), ("candidates", 3, "recorded with 3 candidates, it has 2"),
     ("rule_json", '{"seeds": [0, 1], "values": [1.0, 2.0]}', "recorded with values [1.0, 2.0], its trials have"),
     ("rule_json", '{"values": []}', "recorded with seeds None, its trials have [0, 1]")],
)  # fmt: skip
def test_a_record_that_was_changed_is_found(store: Store, tmp_path: Path, column: str, value: Any, what: str) -> None:
    run(store, study(2), tmp_path)
    store._db.write(lambda connection: connection.execute(sa.update(tables.winners).values({column: value})) and None)
    assert any(what in line for line in verify(store, job_id(study(2))))


def test_a_luckier_seed_instead_of_the_mean_is_found(store: Store, tmp_path: Path) -> None:
    run(store, study(2), tmp_path)
    other = next(row for row in store.trials.placed(job_id(study(2)), "grid") if row.settings["optim.lr"] == 1e-4)
    store._db.write(lambda connection: connection.execute(sa.update(tables.winners).values(key=other.key)) and None)
    assert any("the figures choose" in line for line in verify(store, job_id(study(2))))


def test_more_replicates_run_only_what_is_new(store: Store, tmp_path: Path) -> None:
    pretrain = {**PRETRAIN, "keep_weights": True}
    three, five = (job({**pretrain, "replicates": count}) for count in (3, 5))
    assert run(store, three, tmp_path).ran.total() == 3
    machine = run(store, five, tmp_path)
    assert {store.trials.get(key).seed for key in machine.ran} == {3, 4}
    assert run(store, five, tmp_path).ran.total() == 0


def test_a_seed_that_diverged_is_a_result_and_its_setting_loses(store: Store, tmp_path: Path) -> None:
    def execute(assignment: Any, emit: Any, stop: Any) -> Any:
        if (assignment.trial.optim.lr, assignment.trial.seed) == (6e-4, 1):
            raise TrialError(ErrorClass.diverged, "loss is nan")
        return made_up(assignment, emit, stop)

    run(store, study(2), tmp_path, execute=execute)
    assert verify(store, job_id(study(2))) == []
    assert {row.settings["optim.lr"] for row in store.trials.placed(job_id(study(2)), "final")} == {1e-4}


SEARCHED = job(
    {**search(stopping="none", trials=4, each={"task.dataset": ["digits"]}), "replicates": 3},
    {**FROM_SEARCH, "replicates": 2},
)


def test_a_search_is_told_the_mean_over_the_seeds_of_a_point(store: Store, tmp_path: Path) -> None:
    machine = run(store, SEARCHED, tmp_path)
    assert set(machine.ran.values()) == {1}
    rows = {row.key: row for row in store.trials.placed(job_id(SEARCHED), "search")}
    events = log_of(store, SEARCHED)
    asked = [event.key for event in events if event.kind == "asked"]
    told = {event.key: event.body["value"] for event in events if event.kind == "told"}
    assert len(rows) == 12
    assert sorted(asked) == sorted(told)
    for key, value in told.items():
        point = {path: setting for path, setting in rows[key].settings.items() if path != "seed"}
        of_point = [row for row in rows.values() if {**row.settings, "seed": 0} == {**point, "seed": 0}]
        assert [row.seed for row in of_point] == [0, 1, 2]
        assert of_point[0].key == key
        assert value == statistics.fmean(row.value for row in of_point if row.value is not None)
    (choice,) = store.choices.of(job_id(SEARCHED))
    assert (choice.candidates, choice.value) == (4, max(told.values()))
    assert [row.seed for row in store.trials.placed(job_id(SEARCHED), "final")] == [3, 4]
    assert verify(store, job_id(SEARCHED)) == []
    again = prepared_driver(store, SEARCHED, tmp_path)
    assert again.planner.finished()
    assert log_of(store, SEARCHED) == events


def test_a_search_is_told_that_a_point_diverged_if_a_seed_did(store: Store, tmp_path: Path) -> None:
    def execute(assignment: Any, emit: Any, stop: Any) -> Any:
        if assignment.trial.seed == 1 and assignment.trial.optim.lr > 1e-3:
            raise TrialError(ErrorClass.diverged, "loss is nan")
        return made_up(assignment, emit, stop)

    run(store, SEARCHED, tmp_path, execute=execute)
    rows = {row.key: row for row in store.trials.placed(job_id(SEARCHED), "search")}
    told = {event.key: event.body["value"] for event in log_of(store, SEARCHED) if event.kind == "told"}
    assert (
        {key for key, value in told.items() if value is None}
        == {key for key in told if rows[key].settings["optim.lr"] > 1e-3}
        != set()
    )
    assert verify(store, job_id(SEARCHED)) == []


def test_a_search_with_replicates_resumes_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver dies at each commit of the search, before or after it: points, means and the winner are the same."""
    undisturbed = open_store(f"sqlite:///{tmp_path / 'undisturbed.db'}")
    count = crashing(undisturbed, monkeypatch, 0, False)
    run(undisturbed, SEARCHED, tmp_path / "undisturbed", slots=1)
    expected, commits = log_of(undisturbed, SEARCHED), count[0]
    assert commits > 4
    for at in range(1, commits + 1):
        own = open_store(f"sqlite:///{tmp_path / f'{at}.db'}")
        machine = Machine(slots=1)
        with monkeypatch.context() as patch:
            crashing(own, patch, at, after=at % 2 == 0)
            killed(own, SEARCHED, machine, tmp_path / str(at), patch)
        assert drive_to_end(own, SEARCHED, machine, tmp_path / str(at))[0] is JobState.done
        assert sorted(str(event.body) for event in log_of(own, SEARCHED) if event.kind == "told") == sorted(
            str(event.body) for event in expected if event.kind == "told"
        )
        assert set(machine.ran.values()) == {1}
        assert verify(own, job_id(SEARCHED)) == []
        own.close()
    undisturbed.close()


def test_the_plan_counts_every_seed() -> None:
    for what, trials in ((study(2), [2, 8, 4]), (SEARCHED, [12, 2])):
        estimate = cost(what, lambda keys: {}, DurationModel(), [Node(4.0)])
        assert [stage.trials for stage in estimate.stages] == trials
        assert estimate.trials == sum(trials)
        text = cost_lines(what, estimate).splitlines()
        assert any(line.startswith("final") and line.endswith("settings x 2 seeds, forecast") for line in text)
