"""A job goes on through the loss of its cluster and outages of its store, and its results are the undisturbed ones."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clock import Clock
from in_process_backend import Machine, ThreadBackend, drive_to_end, messages, prepared_driver, results_of
from k12_job import FINAL, PRETRAIN, RAND, SUP, grid, job

from orchestrator.engine import membership
from orchestrator.engine.driver import Driver
from orchestrator.engine.supervision import PATIENCE_S
from orchestrator.errors import BackendUnreachable, ClusterLost, StoreAway
from orchestrator.launch import driving
from orchestrator.launch.driving import CLUSTERS, Connection, Outages, stops_on_signals
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.states import JobState, TrialState
from orchestrator.settings import settings
from orchestrator.spec.job import job_id
from orchestrator.store.store import Store, open_store

STUDY = job(PRETRAIN, grid(dataset=["digits"], init=[RAND, SUP], lr=[1e-4, 6e-4], layer_decay=[0.85]),
            FINAL | {"from": "grid"})  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(membership, "BEAT_S", 0.02)
    monkeypatch.setattr(driving, "RETRY_S", 0.0)
    monkeypatch.setattr(driving, "STORE_RETRY_S", 0.0)
    caplog.set_level(logging.INFO, "orchestrator")


class Cluster:
    """Machines that are lost at these polls, counted over all of them; then another one takes their place."""

    def __init__(self, lost_at: set[int]) -> None:
        self.lost_at, self.polls, self.machine = lost_at, 0, Machine()
        self.ran = self.machine.ran

    def backend(self, driver: Driver) -> ThreadBackend:
        cluster = self

        class Backend(ThreadBackend):
            def poll(self, timeout_s: float) -> Any:
                cluster.polls += 1
                if cluster.polls in cluster.lost_at:
                    cluster.machine = Machine()
                    raise ClusterLost("the Ray cluster is gone: its process raylet has ended")
                return super().poll(timeout_s)

        return Backend(self.machine, driver.id)


def drive(store: Store, folder: Path, run: Callable[[Driver], JobState], monkeypatch: pytest.MonkeyPatch) -> JobState:
    """The job, on clusters that the test makes."""
    monkeypatch.setattr(driving, "_on_cluster", lambda driver, connection, first: run(driver))
    connection = Connection(settings(folder), None, False, lambda cluster: None)
    first = prepared_driver(store, STUDY, folder)

    def another() -> Driver:
        return Driver(store, STUDY, first.job_id, Planner(STUDY, DurationModel()), first.site)

    return driving.drive(first, another, connection)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    opened = open_store(f"sqlite:///{folder / 'store.db'}")
    assert drive_to_end(opened, STUDY, Machine(), folder)[0] is JobState.done
    results = results_of(opened, STUDY)
    opened.close()
    return results


def test_lost_clusters_cost_no_number(
    store: Store, tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster(lost_at={1, 3, 4, 9})
    state = drive(store, tmp_path, lambda driver: driver.run(cluster.backend(driver)), monkeypatch)
    assert state is JobState.done
    assert results_of(store, STUDY) == undisturbed
    rows = store.trials.placed(job_id(STUDY))
    causes = {row.key: [attempt.cause for attempt in store.trials.attempts(row.key)] for row in rows}
    assert {each[-1] for each in causes.values()} == {"done"}
    assert "node_lost" in {cause for each in causes.values() for cause in each}
    assert "driver_lost" not in {cause for each in causes.values() for cause in each}
    assert store.leases.drivers() == []
    said = [line for line in messages(caplog) if "going on, on another" in line]
    assert len(said) == 4


@pytest.mark.parametrize("after", [False, True])
def test_a_store_that_is_away_for_a_moment_costs_nothing(
    store: Store, tmp_path: Path, undisturbed: Any, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """Away before a commit, or after it, so that nobody knows whether it was one."""
    commit, claim, count = store.trials.commit, store.leases.claim, [0]

    def away(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            count[0] += 1
            if count[0] % 3 == 0 and not after:
                raise StoreAway("the store does not answer")
            result = work(*arguments)
            if count[0] % 3 == 0:
                raise StoreAway("the store does not answer")
            return result

        return call

    monkeypatch.setattr(store.trials, "commit", away(commit))
    monkeypatch.setattr(store.leases, "claim", away(claim))
    machine = Machine()
    state = drive(store, tmp_path, lambda driver: driver.run(ThreadBackend(machine, driver.id)), monkeypatch)
    assert state is JobState.done
    assert results_of(store, STUDY) == undisturbed
    assert count[0] > 6
    assert store.leases.drivers() == []
    assert set(machine.ran.values()) == {1}, "trials do not need the store: each goes on, and its driver takes it back"


def test_a_stop_during_an_outage_is_a_stop(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(driver: Driver) -> JobState:
        driver.stopping = "interrupted"
        raise ClusterLost("gone")

    assert drive(store, tmp_path, run, monkeypatch) is JobState.interrupted
    assert store.jobs.get(job_id(STUDY)).state is JobState.interrupted


# When to go on


class SleepingClock(Clock):
    """A clock that moves only while somebody sleeps."""

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1.0)


@pytest.fixture
def clock() -> SleepingClock:
    return SleepingClock()


def test_clusters_that_die_at_once_again_and_again_end_the_job(clock: SleepingClock) -> None:
    outages, lost = Outages(clock, clock.sleep), ClusterLost("gone")
    for progress in (0, 7):  # with progress in between, the count begins anew
        for _ in range(CLUSTERS):
            outages.cluster_lost(lost, progress)
    with pytest.raises(BackendUnreachable, match="6 times in a row the Ray cluster was lost before any trial reported"):
        outages.cluster_lost(lost, 7)


def test_a_cluster_that_was_never_there_is_not_waited_for(clock: SleepingClock) -> None:
    with pytest.raises(BackendUnreachable, match="no Ray cluster"):
        Outages(clock, clock.sleep).no_cluster(BackendUnreachable("no Ray cluster"), 0)
    assert clock.now == 0


def test_a_cluster_that_was_lost_is_waited_for_some_minutes(clock: SleepingClock) -> None:
    outages = Outages(clock, clock.sleep)
    outages.cluster_lost(ClusterLost("gone"), 3)
    while clock.now <= PATIENCE_S:
        outages.no_cluster(BackendUnreachable("no Ray cluster"), 3)
    with pytest.raises(BackendUnreachable, match="no Ray cluster"):
        outages.no_cluster(BackendUnreachable("no Ray cluster"), 3)
    with pytest.raises(BackendUnreachable, match="stage grid: a trial needs"):  # it was there again since
        outages.no_cluster(BackendUnreachable("stage grid: a trial needs"), 4)


def test_a_store_is_waited_for_until_it_answers(clock: SleepingClock, caplog: pytest.LogCaptureFixture) -> None:
    outages, tries = Outages(clock, clock.sleep), []

    def answers() -> None:
        tries.append(clock.now)
        if len(tries) < 5:
            raise StoreAway("away")

    outages.store_away(StoreAway("away"), answers)
    assert len(tries) == 5
    assert messages(caplog)[-1] == "the store answers again: going on"

    def never() -> None:
        raise StoreAway("away")

    begun = clock.now
    with pytest.raises(StoreAway, match="the first reason"):
        outages.store_away(StoreAway("the first reason"), never)
    assert PATIENCE_S < clock.now - begun < PATIENCE_S + 60


# Cancelling and signals


def test_a_request_to_cancel_while_the_cluster_starts_is_kept(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()

    def starts_slowly(driver: Driver) -> JobState:
        assert [each.id for each in store.leases.drivers()] == [driver.id], "so that `cancel` finds it"
        store.jobs.request_cancel(driver.job_id)
        return driver.run(ThreadBackend(machine, driver.id))

    assert drive(store, tmp_path, starts_slowly, monkeypatch) is JobState.cancelled
    assert not machine.ran
    assert store.jobs.get(job_id(STUDY)).state is JobState.cancelled
    state, _ = drive_to_end(store, STUDY, machine, tmp_path)
    assert state is JobState.done, "submitted again, it runs"


@pytest.mark.usefixtures("signals_as_in_a_terminal")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_stops_at_checkpoints_and_says_for_how_long(
    store: Store, tmp_path: Path, kind: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    driver = prepared_driver(store, STUDY, tmp_path)
    sent: list[int] = []

    class Backend(ThreadBackend):
        def poll(self, timeout_s: float) -> Any:
            if not sent:
                sent.append(os.kill(os.getpid(), kind) or 1)
            return super().poll(timeout_s)

    with stops_on_signals(driver):
        assert driver.run(Backend(Machine(), driver.id)) is JobState.interrupted
    assert "for which they have 120 s (once more to leave them running)" in messages(caplog)[0]
    states = {row.state for row in store.trials.placed(job_id(STUDY))}
    assert TrialState.running not in states


def test_a_hangup_is_ignored_where_it_was_before(store: Store, tmp_path: Path) -> None:
    driver = prepared_driver(store, STUDY, tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with stops_on_signals(driver):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
