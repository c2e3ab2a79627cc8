"""Taking over trials whose driver died, by a driver that may itself lose its lease meanwhile; no driver then waits for
ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from in_process_backend import Machine, ThreadBackend, prepared_driver
from k12_job import RAND, figures, grid, job
from stored_job import JOB, elsewhere, key_of, placement

from orchestrator.engine.membership import Membership
from orchestrator.engine.takeover import Takeover
from orchestrator.records.states import JobState, TrialState
from orchestrator.records.writes import Failed, Finished
from orchestrator.store import leases
from orchestrator.store.store import Store, open_store
from workers.errors import ErrorClass, TrialError
from workers.messages import Outcome, Report, TrialUpdate

ONE = job(grid(dataset=["digits"], init=[RAND], lr=[6e-4], layer_decay=[0.85]))


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


def test_a_trial_that_another_driver_claims_as_soon_as_it_is_free_is_followed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the end of an attempt here and the look at what the store made of it."""
    monkeypatch.setattr(Membership, "due", property(lambda membership: True))
    tokens: dict[str, int] = {}

    def loses_a_node(assignment: Any, emit: Any, stop: Any) -> Any:
        raise TrialError(ErrorClass.node_lost, "another worker of the trial is gone")

    class Claimed(ThreadBackend):
        polls_since = 0

        def acknowledge(self, update: TrialUpdate, worker: Any) -> None:
            super().acknowledge(update, worker)
            tokens.update(store.leases.claim("other", [update.key]))

        def poll(self, timeout_s: float) -> Any:
            self.polls_since += len(tokens)
            if self.polls_since == 3:
                (key,) = tokens
                store.trials.commit("other", [Finished(key, 2, figures(driver.planned_trials[key].spec))])
            assert self.polls_since < 20, "the driver waits for ever"
            return super().poll(0.01)

    driver = prepared_driver(store, ONE, tmp_path)
    store.leases.register(elsewhere("other", driver.job_id))
    assert driver.run(Claimed(Machine(execute=loses_a_node), driver.id)) is JobState.done
    assert list(tokens.values()) == [2]


def test_what_an_old_attempt_says_does_not_end_the_later_one_that_this_driver_took_over(
    store: Store, tmp_path: Path
) -> None:
    """It slept past its lease; another driver claimed its trial and died. Now it has both actors, which answer at once.
    If it gave up both, it would hold a trial that no actor runs, which nobody can claim."""
    driver = prepared_driver(store, ONE, tmp_path)
    (key,) = driver.planned_trials
    store.leases.register(leases.driver_here(driver.id, driver.job_id, "machine"))
    store.leases.register(elsewhere("other", driver.job_id))
    assert store.leases.claim(driver.id, [key]) == {key: 1}
    store.trials.commit(driver.id, [Failed(key, 1, "driver_lost", "", retry=True)])
    assert store.leases.claim("other", [key]) == {key: 2}
    store.leases.unregister("other")
    assert store.leases.adopt(driver.id, key, 2)

    retired, acknowledged = list[int](), list[int]()
    driver.backend = SimpleNamespace(  # type: ignore[assignment]
        running=list, stop=lambda worker: None, retire=lambda worker: retired.append(worker.token),
        acknowledge=lambda update, worker: acknowledged.append(worker.token),
    )  # fmt: skip
    outcome = Outcome(figures(driver.planned_trials[key].spec), {}, None)
    events: dict[int, Any] = {1: Report(1, 10, {"train_loss": 1.0}, 0.01), 2: outcome}
    driver.apply_updates(
        [
            SimpleNamespace(
                worker=SimpleNamespace(key=key, token=token), reason="",
                update=TrialUpdate(key, "", token, (event,), 0, token == 2, driver.id),
            )
            for token, event in events.items()
        ]
    )  # fmt: skip
    assert (retired, acknowledged) == ([1], [2])
    assert store.trials.get(key).state is TrialState.done
    assert driver.planner.finished()
    assert (driver.tally.finished, driver.tally.progress) == (1, 1), "what is not recorded does not count"
