"""Searches under the control loop, without Ray: what is recorded and shared, and that a kill changes nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process_backend import Crash, Machine, crashing, drive_to_end, killed, messages, prepared_driver
from k12_job import FINAL, PRETRAIN, RAND, SUP, grid
from search_job import FROM_SEARCH, Trainer, job, log_of, run, search

from orchestrator.engine import membership
from orchestrator.engine.driver import Driver
from orchestrator.errors import Conflict
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.rows import Edge, SearchEvent
from orchestrator.records.states import JobState, TrialState
from orchestrator.report.verify import verify
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store import leases
from orchestrator.store.store import Store, open_store
from workers.messages import Assignment, Outcome, Report


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "BEAT_S", 0.02)


def test_a_search_is_recorded_and_its_winner_goes_to_test(store: Store, tmp_path: Path) -> None:
    study = job(search(), FROM_SEARCH)
    state, trainer, machine = run(store, study, tmp_path)
    assert state is JobState.done
    assert set(machine.ran.values()) == {1}
    rows = store.trials.placed(job_id(study), "search")
    events = log_of(store, study)
    stopped = {e.key for e in events if e.kind == "stopped"}
    assert {row.key for row in rows if row.state is TrialState.stopped} == stopped != set()
    assert {row.key for row in rows if row.state is TrialState.done} == {e.key for e in events if e.kind == "told"}
    assert all(trainer.trained[key] in (1, 3) for key in stopped)
    assert all("search digits/RAND after epoch" in (row.error or "") for row in rows if row.key in stopped)
    (winner,) = store.choices.of(job_id(study))
    assert winner.key not in stopped
    assert winner.candidates == 7 - len(stopped)
    (final,) = store.trials.placed(job_id(study), "final")
    assert final.state is TrialState.done
    assert verify(store, job_id(study)) == []
    again = prepared_driver(store, study, tmp_path)
    assert again.planner.finished()
    assert log_of(store, study) == events


def test_groups_are_searched_at_once_and_begin_with_the_same_points(store: Store, tmp_path: Path) -> None:
    each = {"task.dataset": ["digits", "faces"], "backbone.init": [RAND, SUP]}
    study = job(PRETRAIN, search(each=each, trials=4, stopping="none"), FROM_SEARCH)
    state, _trainer, machine = run(store, study, tmp_path, slots=8)
    assert state is JobState.done
    assert set(machine.ran.values()) == {1}
    logs = store.search_log.events(job_id(study))
    assert sorted(group for _, group in logs) == ["digits/RAND", "digits/SUP", "faces/RAND", "faces/SUP"]
    firsts = {tuple(str(e.body["point"]) for e in log if e.kind == "asked")[:2] for log in logs.values()}
    assert len(firsts) == 1
    (pretrain,) = store.trials.placed(job_id(study), "pretrain")
    parents = {row.group: store.trials.get(row.key).parent for row in store.trials.placed(job_id(study), "search")}
    assert parents["faces/SUP"] == pretrain.key
    assert parents["faces/RAND"] is None
    assert len(store.choices.of(job_id(study))) == 4


def test_a_killed_search_resumes_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver dies at each commit of the search, before or after it: points, decisions and winner are the same."""
    study = job(search(trials=5), FROM_SEARCH)
    undisturbed = open_store(f"sqlite:///{tmp_path / 'undisturbed.db'}")
    count = crashing(undisturbed, monkeypatch, 0, False)
    run(undisturbed, study, tmp_path / "undisturbed")
    expected, commits = log_of(undisturbed, study), count[0]
    assert commits > 8
    assert {"stopped", "continued", "told"} <= {event.kind for event in expected}
    for at in range(1, commits + 1):
        own = open_store(f"sqlite:///{tmp_path / f'{at}.db'}")
        trainer = Trainer(own, study)
        machine = Machine(slots=1, execute=trainer)
        with monkeypatch.context() as patch:
            crashing(own, patch, at, after=at % 2 == 0)
            killed(own, study, machine, tmp_path / str(at), patch)
        state, _driver = drive_to_end(own, study, machine, tmp_path / str(at))
        assert state is JobState.done
        assert log_of(own, study) == expected, f"crash at {at}"
        assert set(machine.ran.values()) == {1}
        assert [w.key for w in own.choices.of(job_id(study))] == [w.key for w in undisturbed.choices.of(job_id(study))]
        assert verify(own, job_id(study)) == []
        own.close()
    undisturbed.close()


def test_a_stopped_trial_whose_process_and_driver_died_is_stopped(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded decision stands: the trial does not run again in order to stop."""
    study = job(search(trials=5))
    trainer = Trainer(store, study)
    machine = Machine(slots=1, execute=trainer)
    place = store.trials.place

    def placed(job: str, placements: Any, events: Any = ()) -> Any:
        known = place(job, placements, events)
        if any(event.kind == "stopped" for _, event in events):
            for worker in machine.actors:
                worker.dead = True
            raise Crash
        return known

    with monkeypatch.context() as patch:
        patch.setattr(store.trials, "place", placed)
        killed(store, study, machine, tmp_path, patch)
    machine.actors.clear()
    state, _driver = drive_to_end(store, study, machine, tmp_path)
    assert state is JobState.done
    assert set(machine.ran.values()) == {1}
    stopped = {e.key for e in log_of(store, study) if e.kind == "stopped"}
    assert {row.key for row in store.trials.placed(job_id(study)) if row.state is TrialState.stopped} == stopped
    assert TrialState.pending not in {row.state for row in store.trials.placed(job_id(study))}


def a_bad_point() -> dict[str, Any]:
    return {"optim.lr": 1e-2, "optim.layer_decay": 0.6}


def the_bad_trial(store: Store, study: JobSpec, stage: str) -> Any:
    rows = store.trials.placed(job_id(study), stage)
    return next(row for row in rows if row.settings["optim.lr"] == 1e-2 and row.settings["optim.layer_decay"] == 0.6)


GOOD = {"optim.lr": 6e-4, "optim.layer_decay": 0.87}


def test_a_trial_stopped_by_one_job_runs_on_for_another_and_does_not_win_in_the_first(
    store: Store, tmp_path: Path
) -> None:
    first = job(search(first=[GOOD, a_bad_point()], trials=3, at_once=1), FROM_SEARCH, name="one")
    trainer = Trainer(store, first)
    machine = Machine(slots=1, execute=trainer)
    drive_to_end(store, first, machine, tmp_path)
    bad = the_bad_trial(store, first, "search")
    assert bad.state is TrialState.stopped
    assert trainer.at[bad.key] == 1

    other = job(grid(dataset=["digits"], init=[RAND], lr=[1e-2], layer_decay=[0.6]), name="two")
    trainer.wanted = {bad.key}
    assert drive_to_end(store, other, machine, tmp_path)[0] is JobState.done
    assert the_bad_trial(store, other, "grid").key == bad.key
    assert store.trials.get(bad.key).state is TrialState.done
    assert trainer.trained[bad.key] == 9  # it resumed from its checkpoint
    assert [attempt.cause for attempt in store.trials.attempts(bad.key)] == ["stopped", "done"]
    before = log_of(store, first)
    assert drive_to_end(store, first, machine, tmp_path)[0] is JobState.done
    assert log_of(store, first) == before
    assert verify(store, job_id(first)) == []


def test_a_trial_that_another_stage_wants_in_full_is_not_stopped(store: Store, tmp_path: Path) -> None:
    wanted = grid(dataset=["digits"], init=[RAND], lr=[1e-2], layer_decay=[0.6])
    study = job(search(first=[GOOD, a_bad_point()], trials=2, at_once=1), wanted)
    trainer = Trainer(store, study)
    trainer.wanted = {planned.key for planned in Planner(study, DurationModel()).placed}
    machine = Machine(slots=1, execute=trainer)
    assert drive_to_end(store, study, machine, tmp_path)[0] is JobState.done
    bad = the_bad_trial(store, study, "grid")
    assert bad.state is TrialState.done
    assert machine.ran[bad.key] == 1
    (row,) = [row for row in store.trials.placed(job_id(study), "search") if row.key == bad.key]
    assert row.state is TrialState.done
    assert verify(store, job_id(study)) == []


def test_a_search_takes_results_that_are_recorded(store: Store, tmp_path: Path) -> None:
    grid_job = job(grid(dataset=["digits"], init=[RAND], lr=[6e-4, 1e-2], layer_decay=[0.6]), name="grid")
    _state, trainer, machine = run(store, grid_job, tmp_path)
    assert len(machine.ran) == 2
    first = [{"optim.lr": lr, "optim.layer_decay": 0.6} for lr in (6e-4, 1e-2)]
    study = job(search(first=first, trials=3, at_once=1))
    trainer.jobs = [study]
    assert drive_to_end(store, study, machine, tmp_path)[0] is JobState.done
    assert len(machine.ran) == 3
    assert set(machine.ran.values()) == {1}
    events = log_of(store, study)
    assert [e.kind for e in events if e.key == events[0].key] == ["asked", "continued", "continued", "told"]
    worse = events[4].key
    assert [e.kind for e in events if e.key == worse][-1] == "told"  # it ran in full, so it cannot be stopped


def test_a_failed_trial_leaves_its_group_incomplete_until_a_retry(store: Store, tmp_path: Path) -> None:
    study = job(search(trials=4, stopping="none"), FROM_SEARCH)
    trainer = Trainer(store, study)
    broken = []

    def execute(assignment: Assignment, emit: Any, stop: Any) -> Outcome:
        if not broken:
            broken.append(assignment.trial.key)
            raise ValueError("a shape is wrong")
        return trainer(assignment, emit, stop)

    machine = Machine(slots=1, execute=execute)
    state, _driver = drive_to_end(store, study, machine, tmp_path)
    assert state is JobState.incomplete
    assert "digits/RAND" in store.jobs.get(job_id(study)).message
    assert store.choices.of(job_id(study)) == []
    assert store.jobs.retry(job_id(study)) == 1
    assert drive_to_end(store, study, machine, tmp_path)[0] is JobState.done
    assert machine.ran[broken[0]] == 2
    assert len(store.trials.placed(job_id(study), "search")) == 4


def test_a_search_whose_initial_weights_fail_is_incomplete(store: Store, tmp_path: Path) -> None:
    study = job(PRETRAIN, search(each={"backbone.init": [SUP, RAND]}, trials=2, stopping="none"))

    def execute(assignment: Assignment, emit: Any, stop: Any) -> Outcome:
        if assignment.name.startswith("pretrain"):
            raise ValueError("no such image")
        return Trainer(store)(assignment, emit, stop)

    state, _driver = drive_to_end(store, study, Machine(slots=2, execute=execute), tmp_path)
    assert state is JobState.incomplete
    lines = store.jobs.get(job_id(study)).message.splitlines()
    assert any(line.startswith("pretrain all") and "failed" in line for line in lines)
    assert any(line.startswith("search SUP") and "it starts from trial pretrain/all" in line for line in lines)
    states = {(row.group, row.state) for row in store.trials.placed(job_id(study), "search")}
    assert states == {("RAND", TrialState.done), ("SUP", TrialState.pending)}
    assert store.jobs.retry(job_id(study)) == 1
    trainer = Trainer(store)
    assert drive_to_end(store, study, Machine(slots=2, execute=trainer), tmp_path)[0] is JobState.done


def test_a_search_waits_for_the_best_of_several_initial_weights(store: Store, tmp_path: Path) -> None:
    several = {**PRETRAIN, "sweep": {"grid": {"optim.lr": [6e-4, 1e-3]}}}
    study = job(several, search(each={"backbone.init": [SUP]}, trials=2, stopping="none"))
    driver = prepared_driver(store, study, tmp_path)
    assert store.search_log.events(job_id(study)) == {}
    assert len(driver.planner.specs()) == 3  # so that missing data of the search are found at once
    state, _trainer, _machine = run(store, study, tmp_path)
    assert state is JobState.done
    best = max(store.trials.placed(job_id(study), "pretrain"), key=lambda row: row.value or 0)
    assert {store.trials.get(row.key).parent for row in store.trials.placed(job_id(study), "search")} == {best.key}


def test_a_small_space_ends_with_a_line(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "orchestrator")
    small = {"optim.layer_decay": {"choice": [0.7, 0.8, 0.9]}}
    study = job(search(search=small, trials=9, stopping="none"), FROM_SEARCH)
    state, _trainer, machine = run(store, study, tmp_path)
    assert state is JobState.done
    assert len(machine.ran) == 3 + 1
    assert [line for line in messages(caplog) if "exhausted after 3 points" in line]


def test_a_search_may_begin_with_the_weights_that_another_ended_with(store: Store, tmp_path: Path) -> None:
    """Even if the first one ends because its space is exhausted."""
    few = {"search": {"optim.layer_decay": {"choice": [0.7, 0.87]}}, "trials": 9, "stopping": "none"}
    first = {**search(**few, each={}), "name": "pretrain", "override": {"task.dataset": "digits-pretrain"}}
    study = job(first, search(each={"backbone.init": [SUP]}, trials=2, stopping="none"))
    state, _trainer, machine = run(store, study, tmp_path)
    assert state is JobState.done
    assert len(machine.ran) == 4
    best = max(store.trials.placed(job_id(study), "pretrain"), key=lambda row: row.value or 0)
    assert {store.trials.get(row.key).parent for row in store.trials.placed(job_id(study), "search")} == {best.key}


def test_a_search_has_one_driver(store: Store, tmp_path: Path) -> None:
    study = job(search(trials=2))
    driver = prepared_driver(store, study, tmp_path)
    store.leases.register(leases.driver_here(driver.id, driver.job_id, "machine"))
    with pytest.raises(Conflict, match="one driver"):
        prepared_driver(store, study, tmp_path)
    events = [(("search", "digits/RAND"), SearchEvent(0, "asked", "another", {"point": {}}))]
    with pytest.raises(Conflict, match="another process"):
        store.trials.place(job_id(study), [], events)


def test_an_interrupted_search_is_resumed(store: Store, tmp_path: Path) -> None:
    study = job(search(), FROM_SEARCH)

    def watch(driver: Driver) -> None:
        if driver.tally.finished == 1:
            driver.stop("interrupted")

    trainer = Trainer(store, study)
    machine = Machine(slots=1, execute=trainer)
    state, _driver = drive_to_end(store, study, machine, tmp_path, watch=watch)
    assert state is JobState.interrupted
    assert 0 < len(log_of(store, study)) < 15
    assert drive_to_end(store, study, machine, tmp_path)[0] is JobState.done
    assert max(trainer.trained.values()) <= 9
    assert verify(store, job_id(study)) == []


def test_a_trial_that_another_job_runs_is_judged_by_what_that_records(
    store: Store, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search does not wait for the end of a trial that it has stopped; the job that runs it keeps it running."""
    monkeypatch.setattr(membership, "BEAT_S", 1.0)  # a lease lives ten times as long: the other driver keeps its own
    full = job(grid(dataset=["digits"], init=[RAND], lr=[1e-2], layer_decay=[0.6]), name="full")
    study = job(search(first=[GOOD, a_bad_point()], trials=2, at_once=1), FROM_SEARCH, name="one")
    trainer = Trainer(store, study)
    held = threading.Event()

    def execute(assignment: Assignment, emit: Any, stop: Any) -> Outcome:
        if assignment.trial.optim.lr != 1e-2:
            return trainer(assignment, emit, stop)
        emit(Report(1, 10, {"train_loss": 1.0, "top1": 1.0}, 0.01))
        assert held.wait(100)
        return Outcome({"top1": 1.0, "loss": 1.0}, {"train_seconds": 0.02, "device": "cpu"})

    machine = Machine(slots=2, execute=execute)
    states: list[JobState] = []

    def other() -> None:
        own = open_store(database_url)
        states.append(drive_to_end(own, full, machine, tmp_path)[0])
        own.close()

    thread = threading.Thread(target=other)
    thread.start()
    until = time.monotonic() + 60
    while not any(row.epoch for row in store.trials.placed(job_id(full))) and time.monotonic() < until:
        time.sleep(0.01)
    try:
        state, _driver = drive_to_end(store, study, machine, tmp_path)
        assert state is JobState.done
        assert states == []  # the other job is not through: its trial waits
        bad = the_bad_trial(store, study, "search")
        assert (bad.state, machine.ran[bad.key]) == (TrialState.running, 1)
        assert [e.kind for e in log_of(store, study) if e.key == bad.key] == ["asked", "stopped"]
    finally:
        held.set()
        thread.join(60)
    assert states == [JobState.done]
    assert store.trials.get(bad.key).state is TrialState.done


def test_the_neighbourhood_of_a_searchs_winner_is_tried(store: Store, tmp_path: Path) -> None:
    edge = {"optim.lr": 6e-4, "optim.layer_decay": 0.86}
    ranges = {"optim.lr": {"loguniform": [1e-4, 1e-2]}, "optim.layer_decay": {"uniform": [0.7, 0.86]}}
    near = {"optim.layer_decay": {"add": [-0.01, 0.01]}}
    study = job(
        search(search=ranges, first=[edge], trials=3, stopping="none"),
        {"name": "near", "from": "search", "neighbourhood": {"near": near}},
        {**FINAL, "from": ["search", "near"]},
    )
    state, _trainer, _machine = run(store, study, tmp_path)
    assert state is JobState.done
    taken = {winner.stage: winner for winner in store.choices.of(job_id(study))}
    assert taken["near"].edges == [Edge("optim.layer_decay", "high", False, 0.86, 0.86)]
    assert taken["final"].edges == [Edge("optim.layer_decay", "high", True, 0.87, 0.86)]
    assert (taken["near"].candidates, taken["final"].candidates) == (3, 5)
    assert verify(store, job_id(study)) == []
