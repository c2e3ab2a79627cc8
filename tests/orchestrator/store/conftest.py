"""Stores for the tests of this folder, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stored_job import JOB, elsewhere, placement

from orchestrator.store.store import Store, open_store


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
