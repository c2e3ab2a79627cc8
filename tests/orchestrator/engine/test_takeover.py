"""Taking over trials whose driver died, by a driver that may itself lose its lease meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stored_job import JOB, elsewhere, key_of, placement

from orchestrator.engine.takeover import Takeover
from orchestrator.store.store import Store, open_store
from workers.messages import TrialUpdate


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    opened.jobs.put(JOB)
    opened.trials.place(JOB.id, [placement(1), placement(2)])
    opened.leases.register(elsewhere("dead"))
    assert opened.leases.claim("dead", [key_of(1), key_of(2)]) == {key_of(1): 1, key_of(2): 1}
    opened.leases.unregister("dead")
    opened.leases.register(elsewhere("d2"))
    yield opened
    opened.close()


class Actors:
    """The actors of the dead driver, each with a trial that goes on; `slow`: the look at them takes longer than a
    lease."""

    def __init__(self, store: Store, slow: bool) -> None:
        self.store, self.slow = store, slow
        self.adopted: list[str] = []

    def foreign_actors(self, wait_s: float) -> list[Any]:
        if self.slow:
            self.store.leases.heartbeat("d2", 1, 0, ttl_s=-1)
        updates = [TrialUpdate(key_of(number), "", 1, (), 0, False, "dead") for number in (1, 2)]
        return [SimpleNamespace(update=update, worker=None) for update in updates]

    def adopt(self, answer: Any) -> None:
        self.adopted.append(answer.update.key)


def test_a_driver_whose_lease_runs_out_during_the_look_goes_on_and_looks_again(store: Store) -> None:
    """Ended by LeaseLost, it would leave its own trials without a driver too."""
    takeover, actors = Takeover(store, "cluster", "d2"), Actors(store, slow=True)
    assert takeover.orphans(actors) == []  # type: ignore[arg-type]
    assert [run.driver_id for run in store.leases.running()] == ["dead", "dead"]
    store.leases.heartbeat("d2", 1, 0)
    actors.slow = False
    assert len(takeover.orphans(actors)) == 2  # type: ignore[arg-type]
    assert actors.adopted == [key_of(1), key_of(2)]
    assert [(run.driver_id, run.token) for run in store.leases.running()] == [("d2", 1), ("d2", 1)]
