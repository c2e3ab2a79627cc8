"""What a driver that lost a trial, or is late, may still write: nothing of another's attempt is changed."""

from __future__ import annotations

import math
import sqlite3
import threading

import pytest
from stored_job import JOB, elsewhere, key_of

from orchestrator.errors import LeaseLost
from orchestrator.records.states import TrialState
from orchestrator.records.writes import Failed, Finished, Released
from orchestrator.store import trial_events
from orchestrator.store.leases import close_attempt
from orchestrator.store.store import Store, open_store


def test_a_driver_that_registers_again_is_alive_again(three: Store) -> None:
    three.leases.register(elsewhere("d2"), ttl_s=-1)
    assert [driver.id for driver in three.leases.drivers()] == ["d1"]
    three.leases.register(elsewhere("d2"))
    assert [driver.id for driver in three.leases.drivers()] == ["d1", "d2"]
    assert three.leases.claim("d2", [key_of(1)]) == {key_of(1): 1}


def test_the_first_end_of_an_attempt_stays(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    three.trials.commit("d1", [Released(key_of(1), token, "preempted")])
    first = three.trials.attempts(key_of(1))[0]
    assert (first.cause, first.message) == ("preempted", "")
    row_id = three._db.read(lambda connection: connection.exec_driver_sql("SELECT min(id) FROM trials").scalar_one())
    three._db.write(lambda connection: close_attempt(connection, row_id, token, 9e9, "code", "later") or 0)
    assert three.trials.attempts(key_of(1)) == [first]


def test_adopting_changes_the_newest_attempt_alone(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    three.trials.commit("d1", [Released(key_of(1), token, "preempted")])
    three.leases.register(elsewhere("d2"))
    assert three.leases.claim("d2", [key_of(1)]) == {key_of(1): token + 1}
    three.leases.unregister("d2")
    three.leases.register(elsewhere("d3"))
    assert three.leases.adopt("d3", key_of(1), token + 1)
    assert [(a.token, a.driver_id) for a in three.trials.attempts(key_of(1))] == [(1, "d1"), (2, "d3")]


def test_a_result_without_its_metric_is_no_number(three: Store) -> None:
    """Zero would win where the lowest loss is chosen."""
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    three.trials.commit("d1", [Finished(key_of(1), token, {"loss": 0.5})])
    value = three.trials.get(key_of(1)).value
    assert value is not None
    assert math.isnan(value)
    assert math.isnan(three.trials.placed(JOB.id)[0].value or 0.0)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_trial_cannot_be_taken_over_between_check_and_write(
    three: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver is late: its lease runs out while it commits. Either its result is recorded, or another has the trial;
    never both."""
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    other = open_store(database_url)
    taken: list[dict[str, int]] = []
    record = trial_events.record_reports

    def take_over_first(*arguments: object) -> None:
        other.leases.unregister("d1")
        other.leases.register(elsewhere("d2"))
        taken.append(other.leases.claim("d2", [key_of(1)]))
        record(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(trial_events, "record_reports", take_over_first)
    three.trials.commit("d1", [Finished(key_of(1), token, {"top1": 0.5})])
    assert taken == [{}]  # skipped, not waited for
    assert three.trials.snapshots([key_of(1)])[key_of(1)].state is TrialState.done
    assert [(a.token, a.driver_id, a.cause) for a in three.trials.attempts(key_of(1))] == [(1, "d1", "done")]
    other.close()


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_commit_waits_for_a_take_over_and_is_then_refused(three: Store, database_url: str) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    other = open_store(database_url)
    refused: list[BaseException] = []
    begun, ended = threading.Event(), threading.Event()

    def commit() -> None:
        begun.wait(60)
        try:
            other.trials.commit("d1", [Failed(key_of(1), token, "code", "late")])
        except LeaseLost as error:
            refused.append(error)
        ended.set()

    thread = threading.Thread(target=commit)
    thread.start()
    three.leases.unregister("d1")
    three.leases.register(elsewhere("d2"))

    def take_over(connection: object) -> None:
        three.leases._claim(connection, "d2", [key_of(1)], False)  # type: ignore[arg-type]
        begun.set()
        assert not ended.wait(0.5)  # it waits for this transaction

    three._db.write(take_over)
    thread.join(60)
    assert [str(error).partition(":")[0] for error in refused] == [f"trial {key_of(1)[:12]} was taken over"]
    assert three.trials.snapshots([key_of(1)])[key_of(1)].state is TrialState.running
    other.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_on_sqlite_a_write_holds_the_file_before_its_first_read(three: Store, database_url: str) -> None:
    other = sqlite3.connect(database_url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)

    def work(connection: object) -> None:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")

    three._db.write(work)
    other.execute("BEGIN IMMEDIATE")
    other.close()
