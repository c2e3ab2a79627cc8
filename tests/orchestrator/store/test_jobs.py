"""Jobs and their stages in the store."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from stored_job import JOB, key_of, placement

from orchestrator.errors import Conflict, NotFound
from orchestrator.records.rows import TrackedRun
from orchestrator.records.states import JobState
from orchestrator.records.writes import Failed, Finished
from orchestrator.store.leases import driver_here
from orchestrator.store.store import Store


def test_a_job_is_recorded_once_and_keeps_the_newest_code_version(store: Store) -> None:
    assert store.jobs.put(JOB) is True
    assert store.jobs.put(replace(JOB, git_commit="newer", git_dirty=False)) is False
    row = store.jobs.get(JOB.id)
    assert (row.name, row.profile, row.priority, row.state) == ("k12-grid", "laptop", 3, JobState.queued)
    assert (row.git_commit, row.git_dirty, row.versions) == ("newer", False, {"torch": "2"})
    assert store.jobs.spec(JOB.id) == {"name": "k12-grid"}
    assert store.jobs.text(JOB.id) == "name: k12-grid\n"
    assert abs(row.created - time.time()) < 60
    assert [job.id for job in store.jobs.all()] == [JOB.id]


def test_what_is_not_there_is_not_found(store: Store) -> None:
    for ask in (
        lambda: store.jobs.get("no"),
        lambda: store.jobs.spec("no"),
        lambda: store.jobs.set_state("no", "done"),
        lambda: store.jobs.request_cancel("no"),
        lambda: store.jobs.retry("no"),
        lambda: store.trials.get("no"),
        lambda: store.trials.place("no", [placement(1)]),
        lambda: store.jobs.find("no"),
        lambda: store.trials.find("no"),
    ):
        with pytest.raises(NotFound, match=r"^no (job|trial) "):
            ask()
    assert store.trials.snapshots(["no"]) == {}
    assert store.jobs.cancel_requested("no") is False


def test_job_states_and_cancel(three: Store) -> None:
    three.leases.register(driver_here("here", JOB.id, "cluster"))
    three.jobs.set_state(JOB.id, JobState.running)
    assert three.jobs.get(JOB.id).state == JobState.running
    three.jobs.request_cancel(JOB.id)
    assert three.jobs.cancel_requested(JOB.id)
    three.jobs.set_state(JOB.id, "cancelled", "asked by the user")
    assert (three.jobs.get(JOB.id).state, three.jobs.get(JOB.id).message) == (JobState.cancelled, "asked by the user")
    three.jobs.set_state(JOB.id, "running")
    assert three.jobs.cancel_requested(JOB.id), "a driver that has just started must find it"
    three.jobs.put(JOB)  # submitted again
    assert not three.jobs.cancel_requested(JOB.id)
    with pytest.raises(ValueError, match="'paused'"):
        three.jobs.set_state(JOB.id, "paused")


def test_a_running_job_without_a_live_driver_shows_as_interrupted(three: Store) -> None:
    three.jobs.set_state(JOB.id, "running")
    assert three.jobs.get(JOB.id).state == JobState.running
    three.leases.unregister("d1")
    assert three.jobs.get(JOB.id).state == JobState.interrupted


def test_find_job_by_name_and_prefix(store: Store) -> None:
    for number, name in (("abc1", "same"), ("abc2", "same"), ("b%c3", "other")):
        store.jobs.put(replace(JOB, id=number, name=name))
        time.sleep(0.005)
    assert store.jobs.find("same") == "abc2"
    assert store.jobs.find("abc1") == "abc1"
    assert store.jobs.find("b") == "b%c3"
    with pytest.raises(Conflict, match=r"abc2 \(same\).*abc1 \(same\)"):
        store.jobs.find("abc")
    for wrong in ("%", "", "_"):
        with pytest.raises(NotFound, match=r"^no job "):
            store.jobs.find(wrong)
    with pytest.raises(NotFound, match=r"^no job .*did you mean same"):
        store.jobs.find("sane")


def test_stages_and_tracked_runs(three: Store) -> None:
    stages = [("grid", 0, {"per": ["task.dataset"]}), ("final", 1, {"from": ["grid"]})]
    three.jobs.put_stages(JOB.id, stages)
    three.jobs.put_stages(JOB.id, stages)
    assert three.jobs.stages(JOB.id) == stages
    group, child = ("grid", "digits/RAND", ""), ("grid", "digits/RAND", key_of(1))
    three.tracked_runs.put(JOB.id, {group: TrackedRun("run0"), child: TrackedRun("run1", 3, False, "run0")})
    three.tracked_runs.put(JOB.id, {child: TrackedRun("run1", 10, True, "run0")})
    three.tracked_runs.put(JOB.id, {})
    assert three.tracked_runs.of(JOB.id) == {group: TrackedRun("run0"), child: TrackedRun("run1", 10, True, "run0")}


def test_retry_resets_failed_and_cancelled_trials_only(three: Store) -> None:
    three.trials.place(JOB.id, [placement(4), placement(4, stage="final")])
    tokens = three.leases.claim("d1", [key_of(number) for number in (1, 2, 3, 4)])
    three.trials.commit(
        "d1",
        [
            Finished(key_of(1), 1, {"top1": 0.5}),
            Failed(key_of(2), 1, "diverged", "nan"),
            Failed(key_of(3), 1, "cancelled", ""),
            Failed(key_of(4), 1, "data", "no images"),
        ],
    )
    assert set(tokens.values()) == {1}
    three.jobs.request_cancel(JOB.id)
    assert three.jobs.retry(JOB.id) == 2
    assert three.jobs.retry(JOB.id) == 0
    assert not three.jobs.cancel_requested(JOB.id)
    states = {row.key: row.state for row in three.trials.placed(JOB.id)}
    assert list(states.values()) == ["done", "diverged", "pending", "pending"]
    assert three.trials.snapshots([key_of(4)])[key_of(4)].error is None
    assert three.trials.attempts(key_of(4))[0].cause == "data"
    assert three.leases.claim("d1", [key_of(4)]) == {key_of(4): 2}


def test_the_last_estimate_of_the_time_left_counts(store: Store) -> None:
    store.jobs.put(JOB)
    assert store.jobs.seconds_left(JOB.id) is None
    for seconds in (500.0, 170.5):
        store.jobs.put_seconds_left(JOB.id, seconds)
    known = store.jobs.seconds_left(JOB.id)
    assert known is not None
    assert (known[0], 0 <= known[1] < 60) == (170.5, True)
    store.jobs.forget_seconds_left(JOB.id)
    store.jobs.forget_seconds_left("no such job")
    assert store.jobs.seconds_left(JOB.id) is None
