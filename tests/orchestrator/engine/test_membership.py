"""A driver's share of the cluster now, and the share of its job that the estimate of the time left counts with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.engine.membership import Membership
from orchestrator.records.rows import JobRecord
from orchestrator.store.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    for name in ("mine", "other"):
        opened.jobs.put(JobRecord(id=name, name=name, profile="", spec={}, spec_text=""))
    yield opened
    opened.close()


def joined(store: Store, name: str, job: str = "mine", priority: int = 0) -> Membership:
    made = Membership(store, name, job, "cluster", priority)
    made.register(8)
    return made


def test_a_single_trial_does_not_make_the_cluster_small_for_those_that_follow(store: Store) -> None:
    """One pre-training is ready, and a hundred trials wait for it: they will have all slots."""
    beat = joined(store, "one").beat(demand=1, running=1, slots=8)
    assert (beat.allowed, beat.of_job) == (1, 8)


def test_two_drivers_of_a_job_share_its_work(store: Store) -> None:
    one, two = joined(store, "one"), joined(store, "two")
    one.beat(demand=100, running=0, slots=8)
    beat = two.beat(demand=100, running=0, slots=8)
    assert (beat.allowed, beat.of_job) == (4, 8), "what is left of the job runs on the slots of both"


def test_slots_of_another_job_do_not_count(store: Store) -> None:
    one, other = joined(store, "one"), joined(store, "other", "other")
    other.beat(demand=2, running=2, slots=8)
    beat = one.beat(demand=1, running=1, slots=8)
    assert (beat.allowed, beat.of_job) == (1, 6), "while it demands no more than it does now"
    first = joined(store, "first", "other", priority=1)
    first.beat(demand=100, running=0, slots=8)
    assert one.beat(demand=1, running=1, slots=8).of_job == 0
