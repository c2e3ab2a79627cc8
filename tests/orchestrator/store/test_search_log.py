"""The events of searches in the store."""

from __future__ import annotations

import time

import pytest
from stored_job import JOB, elsewhere, key_of, placement

from orchestrator.errors import Conflict, LeaseLost, NotFound
from orchestrator.records.rows import SearchEvent
from orchestrator.records.states import TrialState
from orchestrator.records.writes import Finished, Reported, StoppedEarly
from orchestrator.store.store import Store

AT = ("search", "digits/RAND")


def asked(number: int, key: str) -> SearchEvent:
    return SearchEvent(number, "asked", key, {"point": {"optim.lr": 1e-3 * number}})


def test_a_stopped_trial_can_be_claimed_and_run_in_full(three: Store) -> None:
    tokens = three.leases.claim("d1", [key_of(1), key_of(2)])
    stopped = StoppedEarly(key_of(1), tokens[key_of(1)], "stopped by the search")
    three.trials.commit("d1", [Reported(key_of(1), tokens[key_of(1)], 2, 20, {"top1": 0.5}, 1.0), stopped])
    three.trials.commit("d1", [stopped])  # sent again: its acknowledgement was lost
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
    held, lost = three.leases.claim("d1", [key_of(1)]), three.leases.claim("d2", [key_of(2)])
    time.sleep(0.3)
    three.search_log.mark_stopped(dict.fromkeys([key_of(1), key_of(2), key_of(3)], "given up"))
    assert [three.trials.get(key_of(n)).state for n in (1, 2, 3)] == [
        TrialState.running, TrialState.stopped, TrialState.stopped,
    ]  # fmt: skip
    assert [attempt.cause for attempt in three.trials.attempts(key_of(2))] == ["driver_lost"]
    ended = three.trials.get(key_of(3))
    assert (ended.error_class, ended.error) == ("stopped", "given up")
    assert (ended.ended or 0) > ended.created
    with pytest.raises(LeaseLost, match=key_of(2)[:8]):
        three.trials.commit("d2", [Finished(key_of(2), lost[key_of(2)], {"top1": 0.9})])
    three.trials.commit("d1", [Finished(key_of(1), held[key_of(1)], {"top1": 0.9})])


def test_events_of_a_search_come_with_their_trials_or_not_at_all(three: Store) -> None:
    events = [(AT, asked(0, key_of(4))), (AT, asked(1, key_of(5))), (("search", "faces/RAND"), asked(0, key_of(4)))]
    snapshots = three.trials.place(JOB.id, [placement(5, "search"), placement(4, "search")], events)
    assert list(snapshots) == [key_of(5), key_of(4)]
    three.trials.place(JOB.id, [], [(AT, SearchEvent(2, "told", key_of(4), {"value": None}))])
    recorded = three.search_log.events(JOB.id)
    assert [event.number for event in recorded[AT]] == [0, 1, 2]
    assert recorded[AT][1] == asked(1, key_of(5))
    assert recorded[AT][2].body == {"value": None}
    assert len(recorded["search", "faces/RAND"]) == 1
    with pytest.raises(Conflict, match="another process"):
        three.trials.place(JOB.id, [placement(6, "search")], [(AT, asked(3, key_of(6))), (AT, asked(2, key_of(6)))])
    assert three.search_log.events(JOB.id) == recorded
    with pytest.raises(NotFound, match=f"no trial {key_of(6)[:12]} in this store"):
        three.trials.get(key_of(6))
    assert three.search_log.events("another job") == {}
