"""Initial weights from a stage of another job are refused while one of its trials has no result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from stored_job import JOB, elsewhere, key_of, placement

from orchestrator.errors import NotFound
from orchestrator.launch import other_jobs
from orchestrator.records.rows import SearchEvent
from orchestrator.records.writes import Finished
from orchestrator.store.store import Store, open_store

INIT = {"kind": "stage", "name": "best", "job": JOB.id, "stage": "grid"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A job whose first trial is done, and whose second one was stopped by a search."""
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    spec = {"name": "k12-grid", "stages": [{"name": "grid", "sweep": {}, "override": {}, "ties": []}]}
    opened.jobs.put(replace(JOB, spec=spec))
    opened.trials.place(JOB.id, [placement(1), placement(2)])
    opened.leases.register(elsewhere("d1"))
    opened.leases.claim("d1", [key_of(1)])
    opened.trials.commit("d1", [Finished(key_of(1), 1, {"top1": 0.5}, weights=("w", "5ha"))])
    opened.search_log.mark_stopped({key_of(2): "worse than the median"})
    opened.jobs.set_state(JOB.id, "done")
    return opened


def test_a_trial_that_another_jobs_search_stopped_has_no_result(store: Store) -> None:
    with pytest.raises(NotFound, match=r"1 of its 2 trials have no result: .*lr=2 \(stopped\)"):
        other_jobs.find(store, INIT)
    store.close()


def test_a_trial_that_the_groups_own_search_stopped_is_a_result(store: Store) -> None:
    event = SearchEvent(0, "stopped", key_of(2), {"epoch": 1, "value": 0.1})
    store.trials.place(JOB.id, [], [(("grid", "digits/RAND"), event)])
    assert other_jobs.find(store, INIT).key == key_of(1)
    store.close()
