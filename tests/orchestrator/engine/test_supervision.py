"""Trials whose process must be ended, and a storage that every trial would find full or gone."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clock import Clock
from in_process_backend import Machine, ThreadBackend, drive_to_end, made_up, messages, prepared_driver
from k12_job import RAND, grid, job

from orchestrator.engine import membership, supervision
from orchestrator.engine.supervision import PATIENCE_S, STORAGE_FAILURES, StorageWatch, Supervision
from orchestrator.engine.watch import LIMIT_GRACE_S, STOP_S
from orchestrator.errors import BackendUnreachable
from orchestrator.records.states import JobState, TrialState
from orchestrator.records.writes import Failed, Released
from orchestrator.spec.job import job_id
from orchestrator.store.store import open_store
from workers.errors import ErrorClass, TrialError
from workers.messages import Failure, Report

FULL = Failure(ErrorClass.storage, "OSError: [Errno 28] No space left on device")
BROKEN = Failure(ErrorClass.code, "FileNotFoundError: checkpoint")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "orchestrator")
    monkeypatch.setattr(membership, "BEAT_S", 0.02)


def answer(worker: Any, *events: Any, ended: bool = False) -> Any:
    update = SimpleNamespace(key=worker.key, token=worker.token, events=events, ended=ended)
    return SimpleNamespace(worker=worker, update=update, reason="")


def planned(hours: float | None) -> Any:
    optim = SimpleNamespace(epochs=10)
    return SimpleNamespace(
        resources=SimpleNamespace(time_limit_hours=hours), seconds=100.0, spec=SimpleNamespace(optim=optim)
    )


def test_a_hung_trial_is_recorded_as_timed_out_and_its_process_ended(clock: Clock, tmp_path: Path) -> None:
    watch, worker = Supervision(tmp_path, str.upper, clock), SimpleNamespace(key="a", token=2)
    other = SimpleNamespace(key="b", token=1)
    watch.heard(answer(worker), planned(hours=0.01))
    watch.heard(answer(other), planned(hours=None))
    clock.now = 36.0 + LIMIT_GRACE_S
    assert watch.overdue([worker, other], None) == []
    clock.now += 1
    ((ended, write),) = watch.overdue([worker, other], None)
    assert ended is worker
    assert write == Failed("a", 2, "timeout", "ran longer than 36 s and did not end itself 60 s later", retry=False)
    assert watch.overdue([other], None) == []


def test_a_trial_that_ended_meanwhile_is_not_touched(clock: Clock, tmp_path: Path) -> None:
    watch, worker = Supervision(tmp_path, str.upper, clock), SimpleNamespace(key="a", token=2)
    watch.heard(answer(worker), planned(hours=0.01))
    watch.heard(answer(worker, ended=True), planned(hours=0.01))
    clock.now = 1e6
    assert watch.overdue([worker], None) == []
    watch.heard(answer(worker, Report(1, 1, {}, 0.1)), planned(hours=0.01))
    clock.now = 2e6
    assert watch.overdue([], None) == [], "its worker is gone already"


def test_what_does_not_stop_when_asked_is_ended_and_resumes_later(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch, worker = Supervision(tmp_path, str.upper, clock), SimpleNamespace(key="a", token=2)
    watch.stopping()
    clock.now = STOP_S
    assert watch.overdue([worker], "interrupted") == []
    clock.now += 1
    assert watch.overdue([worker], "interrupted") == [(worker, Released("a", 2, "interrupted"))]
    assert messages(caplog) == ["A did not stop within 120 s: its process is ended"]


ONE = job(grid(dataset=["digits"], init=[RAND], lr=[6e-4], layer_decay=[0.85]))


def test_a_driver_ends_with_a_frozen_trial_after_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "STOP_S", 0.2)

    def frozen(assignment: Any, emit: Any, stop: Any) -> Any:
        emit(Report(1, 10, {"train_loss": 1.0}, 0.01))
        while not ended:
            supervision.time.sleep(0.01)
        raise TrialError(ErrorClass.code, "too late")

    ended: list[bool] = []
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    machine = Machine(execute=frozen)
    driver = prepared_driver(store, ONE, tmp_path, watch=lambda driver: driver.stop("interrupted"))
    assert driver.run(ThreadBackend(machine, driver.id)) is JobState.interrupted
    ended.append(True)
    (row,) = store.trials.placed(job_id(ONE))
    assert row.state is TrialState.pending
    assert [attempt.cause for attempt in store.trials.attempts(row.key)] == ["interrupted"]
    assert machine.actors == [], "its process is ended"
    store.close()


def test_a_trial_that_hangs_past_its_limit_fails_as_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.engine import watch

    monkeypatch.setattr(watch, "LIMIT_GRACE_S", 0.1)
    limited = job(
        grid(dataset=["digits"], init=[RAND], lr=[6e-4], layer_decay=[0.85]), resources={"time_limit_hours": 0.1 / 3600}
    )

    def hangs(assignment: Any, emit: Any, stop: Any) -> Any:
        emit(Report(1, 10, {"train_loss": 1.0}, 0.01))
        while not stop() and not ended:
            supervision.time.sleep(0.01)
        raise TrialError(ErrorClass.code, "too late")

    ended: list[bool] = []
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    state, _ = drive_to_end(store, limited, Machine(execute=hangs), tmp_path)
    ended.append(True)
    (row,) = store.trials.placed(job_id(limited))
    assert (state, row.state, row.error_class) == (JobState.incomplete, TrialState.failed, "timeout")
    store.close()


# The storage


def test_a_full_disk_pauses_and_the_trial_has_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervision, "PROBE_S", 0.05)
    failed: list[str] = []

    def full_once(assignment: Any, emit: Any, stop: Any) -> Any:
        if not failed:
            failed.append(assignment.trial.key)
            raise OSError(28, "No space left on device")
        return made_up(assignment, emit, stop)

    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    state, _ = drive_to_end(store, ONE, Machine(execute=full_once), tmp_path)
    assert state is JobState.done
    assert [attempt.cause for attempt in store.trials.attempts(failed[0])] == ["storage", "done"]
    said = messages(caplog)
    assert sum("no trial starts before that is mended" in line for line in said) == 1
    assert "the storage can be written again: going on" in said
    store.close()


def test_a_storage_that_is_gone_costs_one_failure_and_a_pause(clock: Clock, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    watch = StorageWatch(storage, clock)
    assert watch.may_start(), "it is made by the first trial"
    storage.mkdir()
    assert watch.may_start()
    assert not watch.caused(BROKEN), "an error of the trial itself"
    storage.rename(tmp_path / "elsewhere")
    assert watch.caused(BROKEN)
    assert not watch.may_start()
    clock.now = 6.0
    assert not watch.may_start()
    (tmp_path / "elsewhere").rename(storage)
    clock.now = 12.0
    assert watch.may_start()
    assert list(storage.iterdir()) == [], "the probe is removed"


def test_a_storage_that_stays_away_ends_the_driver_with_what_to_do(clock: Clock, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    watch = StorageWatch(storage, clock)
    assert watch.may_start()
    shutil.rmtree(storage)
    assert not watch.may_start()
    clock.now = PATIENCE_S + 1
    with pytest.raises(BackendUnreachable, match=f"{storage} is gone\nMake room, or bring .* back; then submit again"):
        watch.may_start()


def test_a_storage_that_is_full_again_and_again_ends_the_driver(clock: Clock, tmp_path: Path) -> None:
    watch = StorageWatch(tmp_path, clock)
    for _ in range(STORAGE_FAILURES - 1):
        assert watch.caused(FULL)
        clock.now += 10
        assert watch.may_start()
    watch.ended_well()
    for _ in range(STORAGE_FAILURES):
        assert watch.caused(FULL)
    clock.now += 10
    with pytest.raises(BackendUnreachable, match="No space left on device"):
        watch.may_start()
