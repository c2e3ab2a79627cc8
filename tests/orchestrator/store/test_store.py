"""The store's contract, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from orchestrator.errors import Conflict, LeaseLost, NotFound
from orchestrator.records.rows import (
    ChoiceRow,
    DriverRow,
    Edge,
    JobRecord,
    Placement,
    ReportRow,
    SearchEvent,
    TrackedRun,
)
from orchestrator.records.states import JobState, TrialState
from orchestrator.records.writes import Failed, Finished, Released, Reported, StoppedEarly
from orchestrator.store.leases import driver_here, this_host
from orchestrator.store.store import Store, open_store

JOB = JobRecord(
    "a1b2c3", "k12-grid", "laptop", {"name": "k12-grid"}, "name: k12-grid\n", 3, "c0ffee", True, {"torch": "2"}
)


def key_of(number: int) -> str:
    return f"{number:02x}" * 32


def placement(number: int, stage: str = "grid", parent: str | None = None) -> Placement:
    init: dict[str, Any] = {"kind": "random"} if parent is None else {"kind": "trial", "trial": parent}
    return Placement(
        stage=stage, group="digits/RAND", group_values={"task.dataset": "digits"}, key=key_of(number),
        spec={"backbone": {"init": init}, "seed": 7}, settings={"optim.lr": 1e-4 * number},
        name=f"{stage}/digits/RAND/lr={number}", position=number, metric="top1", mode="max", seed=7, epochs=10,
    )  # fmt: skip


def elsewhere(driver_id: str, job_id: str = JOB.id) -> DriverRow:
    """A driver on another host: of it only the lease says whether it lives."""
    return DriverRow(driver_id, "another-host", 1, 0.0, job_id, "cluster")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()


@pytest.fixture
def three(store: Store) -> Store:
    """A job with three pending trials and a live driver d1."""
    store.jobs.put(JOB)
    store.trials.place(JOB.id, [placement(number) for number in (1, 2, 3)])
    store.leases.register(elsewhere("d1"))
    return store


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
        with pytest.raises(NotFound):
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
    three.jobs.set_state(JOB.id, "running")  # submitted again
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
        with pytest.raises(NotFound):
            store.jobs.find(wrong)
    with pytest.raises(NotFound, match="did you mean same"):
        store.jobs.find("sane")


def test_find_trial_by_name_and_prefix(store: Store) -> None:
    store.jobs.put(JOB)
    near = replace(placement(2), key="01ff" * 16)
    store.trials.place(JOB.id, [placement(1), near])
    assert store.trials.find("0101") == key_of(1)
    assert store.trials.find("grid/digits/RAND/lr=2") == near.key
    assert store.trials.find("grid/digits/RAND/lr=2 01ff01ff") == near.key
    with pytest.raises(Conflict, match=r"010101010101.*01ff01ff01ff"):
        store.trials.find("01")
    with pytest.raises(NotFound, match="did you mean grid/digits/RAND/lr=1"):
        store.trials.find("grid/digit/RAND/lr=1")


def test_a_name_of_two_jobs_means_the_newer_one(store: Store) -> None:
    for number in (1, 2):
        store.jobs.put(replace(JOB, id=f"job{number}"))
        store.trials.place(f"job{number}", [replace(placement(number), name="grid/all/")])
        time.sleep(0.005)
    assert store.trials.find("grid/all/") == key_of(2)


def test_placing_is_idempotent_and_shared_between_jobs(three: Store) -> None:
    (key, token) = next(iter(three.leases.claim("d1", [key_of(1)]).items()))
    three.trials.commit("d1", [Finished(key, token, {"top1": 0.5})])
    known = three.trials.place(JOB.id, [placement(number) for number in (1, 2, 4)])
    assert {key: known[key].state for key in known} == {
        key_of(1): TrialState.done, key_of(2): TrialState.pending, key_of(4): TrialState.pending
    }  # fmt: skip
    assert known[key_of(1)].figures == {"top1": 0.5}
    three.jobs.put(replace(JOB, id="second"))
    assert three.trials.place("second", [placement(1)])[key_of(1)].state == TrialState.done
    assert [row.key for row in three.trials.placed(JOB.id)] == [key_of(number) for number in (1, 2, 3, 4)]
    assert [row.value for row in three.trials.placed("second")] == [0.5]
    assert three.trials.place(JOB.id, []) == {}
    counts = {job.id: job.counts for job in three.jobs.all()}
    assert counts[JOB.id][TrialState.pending] == 3
    assert counts[JOB.id][TrialState.done] == counts["second"][TrialState.done] == 1
    assert len(three.trials.get(key_of(1)).placed) == 2


def test_a_trial_may_have_two_places_in_one_job(three: Store) -> None:
    again = placement(1, stage="final")
    three.trials.place(JOB.id, [again])
    three.trials.place(JOB.id, [again])
    assert sorted(row.stage for row in three.trials.placed(JOB.id)) == ["final", "grid", "grid", "grid"]
    assert [row.name for row in three.trials.placed(JOB.id, "final")] == [again.name]


def test_placed_rows_say_how_far_a_trial_is(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(2)])[key_of(2)]
    three.trials.commit("d1", [Reported(key_of(2), token, 4, 40, {"top1": 0.1}, 1.5)])
    row = three.trials.placed(JOB.id)[1]
    assert (row.stage, row.group, row.group_values) == ("grid", "digits/RAND", {"task.dataset": "digits"})
    assert (row.state, row.epoch, row.epochs, row.value, row.seconds) == (TrialState.running, 4, 10, None, None)
    assert row.settings == {"optim.lr": 2e-4}
    three.trials.commit(
        "d1", [Finished(key_of(2), token, {"top1": 0.9}, {"train_seconds": 12.5, "step_seconds": 0.25})]
    )
    row = three.trials.placed(JOB.id)[1]
    assert (row.state, row.value, row.seconds) == (TrialState.done, 0.9, 12.5)


def test_children_start_from_a_trial(three: Store) -> None:
    three.trials.place(JOB.id, [placement(5, "final", key_of(1)), placement(6, "final", key_of(1))])
    assert three.lineage.children(key_of(1)) == [key_of(5), key_of(6)]
    assert three.lineage.children(key_of(2)) == []


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


def test_pictures_are_recorded_with_their_report_once(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1), key_of(2)])[key_of(1)]
    second = Reported(key_of(1), token, 2, 20, {}, 1.0, ("pictures/b-0002.png", "pictures/a-0002.png"))
    three.trials.commit("d1", [Reported(key_of(1), token, 1, 10, {}, 1.0), second])
    three.trials.commit(
        "d1", [second, Reported(key_of(1), token, 4, 40, {}, 1.0, ("pictures/a-0004.png",))]
    )  # said again
    expected = [(2, "pictures/a-0002.png"), (2, "pictures/b-0002.png"), (4, "pictures/a-0004.png")]
    assert three.trials.pictures([key_of(1), key_of(2), "none"]) == {key_of(1): expected}


def test_inf_and_nan_come_back(three: Store) -> None:
    tokens = three.leases.claim("d1", [key_of(1), key_of(2)])
    odd = {"nan": math.nan, "inf": math.inf, "minus": -math.inf, "zero": 0.0, "tiny": 5e-324, "one": 1}
    three.trials.commit(
        "d1",
        [
            Reported(key_of(1), tokens[key_of(1)], 1, 10, odd, math.inf),
            Finished(key_of(1), tokens[key_of(1)], {**odd, "top1": math.nan}, {"worst": math.inf, "none": None}),
            Finished(key_of(2), tokens[key_of(2)], {"top1": -math.inf}),
        ],
    )
    for values in (three.trials.figures([key_of(1)])[key_of(1)], three.trials.reports(key_of(1))[0].values):
        assert math.isnan(values["nan"])
        assert {name: values[name] for name in odd if name != "nan"} == {
            name: value for name, value in odd.items() if name != "nan"
        }
    assert three.trials.reports(key_of(1))[0].seconds == math.inf
    assert math.isnan(three.trials.snapshots([key_of(1)])[key_of(1)].figures["top1"])
    assert three.trials.get(key_of(1)).facts == {"worst": math.inf, "none": None}
    nan, minus = (row.value for row in three.trials.placed(JOB.id)[:2])
    assert nan is not None
    assert math.isnan(nan)
    assert minus == -math.inf
    three.choices.record(JOB.id, ChoiceRow("final", "g", key_of(1), math.nan, "top1"))
    assert math.isnan(three.choices.of(JOB.id)[0].value)


def test_text_of_any_script_comes_back(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    message = "données; DROP TABLE trials; -- 图像 🦊 \" ' \\ %s :x"
    three.trials.commit("d1", [Failed(key_of(1), token, "data", message)])
    assert three.trials.snapshots([key_of(1)])[key_of(1)].error == message


# Leases


def test_claim_takes_only_what_is_free(three: Store) -> None:
    three.leases.register(elsewhere("d2"))
    assert three.leases.claim("d1", [key_of(1), key_of(2), "unknown"]) == {key_of(1): 1, key_of(2): 1}
    assert three.leases.claim("d2", [key_of(1), key_of(2), key_of(3)]) == {key_of(3): 1}
    assert three.leases.claim("d1", [key_of(1)]) == {}
    assert [(r.key, r.token, r.driver_id, r.alive) for r in three.leases.running("cluster")] == [
        (key_of(1), 1, "d1", True), (key_of(2), 1, "d1", True), (key_of(3), 1, "d2", True)
    ]  # fmt: skip
    assert three.leases.running("other cluster") == []
    assert three.leases.claim("d1", []) == {}


def test_claim_needs_a_live_lease(three: Store) -> None:
    with pytest.raises(LeaseLost, match="register"):
        three.leases.claim("stranger", [key_of(1)])
    three.leases.register(elsewhere("late"), ttl_s=-1)
    with pytest.raises(LeaseLost, match="register"):
        three.leases.claim("late", [key_of(1)])
    with pytest.raises(LeaseLost, match="register"):
        three.leases.adopt("late", key_of(1), 1)
    with pytest.raises(LeaseLost, match="register"):
        three.leases.heartbeat("stranger", 0, 0)


def test_a_lease_that_ran_out_frees_its_trials(three: Store) -> None:
    three.leases.claim("d1", [key_of(1)])
    three.leases.register(elsewhere("d2"))
    three.leases.heartbeat("d1", 5, 1, ttl_s=-1)
    assert [driver.id for driver in three.leases.drivers()] == ["d2"]
    assert three.leases.claim("d2", [key_of(1)]) == {key_of(1): 2}
    first, second = three.trials.attempts(key_of(1))
    assert (first.token, first.cause, first.driver_id) == (1, "driver_lost", "d1")
    assert first.ended is not None
    assert (second.token, second.cause, second.driver_id, second.cluster) == (2, None, "d2", "cluster")


def test_a_driver_of_this_host_is_dead_when_its_process_is(three: Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    import psutil

    started = psutil.Process(process.pid).create_time()
    three.leases.register(DriverRow("child", this_host(), process.pid, started, JOB.id, "cluster"))
    three.leases.register(DriverRow("reused", this_host(), process.pid, started - 100, JOB.id, "cluster"))
    three.leases.register(driver_here("me", JOB.id, "cluster"))
    assert [driver.id for driver in three.leases.drivers()] == ["child", "d1", "me"]
    three.leases.claim("child", [key_of(1)])
    process.kill()
    deadline = time.monotonic() + 20
    while "child" in [driver.id for driver in three.leases.drivers()]:  # a zombie counts as gone: not waited for yet
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert three.leases.claim("me", [key_of(1)]) == {key_of(1): 2}
    process.wait()


def test_heartbeat_says_who_is_alive_and_what_they_want(three: Store) -> None:
    three.leases.register(replace(elsewhere("d2"), priority=7, slots=4))
    three.leases.heartbeat("d1", demand=9, running=2)
    first, second = three.leases.heartbeat("d2", demand=3, running=1)
    assert (first.id, first.demand, first.running) == ("d1", 9, 2)
    assert (second.id, second.demand, second.running, second.priority, second.slots) == ("d2", 3, 1, 7, 4)


def test_adopt_goes_on_under_the_same_token(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    three.leases.register(elsewhere("d2"))
    assert three.leases.adopt("d2", key_of(1), token) is False  # d1 lives
    assert three.leases.adopt("d1", key_of(1), token) is True  # its own already
    three.leases.unregister("d1")
    assert three.leases.adopt("d2", key_of(1), token + 1) is False
    assert three.leases.adopt("d2", key_of(2), 0) is False  # not running
    assert three.leases.adopt("d2", key_of(1), token) is True
    assert [(a.token, a.driver_id, a.cause) for a in three.trials.attempts(key_of(1))] == [(token, "d2", None)]
    with pytest.raises(LeaseLost):
        three.trials.commit("d1", [Reported(key_of(1), token, 1, 1, {}, 1.0)])
    three.trials.commit("d2", [Reported(key_of(1), token, 1, 1, {}, 1.0), Finished(key_of(1), token, {"top1": 1.0})])
    assert three.leases.adopt("d2", key_of(1), token) is False  # ended


@pytest.mark.parametrize("kind", ["reported", "finished", "failed", "released"])
def test_a_stale_token_is_refused_and_nothing_of_the_batch_stays(three: Store, kind: str) -> None:
    stale = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    good = three.leases.claim("d1", [key_of(2)])[key_of(2)]
    three.trials.commit("d1", [Released(key_of(1), stale, "preempted")])
    assert three.leases.claim("d1", [key_of(1)]) == {key_of(1): stale + 1}
    write = {
        "reported": Reported(key_of(1), stale, 1, 1, {}, 1.0),
        "finished": Finished(key_of(1), stale, {"top1": 1.0}),
        "failed": Failed(key_of(1), stale, "code", "x"),
        "released": Released(key_of(1), stale, "x"),
    }[kind]
    with pytest.raises(LeaseLost, match=key_of(1)[:12]):
        three.trials.commit("d1", [Finished(key_of(2), good, {"top1": 1.0}), write])
    assert three.trials.snapshots([key_of(2)])[key_of(2)].state == TrialState.running
    assert three.trials.figures([key_of(2)]) == {}
    assert three.trials.snapshots([key_of(1)])[key_of(1)].state == TrialState.running


def test_writes_of_an_unknown_or_foreign_trial_are_refused(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    with pytest.raises(LeaseLost, match="not in this store"):
        three.trials.commit("d1", [Released("f" * 64, 1, "x")])
    with pytest.raises(LeaseLost, match="driver d1"):
        three.trials.commit("d2", [Released(key_of(1), token, "x")])
    with pytest.raises(LeaseLost, match="is pending"):
        three.trials.commit("d1", [Reported(key_of(2), 0, 1, 1, {}, 1.0)])


def test_the_database_itself_refuses_a_second_open_attempt(three: Store, database_url: str) -> None:
    three.leases.claim("d1", [key_of(1)])
    driver = "postgresql+psycopg" if database_url.startswith("postgresql") else "sqlite"
    engine = sa.create_engine(sa.make_url(database_url).set(drivername=driver))
    add = (
        "INSERT INTO attempts (trial_id, token, driver_id, cluster, host, started) "
        "SELECT id, {}, 'x', 'x', 'x', 0 FROM trials WHERE key = '{}'"
    )
    for token in (1, 2):  # the same token, a second open one
        with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
            connection.exec_driver_sql(add.format(token, key_of(1)))
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trials SET state = 'lost'")
    engine.dispose()


# What trials say


def test_reports_are_upserted_by_epoch(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    batch = [Reported(key_of(1), token, epoch, 10 * epoch, {"loss": 1 / epoch}, 0.5) for epoch in (1, 2, 3)]
    three.trials.commit("d1", batch)
    three.trials.commit("d1", [*batch[1:], Reported(key_of(1), token, 3, 30, {"loss": 9.0}, 0.25)])
    assert three.trials.reports(key_of(1)) == [
        ReportRow(1, 10, {"loss": 1.0}, 0.5),
        ReportRow(2, 20, {"loss": 0.5}, 0.5),
        ReportRow(3, 30, {"loss": 9.0}, 0.25),
    ]
    known = three.trials.snapshots([key_of(1)])[key_of(1)]
    assert (known.state, known.epoch, known.epochs) == (TrialState.running, 3, 10)
    since = three.trials.reports_since({key_of(1): 2, key_of(2): 0})
    assert {key: [row.epoch for row in rows] for key, rows in since.items()} == {key_of(1): [3]}


def test_finished_is_recorded_once_with_everything_said(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    facts = {
        "host": "node7", "device": "NVIDIA H100", "data_digest": "d1935t", "versions": {"torch": "2.14"},
        "step_seconds": 0.25, "train_seconds": 30.0, "notes": ["micro-batch halved"],
    }  # fmt: skip
    three.trials.commit("d1", [Finished(key_of(1), token, {"top1": 0.9, "top5": 0.99}, facts)])
    three.trials.commit("d1", [Finished(key_of(1), token, {"top1": 0.1, "new": 1.0}, {}, ("w.safetensors", "5ha"))])
    row = three.trials.get(key_of(1))
    assert (row.state, row.value, row.figures) == (TrialState.done, 0.9, {"top1": 0.9, "top5": 0.99})
    assert (row.weights, row.facts, row.versions) == (("w.safetensors", "5ha"), facts, {"torch": "2.14"})
    assert (row.host, row.device, row.data_digest) == ("node7", "NVIDIA H100", "d1935t")
    assert (row.git_commit, row.git_dirty, row.seed, row.spec["seed"]) == ("c0ffee", True, 7, 7)
    assert row.created <= (row.started or 0) <= (row.ended or 0)
    known = three.trials.snapshots([key_of(1)])[key_of(1)]
    assert (known.weights, known.step_seconds, known.train_seconds) == (("w.safetensors", "5ha"), 0.25, 30.0)
    assert known.facts == facts
    assert [(a.token, a.cause) for a in three.trials.attempts(key_of(1))] == [(1, "done")]
    assert three.leases.claim("d1", [key_of(1)]) == {}


def test_a_done_trial_runs_once_more_for_its_weights_and_keeps_its_figures(three: Store) -> None:
    facts = {"step_seconds": 0.5}
    three.leases.claim("d1", [key_of(1), key_of(2)])
    three.trials.commit("d1", [Finished(key_of(1), 1, {"top1": 0.5}, facts)])
    three.trials.commit("d1", [Finished(key_of(2), 1, {"top1": 0.5}, facts, ("kept", "5ha"))])
    assert three.leases.claim("d1", [key_of(1), key_of(2)]) == {}
    assert three.leases.claim("d1", [key_of(1), key_of(2)], for_weights=True) == {key_of(1): 2}
    row = three.trials.placed(JOB.id)[0]
    assert (row.state, row.value) == (TrialState.running, None)
    for _ in range(2):
        three.trials.commit("d1", [Released(key_of(1), 2, "stopped")])
    assert three.trials.placed(JOB.id)[0].state == TrialState.done
    assert three.leases.claim("d1", [key_of(1)]) == {}
    assert three.leases.claim("d1", [key_of(1)], for_weights=True) == {key_of(1): 3}
    three.trials.commit("d1", [Finished(key_of(1), 3, {"top1": 0.4, "new": 1.0}, {}, ("again", "5ha"))])
    row = three.trials.placed(JOB.id)[0]
    assert (row.state, row.value) == (TrialState.done, 0.5)
    known = three.trials.snapshots([key_of(1)])[key_of(1)]
    assert (known.figures, known.facts, known.weights) == ({"top1": 0.5}, facts, ("again", "5ha"))
    assert [a.cause for a in three.trials.attempts(key_of(1))] == ["done", "stopped", "done"]


@pytest.mark.parametrize(
    ("error_class", "state"),
    [("diverged", "diverged"), ("cancelled", "cancelled"), ("code", "failed"), ("out_of_memory", "failed")],
)
def test_failed_says_why(three: Store, error_class: str, state: str) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    three.trials.commit("d1", [Failed(key_of(1), token, error_class, "the reason")])
    known = three.trials.snapshots([key_of(1)])[key_of(1)]
    assert (known.state, known.error_class, known.error) == (state, error_class, "the reason")
    row = three.trials.placed(JOB.id)[0]
    assert (row.value, row.error_class, row.error) == (None, error_class, "the reason")
    attempt = three.trials.attempts(key_of(1))[0]
    assert (attempt.cause, attempt.message) == (error_class, "the reason")
    assert three.leases.claim("d1", [key_of(1)]) == {}


def test_failed_with_retry_is_pending_again(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    three.trials.commit("d1", [Reported(key_of(1), token, 4, 40, {}, 1.0)])
    three.trials.commit("d1", [Failed(key_of(1), token, "node_lost", "node 3 is gone", retry=True)])
    known = three.trials.snapshots([key_of(1)])[key_of(1)]
    assert (known.state, known.error_class, known.epoch) == (TrialState.pending, None, 4)
    assert three.leases.claim("d1", [key_of(1)]) == {key_of(1): 2}
    assert [(a.token, a.cause) for a in three.trials.attempts(key_of(1))] == [(1, "node_lost"), (2, None)]


def test_saying_again_what_was_recorded_is_no_error(three: Store) -> None:
    tokens = three.leases.claim("d1", [key_of(number) for number in (1, 2, 3)])
    batch = [
        Reported(key_of(1), tokens[key_of(1)], 1, 10, {"loss": 1.0}, 1.0),
        Finished(key_of(1), tokens[key_of(1)], {"top1": 0.5}),
        Failed(key_of(2), tokens[key_of(2)], "code", "x"),
        Released(key_of(3), tokens[key_of(3)], "stopped"),
    ]
    three.trials.commit("d1", batch)
    before = [three.trials.get(key_of(number)) for number in (1, 2, 3)]
    three.trials.commit("d1", batch)
    three.leases.register(elsewhere("d2"))
    three.trials.commit("d2", batch)  # the next driver hears it again from the actors
    assert [three.trials.get(key_of(number)) for number in (1, 2, 3)] == before
    with pytest.raises(LeaseLost, match="is failed already; a late Finished"):
        three.trials.commit("d1", [Finished(key_of(2), tokens[key_of(2)], {"top1": 0.5})])
    with pytest.raises(LeaseLost, match="is done already; a late Failed"):
        three.trials.commit("d1", [Failed(key_of(1), tokens[key_of(1)], "code", "x")])


def test_the_same_news_twice_in_one_batch_is_recorded_once(three: Store) -> None:
    three.leases.claim("d1", [key_of(1), key_of(2)])
    finished, failed = Finished(key_of(1), 1, {"top1": 0.5}), Failed(key_of(2), 1, "code", "first")
    report = Reported(key_of(1), 1, 1, 10, {"loss": 1.0}, 1.0)
    kept = replace(finished, weights=("w", "5ha"))
    three.trials.commit("d1", [report, finished, report, finished, failed, replace(failed, message="second"), kept])
    assert three.trials.snapshots([key_of(1)])[key_of(1)].weights == ("w", "5ha")
    assert three.trials.figures([key_of(1)]) == {key_of(1): {"top1": 0.5}}
    assert three.trials.snapshots([key_of(2)])[key_of(2)].error == "first"
    assert len(three.trials.reports(key_of(1))) == 1


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


def test_a_winner_is_decided_once(three: Store) -> None:
    edges, rule = [Edge("optim.lr", "low", False, 1.25e-4, 1.25e-4)], {"mode": "max", "ties": []}
    winner = ChoiceRow("final", "digits/RAND", key_of(1), 0.5, "top1", edges, rule, 15, ["grid"])
    three.choices.record(JOB.id, winner)
    three.choices.record(JOB.id, winner)
    assert three.choices.of(JOB.id) == [winner]
    with pytest.raises(Conflict, match=f"{key_of(1)[:12]} for digits/RAND, not {key_of(2)[:12]}"):
        three.choices.record(JOB.id, replace(winner, key=key_of(2)))
    assert three.choices.of(JOB.id) == [winner]


@pytest.mark.parametrize(
    ("sentence", "edge"),
    [
        ("optim.lr at the high edge (0.0025)", Edge("optim.lr", "high", False, 2.5e-3, 2.5e-3)),
        ("optim.lr beyond the low edge (7e-05 below 0.0001)", Edge("optim.lr", "low", True, 7e-5, 1e-4)),
        ("optim.lr beyond the high edge (0.0035 above 0.0025)", Edge("optim.lr", "high", True, 3.5e-3, 2.5e-3)),
        ("optim.lr at the high edge (0.009, its range ends at 0.01)", Edge("optim.lr", "high", False, 9e-3, 1e-2)),
        ("optim.batch beyond the high edge (80, its range ends at 64)", Edge("optim.batch", "high", True, 80, 64)),
        ("optim.shift beyond the low edge (-2, its range ends at -1)", Edge("optim.shift", "low", True, -2, -1)),
    ],
)
def test_edges_that_earlier_versions_recorded_as_sentences_are_read(
    three: Store, database_url: str, sentence: str, edge: Edge
) -> None:
    three.choices.record(JOB.id, ChoiceRow("final", "digits/RAND", key_of(1), 0.5, "top1"))
    driver = "postgresql+psycopg" if database_url.startswith("postgresql") else "sqlite"
    engine = sa.create_engine(sa.make_url(database_url).set(drivername=driver))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE winners SET edges_json = :text"), {"text": json.dumps([sentence])})
    engine.dispose()
    assert [choice.edges for choice in three.choices.of(JOB.id)] == [[edge]]
    assert three.lineage.chosen(key_of(1))[0][1].edges == [edge]


# Several at once


def test_two_drivers_that_claim_the_same_trials_get_disjoint_sets(store: Store, database_url: str) -> None:
    store.jobs.put(JOB)
    keys = [key_of(number) for number in range(1, 121)]
    store.trials.place(JOB.id, [placement(number) for number in range(1, 121)])
    taken: dict[str, dict[str, int]] = {}
    gate = threading.Barrier(4)

    def drive(name: str, order: list[str]) -> None:
        own = open_store(database_url)
        own.leases.register(elsewhere(name))
        mine: dict[str, int] = {}
        gate.wait()
        for start in range(0, len(order), 7):
            got = own.leases.claim(name, order[start : start + 7])
            own.trials.commit(name, [Finished(key, token, {"top1": 1.0}) for key, token in got.items()])
            assert not mine.keys() & got.keys()
            mine |= got
        taken[name] = mine
        own.close()

    orders = [keys, keys, keys[::-1], keys[60:] + keys[:60]]
    threads = [threading.Thread(target=drive, args=(f"d{n}", order)) for n, order in enumerate(orders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key for mine in taken.values() for key in mine) == sorted(keys)
    assert {row.state for row in store.trials.placed(JOB.id)} == {TrialState.done}
    assert all(len(store.trials.attempts(key)) == 1 for key in keys[:10])


def test_two_drivers_that_place_the_same_trials_make_each_once(store: Store, database_url: str) -> None:
    jobs = ["first", "second"]
    for job in jobs:
        store.jobs.put(replace(JOB, id=job))
    failures: list[BaseException] = []

    def submit(job: str, numbers: list[int]) -> None:
        own = open_store(database_url)
        try:
            for start in range(0, 100, 10):
                own.trials.place(job, [placement(number) for number in numbers[start : start + 20]])
        except BaseException as error:
            failures.append(error)
        own.close()

    forwards = list(range(1, 101))
    orders = zip(jobs, (forwards, forwards[::-1]), strict=True)
    threads = [threading.Thread(target=submit, args=pair) for pair in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [len(store.trials.placed(job)) for job in jobs] == [100, 100]
    assert store.trials.snapshots([key_of(1)])[key_of(1)].state == TrialState.pending


def test_a_first_open_by_several_at_once(database_url: str) -> None:
    failures: list[BaseException] = []

    def use() -> None:
        try:
            own = open_store(database_url)
            own.jobs.put(JOB)
            own.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


KILLED_INSIDE = """
import sys, time
from orchestrator.records.writes import *
from orchestrator.store.leases import *
from orchestrator.store.store import *
class Slow(dict):
    def items(self):
        print("inside", flush=True)
        time.sleep(60)
store = open_store(sys.argv[1])
store.leases.register(driver_here("child", {job!r}, "cluster"))
token = store.leases.claim("child", [{key!r}])[{key!r}]
store.trials.commit("child", [Reported({key!r}, token, 1, 1, {{}}, 1.0), Finished({key!r}, token, Slow(top1=0.5))])
"""


def test_sigkill_inside_a_transaction_leaves_nothing_of_it(three: Store, database_url: str) -> None:
    script = KILLED_INSIDE.format(job=JOB.id, key=key_of(1))
    child = subprocess.Popen([sys.executable, "-c", script, database_url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "inside\n"  # the trial's row says done, its figures are not there yet
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    known = three.trials.snapshots([key_of(1)])[key_of(1)]
    assert (known.state, known.epoch, known.figures) == (TrialState.running, 0, {})
    assert three.trials.reports(key_of(1)) == []
    assert three.leases.claim("d1", [key_of(1)]) == {key_of(1): 2}
    three.trials.commit("d1", [Finished(key_of(1), 2, {"top1": 0.5})])
    assert [a.cause for a in three.trials.attempts(key_of(1))] == ["driver_lost", "done"]


KILLED_ANYWHERE = """
import itertools, sys
from orchestrator.records.writes import *
from orchestrator.store.leases import *
from orchestrator.store.store import *
store = open_store(sys.argv[1])
store.leases.register(driver_here("child", {job!r}, "cluster"))
token = store.leases.claim("child", [{key!r}])[{key!r}]
for epoch in itertools.count(1):
    store.trials.commit("child", [Reported({key!r}, token, epoch, epoch, {{"loss": 1.0}}, 1.0)])
    print(epoch, flush=True)
"""


def test_what_was_acknowledged_before_a_sigkill_is_there(three: Store, database_url: str) -> None:
    script = KILLED_ANYWHERE.format(job=JOB.id, key=key_of(1))
    child = subprocess.Popen([sys.executable, "-c", script, database_url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(50):
        child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    said = 50 + len(child.stdout.readlines())
    child.wait()
    child.stdout.close()
    epochs = [row.epoch for row in three.trials.reports(key_of(1))]
    assert epochs == list(range(1, len(epochs) + 1))
    assert said <= len(epochs) <= said + 1
    assert three.trials.snapshots([key_of(1)])[key_of(1)].epoch == len(epochs)


# Searches

AT = ("search", "digits/RAND")


def asked(number: int, key: str) -> SearchEvent:
    return SearchEvent(number, "asked", key, {"point": {"optim.lr": 1e-3 * number}})


def test_a_stopped_trial_can_be_claimed_and_run_in_full(three: Store) -> None:
    tokens = three.leases.claim("d1", [key_of(1), key_of(2)])
    left = StoppedEarly(key_of(1), tokens[key_of(1)], "stopped by the search")
    three.trials.commit("d1", [Reported(key_of(1), tokens[key_of(1)], 2, 20, {"top1": 0.5}, 1.0), left])
    three.trials.commit("d1", [left])  # said again: its acknowledgement was lost
    row = three.trials.get(key_of(1))
    assert (row.state, row.epoch, row.error, row.value) == (TrialState.stopped, 2, "stopped by the search", None)
    assert [attempt.cause for attempt in three.trials.attempts(key_of(1))] == ["stopped"]
    assert three.jobs.all()[0].counts[TrialState.stopped] == 1
    with pytest.raises(LeaseLost, match="stopped already"):
        three.trials.commit("d1", [Finished(key_of(1), tokens[key_of(1)], {"top1": 0.9})])
    assert three.jobs.retry(JOB.id) == 0
    again = three.leases.claim("d1", [key_of(1)])
    assert again == {key_of(1): tokens[key_of(1)] + 1}
    three.trials.commit("d1", [Finished(key_of(1), again[key_of(1)], {"top1": 0.9})])
    assert (three.trials.get(key_of(1)).state, three.trials.get(key_of(1)).error) == (TrialState.done, None)


def test_only_what_nobody_runs_is_marked_as_stopped(three: Store) -> None:
    three.leases.register(elsewhere("d2"), ttl_s=0.2)
    mine, lost = three.leases.claim("d1", [key_of(1)]), three.leases.claim("d2", [key_of(2)])
    time.sleep(0.3)
    three.search_log.mark_stopped(dict.fromkeys([key_of(1), key_of(2), key_of(3)], "given up"))
    assert [three.trials.get(key_of(n)).state for n in (1, 2, 3)] == [
        TrialState.running, TrialState.stopped, TrialState.stopped,
    ]  # fmt: skip
    assert [attempt.cause for attempt in three.trials.attempts(key_of(2))] == ["driver_lost"]
    assert three.trials.get(key_of(3)).error == "given up"
    with pytest.raises(LeaseLost):
        three.trials.commit("d2", [Finished(key_of(2), lost[key_of(2)], {"top1": 0.9})])
    three.trials.commit("d1", [Finished(key_of(1), mine[key_of(1)], {"top1": 0.9})])


def test_events_of_a_search_come_with_their_trials_or_not_at_all(three: Store) -> None:
    events = [(AT, asked(0, key_of(4))), (AT, asked(1, key_of(5))), (("search", "faces/RAND"), asked(0, key_of(4)))]
    known = three.trials.place(JOB.id, [placement(5, "search"), placement(4, "search")], events)
    assert list(known) == [key_of(5), key_of(4)]
    three.trials.place(JOB.id, [], [(AT, SearchEvent(2, "told", key_of(4), {"value": None}))])
    found = three.search_log.events(JOB.id)
    assert [event.number for event in found[AT]] == [0, 1, 2]
    assert found[AT][1] == asked(1, key_of(5))
    assert found[AT][2].body == {"value": None}
    assert len(found["search", "faces/RAND"]) == 1
    with pytest.raises(Conflict, match="another process"):
        three.trials.place(JOB.id, [placement(6, "search")], [(AT, asked(3, key_of(6))), (AT, asked(2, key_of(6)))])
    assert three.search_log.events(JOB.id) == found
    with pytest.raises(NotFound):
        three.trials.get(key_of(6))
    assert three.search_log.events("another job") == {}
