"""Drivers, their leases, and the trials they claim or adopt."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa
from stored_job import JOB, elsewhere, key_of

from orchestrator.errors import LeaseLost
from orchestrator.records.rows import DriverRow, Running
from orchestrator.records.states import TrialState
from orchestrator.records.writes import Failed, Finished, Released, Reported
from orchestrator.store.leases import DELETE_AFTER_SECONDS, driver_here, this_host
from orchestrator.store.store import Store


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


def test_an_attempt_says_who_began_it_where_and_with_what_code(three: Store) -> None:
    three.jobs.put(replace(JOB, id="other", git_commit="f00d", git_dirty=False))
    three.leases.register(DriverRow("d2", "host 2", 7, 0.0, "other", "cluster 2"))
    three.leases.claim("d1", [key_of(1)])
    three.leases.claim("d2", [key_of(2), key_of(3)])
    for number, expected in (
        (1, ("d1", "cluster", "another-host", "c0ffee", True)),
        (2, ("d2", "cluster 2", "host 2", "f00d", False)),
    ):
        (attempt,) = three.trials.attempts(key_of(number))
        said = attempt.driver_id, attempt.cluster, attempt.host, attempt.git_commit, attempt.git_dirty
        assert said == expected
        assert (attempt.token, attempt.ended, attempt.cause, attempt.message) == (1, None, None, None)
        row = three.trials.get(key_of(number))
        assert (row.driver_id, row.git_commit, row.git_dirty, row.started) == (
            expected[0], expected[3], expected[4], attempt.started,
        )  # fmt: skip
    three.leases.unregister("d2")
    running = three.leases.running()
    assert [(each.key, each.alive) for each in running] == [(key_of(1), True), (key_of(2), False), (key_of(3), False)]
    assert three.leases.running("cluster 2") == running[1:]


def test_a_driver_is_forgotten_a_day_after_its_lease_ran_out(three: Store) -> None:
    """Until then one that was only late goes on."""
    three.leases.register(elsewhere("late"), ttl_s=60 - DELETE_AFTER_SECONDS)
    three.leases.register(elsewhere("old"), ttl_s=-60 - DELETE_AFTER_SECONDS)
    three.leases.register(elsewhere("d2"))
    assert [driver.id for driver in three.leases.heartbeat("late", 0, 0)] == ["d1", "d2", "late"]
    with pytest.raises(LeaseLost, match="driver old is not registered any more: register it again"):
        three.leases.heartbeat("old", 0, 0)


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
    deadline = time.monotonic() + 60
    while "child" in [driver.id for driver in three.leases.drivers()]:  # a zombie counts as gone
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
    assert three.leases.adopt("d2", key_of(1), token) is False  # d1 is alive
    assert three.leases.adopt("d1", key_of(1), token) is True  # its own already
    three.leases.unregister("d1")
    assert three.leases.adopt("d2", key_of(1), token + 1) is False
    assert three.leases.adopt("d2", key_of(2), 0) is False  # not running
    assert three.leases.adopt("d2", key_of(1), token) is True
    assert [(a.token, a.driver_id, a.cause) for a in three.trials.attempts(key_of(1))] == [(token, "d2", None)]
    with pytest.raises(LeaseLost, match=key_of(1)[:8]):
        three.trials.commit("d1", [Reported(key_of(1), token, 1, 1, {}, 1.0)])
    three.trials.commit("d2", [Reported(key_of(1), token, 1, 1, {}, 1.0), Finished(key_of(1), token, {"top1": 1.0})])
    assert three.leases.adopt("d2", key_of(1), token) is False  # ended


def test_a_trial_that_was_making_its_weights_when_its_driver_died_is_done(three: Store) -> None:
    """Who needs its figures alone does not run it again; who needs its weights does."""
    three.leases.claim("d1", [key_of(1), key_of(2)])
    three.trials.commit("d1", [Finished(key_of(1), 1, {"top1": 0.5})])
    three.leases.claim("d1", [key_of(1)], for_weights=True)
    three.leases.unregister("d1")
    three.leases.register(elsewhere("d2"))
    assert three.leases.claim("d2", [key_of(1), key_of(2)]) == {key_of(2): 2}
    snapshot = three.trials.snapshots([key_of(1)])[key_of(1)]
    assert (snapshot.state, snapshot.figures) == (TrialState.done, {"top1": 0.5})
    assert [attempt.cause for attempt in three.trials.attempts(key_of(1))] == ["done", "driver_lost"]
    assert three.leases.running() == [Running(key_of(2), 2, "d2", True, "cluster")]
    assert three.leases.claim("d2", [key_of(1)], for_weights=True) == {key_of(1): 3}


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
    for token in (1, 2):  # the same token, then a second open attempt
        with pytest.raises(sa.exc.IntegrityError, match=r"(?i)unique"), engine.begin() as connection:
            connection.exec_driver_sql(add.format(token, key_of(1)))
    with pytest.raises(sa.exc.IntegrityError, match=r"(?i)check"), engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trials SET state = 'lost'")
    engine.dispose()
