"""The control loop without Ray: what it records and survives, and that no trial runs twice."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process_backend import (
    Crash,
    Gate,
    Machine,
    ThreadBackend,
    crashed,
    drive_to_end,
    made_up,
    messages,
    prepared_driver,
    results_of,
)
from k12_job import FINAL, PRETRAIN, RAND, REFINE, SUP, grid, job

from orchestrator.cli import progress
from orchestrator.engine import inbox, membership
from orchestrator.engine.driver import Driver
from orchestrator.records.states import JobState, TrialState
from orchestrator.report.verify import verify
from orchestrator.spec.job import JobSpec, Resources, job_id
from orchestrator.store import leases
from orchestrator.store.store import Store, open_store
from workers.errors import ErrorClass, TrialError

LRS = [1e-4, 6e-4]
SMALL = job(PRETRAIN, grid(dataset=["digits"], init=[RAND, SUP], lr=LRS, layer_decay=[0.75, 0.85]), REFINE, FINAL)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "BEAT_S", 0.02)


@pytest.fixture(autouse=True)
def _messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "orchestrator")


def test_the_whole_protocol_is_recorded(store: Store, tmp_path: Path) -> None:
    machine = Machine()
    state, _driver = drive_to_end(store, SMALL, machine, tmp_path)
    assert state is JobState.done
    assert set(machine.ran.values()) == {1}
    placed = store.trials.placed(job_id(SMALL))
    assert {row.state for row in placed} == {TrialState.done}
    assert {row.key for row in placed} == set(machine.ran)
    assert [w.stage for w in store.choices.of(job_id(SMALL))].count("final") == 2
    assert verify(store, job_id(SMALL)) == []
    assert [r.epoch for r in store.trials.reports(placed[0].key)] == [1, 2]
    assert store.leases.drivers() == []


def test_a_trial_that_lost_a_node_resumes_with_as_many_workers_as_fit(store: Store, tmp_path: Path) -> None:
    workers: list[int] = []

    def loses_a_node(assignment: Any, emit: Any, stop: Any) -> Any:
        workers.append(assignment.workers)
        if len(workers) == 1:
            machine.slots = 3
            raise TrialError(ErrorClass.node_lost, "another worker of the trial is gone")
        return made_up(assignment, emit, stop)

    class Wide(ThreadBackend):
        def has_room(self, resources: Resources) -> bool:
            return resources.workers <= self.machine.slots and super().has_room(resources)

    machine = Machine(slots=4, execute=loses_a_node)
    elastic = job(PRETRAIN, resources={"workers": 4, "min_workers": 2})
    driver = prepared_driver(store, elastic, tmp_path)
    assert driver.run(Wide(machine, driver.id)) is JobState.done
    assert workers == [4, 2]  # three would not share the batch evenly


def test_fewer_workers_are_whole_parts_of_all() -> None:
    def counts(**fields: int) -> list[int]:
        return [choice.workers for choice in Resources(**fields).fitting()]

    assert counts(workers=8, min_workers=1) == [8, 4, 2, 1]
    assert counts(workers=6, min_workers=3) == [6, 3]
    assert counts(workers=6, min_workers=4) == counts(workers=6) == [6]
    with pytest.raises(ValueError, match="min_workers 3 is above workers 2"):
        Resources(workers=2, min_workers=3)


def test_the_same_again_starts_nothing(store: Store, tmp_path: Path) -> None:
    drive_to_end(store, SMALL, Machine(), tmp_path)
    again = prepared_driver(store, SMALL, tmp_path)
    assert again.planner.finished()
    assert again.conclude() is JobState.done
    assert again.tally.already_done == len({row.key for row in store.trials.placed(job_id(SMALL))})


def test_the_estimate_of_an_earlier_driver_does_not_count_for_the_next(store: Store, tmp_path: Path) -> None:
    """It is unknown how long the job takes until a trial of this driver has reported."""
    seen: list[tuple[float, float] | None] = []

    def looks(assignment: Any, emit: Any, stop: Any) -> Any:
        seen.append(store.jobs.seconds_left(job_id(SMALL)))
        return made_up(assignment, emit, stop)

    driver = prepared_driver(store, SMALL, tmp_path)
    store.jobs.put_seconds_left(job_id(SMALL), 12345.0)
    assert driver.run(ThreadBackend(Machine(execute=looks), driver.id)) is JobState.done
    assert seen[0] is None


def test_a_changed_spec_runs_only_what_is_new(store: Store, tmp_path: Path) -> None:
    machine = Machine()
    drive_to_end(store, SMALL, machine, tmp_path)
    before = set(machine.ran)
    wider = job(PRETRAIN, grid(dataset=["digits"], lr=[*LRS, 2e-3], layer_decay=[0.75, 0.85]), REFINE, FINAL)
    state, driver = drive_to_end(store, wider, machine, tmp_path)
    assert state is JobState.done
    assert driver.tally.started == len(set(machine.ran) - before) >= 4
    assert set(machine.ran.values()) == {1}


@pytest.mark.parametrize("after", range(1, 8))
def test_a_killed_driver_costs_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The driver dies after its n-th round while trials run; the next one takes them over."""
    rounds = 0

    def watch(driver: Driver) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == after:
            raise Crash

    machine = Machine()
    first = prepared_driver(store, SMALL, tmp_path, watch=watch)
    crashed(first, ThreadBackend(machine, first.id), monkeypatch)
    state, _second = drive_to_end(store, SMALL, machine, tmp_path)
    assert state is JobState.done
    assert set(machine.ran.values()) == {1}
    undisturbed = open_store(f"sqlite:///{tmp_path / 'other.db'}")
    drive_to_end(undisturbed, SMALL, Machine(), tmp_path)
    assert results_of(store, SMALL) == results_of(undisturbed, SMALL)
    undisturbed.close()


def test_running_trials_are_taken_over_with_their_updates(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    machine = Machine(execute=gate)

    def watch(driver: Driver) -> None:
        if len(driver.backend.running()) == 2:
            raise Crash

    job_of_two = job(grid(dataset=["digits"], init=[RAND], lr=LRS, layer_decay=[1.0]))
    first = prepared_driver(store, job_of_two, tmp_path, watch=watch)
    crashed(first, ThreadBackend(machine, first.id), monkeypatch)
    gate.open.set()
    state, second = drive_to_end(store, job_of_two, machine, tmp_path)
    assert (state, second.tally.adopted, second.tally.started) == (JobState.done, 2, 0)
    assert set(machine.ran.values()) == {1}
    key = next(iter(machine.ran))
    assert [attempt.cause for attempt in store.trials.attempts(key)] == ["done"]
    assert [report.epoch for report in store.trials.reports(key)] == [1, 2]


@pytest.mark.parametrize("silent", [0, 2])
def test_idle_actors_of_a_dead_driver_are_reused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: int
) -> None:
    """The driver dies between its commit and the acknowledgement: the next one needs the slot that the actor holds,
    even if the actor does not answer at first."""
    machine = Machine(slots=1)
    first = prepared_driver(store, SMALL, tmp_path)
    backend = ThreadBackend(machine, first.id)

    def acknowledge(update: Any, worker: Any) -> None:
        raise Crash

    monkeypatch.setattr(backend, "acknowledge", acknowledge)
    monkeypatch.setattr(
        backend, "poll", lambda timeout_s: [a for a in ThreadBackend.poll(backend, timeout_s) if a.update.ended]
    )
    crashed(first, backend, monkeypatch)
    (before,) = machine.actors
    second = prepared_driver(store, SMALL, tmp_path)
    used = ThreadBackend(machine, second.id)
    monkeypatch.setattr(used, "close", lambda: None)
    looks = iter(range(1000))

    def foreign_actors(wait_s: float) -> list[Any]:
        return ThreadBackend.foreign_actors(used, wait_s) if next(looks) >= silent else []

    monkeypatch.setattr(used, "foreign_actors", foreign_actors)
    assert second.run(used) is JobState.done
    assert [each.actor for each in machine.actors] == [each.actor for each in used.workers] == [before.actor]
    assert set(machine.ran.values()) == {1}


def test_two_jobs_share_a_trial_and_run_it_once(store: Store, tmp_path: Path) -> None:
    gate = Gate()
    machine = Machine(slots=4, execute=gate)
    first = job(grid(dataset=["digits"], init=[RAND], lr=LRS, layer_decay=[1.0]), name="one")
    second = job(grid(dataset=["digits"], init=[RAND], lr=[*LRS, 3e-3], layer_decay=[1.0]), name="two")
    states: dict[str, JobState] = {}

    def go(which: JobSpec) -> None:
        own = open_store(f"sqlite:///{tmp_path / 'store.db'}")
        states[which.name] = drive_to_end(own, which, machine, tmp_path)[0]
        own.close()

    threads = [threading.Thread(target=go, args=(which,), daemon=True) for which in (first, second)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        assert gate.inside.acquire(timeout=60)
    gate.open.set()
    for thread in threads:
        thread.join(60)
    assert states == {"one": JobState.done, "two": JobState.done}
    assert set(machine.ran.values()) == {1}
    assert len(machine.ran) == 3


def test_a_trial_whose_process_died_is_restarted(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deaths = 0

    class Fragile(Machine):
        def execute(self, assignment: Any, emit: Any, stop: Any) -> Any:
            nonlocal deaths
            if assignment.token == 1 and deaths < 2:
                deaths += 1
                next(w for w in self.actors if w.key == assignment.trial.key).dead = True
                threading.Event().wait(0.05)
            return super().execute(assignment, emit, stop)

    state, _driver = drive_to_end(store, SMALL, Fragile(slots=1), tmp_path)
    assert state is JobState.done
    assert deaths == 2
    assert sum("killed by the test); restarting" in line for line in messages(caplog)) == 2
    causes = {a.cause for row in store.trials.placed(job_id(SMALL)) for a in store.trials.attempts(row.key)}
    assert causes == {"done", "node_lost"}


def test_a_trial_whose_process_dies_every_time_fails(store: Store, tmp_path: Path) -> None:
    class Deadly(Machine):
        def execute(self, assignment: Any, emit: Any, stop: Any) -> Any:
            self.ran[assignment.trial.key] += 1
            next(w for w in self.actors if w.key == assignment.trial.key).dead = True
            threading.Event().wait(0.05)
            raise RuntimeError("not reached by the driver")

    machine = Deadly(slots=1)
    alone = job({"name": "only"})
    state, _driver = drive_to_end(store, alone, machine, tmp_path)
    assert state is JobState.incomplete
    assert list(machine.ran.values()) == [inbox.LIVES]
    (row,) = store.trials.placed(job_id(alone))
    assert (row.state, row.error_class) == (TrialState.failed, "node_lost")


def failing(error: Exception, when: Any) -> Any:
    def execute(assignment: Any, emit: Any, stop: Any) -> Any:
        if when(assignment.trial):
            raise error
        return made_up(assignment, emit, stop)

    return execute


def test_a_failed_trial_makes_no_winner_and_retry_runs_only_what_is_missing(store: Store, tmp_path: Path) -> None:
    def wrong(trial: Any) -> bool:
        return trial.optim.lr == 1e-4 and trial.backbone.init.name == "RAND" and trial.optim.layer_decay == 0.75

    broken = Machine(execute=failing(ValueError("a shape is wrong"), wrong))
    state, _driver = drive_to_end(store, SMALL, broken, tmp_path)
    assert state is JobState.incomplete
    final = {row.group: row.state for row in store.trials.placed(job_id(SMALL), "final")}
    assert final == {"digits/SUP": TrialState.done}
    assert "digits/RAND" in store.jobs.get(job_id(SMALL)).message
    failed = [row for row in store.trials.placed(job_id(SMALL)) if row.state is TrialState.failed]
    assert [(row.error_class, (row.error or "").splitlines()[0]) for row in failed] == [
        ("code", "ValueError: a shape is wrong")
    ]

    untouched = prepared_driver(store, SMALL, tmp_path)
    assert untouched.planner.finished()  # submit again does not repeat a failure
    assert store.jobs.retry(job_id(SMALL)) == 1
    mended = Machine()
    state, _driver = drive_to_end(store, SMALL, mended, tmp_path)
    assert state is JobState.done
    assert not set(mended.ran) & {row.key for row in store.trials.placed(job_id(SMALL)) if row.key in broken.ran} - {
        failed[0].key
    }


def test_the_same_code_error_three_times_pauses_the_stage(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine(slots=1, execute=failing(KeyError("x"), lambda trial: True))
    many = job(grid(dataset=["digits"], init=[RAND]))
    state, _driver = drive_to_end(store, many, machine, tmp_path)
    assert state is JobState.incomplete
    assert len(machine.ran) == 3
    assert any("paused" in line and "KeyError" in line for line in messages(caplog))


def test_divergence_is_a_result(store: Store, tmp_path: Path) -> None:
    error = TrialError(ErrorClass.diverged, "loss is nan in epoch 1")
    machine = Machine(execute=failing(error, lambda trial: trial.optim.lr == 1e-4))
    state, _driver = drive_to_end(store, SMALL, machine, tmp_path)
    assert state is JobState.done
    states = {row.state for row in store.trials.placed(job_id(SMALL), "grid")}
    assert states == {TrialState.done, TrialState.diverged}
    assert set(machine.ran.values()) == {1}


def test_an_interrupted_job_releases_its_trials_and_is_resumed(store: Store, tmp_path: Path) -> None:
    gate = Gate()
    machine = Machine(execute=gate)

    def watch(driver: Driver) -> None:
        if len(driver.backend.running()) == 2:
            driver.stop("interrupted")

    state, _driver = drive_to_end(store, SMALL, machine, tmp_path, watch=watch)
    assert state is JobState.interrupted
    assert store.jobs.get(job_id(SMALL)).state is JobState.interrupted
    assert {row.state for row in store.trials.placed(job_id(SMALL))} == {TrialState.pending}
    gate.open.set()
    assert drive_to_end(store, SMALL, machine, tmp_path)[0] is JobState.done


def test_a_driver_that_finds_no_room_says_so(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(slots=0)
    lines: list[str] = []

    def watch(driver: Driver) -> None:
        lines.append(progress.summary(driver, driver.planner.progress()))
        machine.slots = 2

    monkeypatch.setattr(Driver, "slots", lambda self: 2)
    state, _driver = drive_to_end(store, SMALL, machine, tmp_path, watch=watch)
    assert state is JobState.done
    assert ["finds no room" in line for line in (lines[0], lines[-1])] == [True, False]


def test_cancel_reaches_the_driver(store: Store, tmp_path: Path) -> None:
    def watch(driver: Driver) -> None:
        if driver.backend.running():
            store.jobs.request_cancel(driver.job_id)

    state, _driver = drive_to_end(store, SMALL, Machine(execute=Gate()), tmp_path, watch=watch)
    assert state is JobState.cancelled


def test_a_driver_that_lost_its_trials_does_not_write(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A driver that slept past its lease: another one has taken the trial, and the late result is refused."""
    alone = job({"name": "only"})
    gate = Gate()
    machine = Machine(execute=gate)
    taken: dict[str, int] = {}

    def watch(driver: Driver) -> None:
        if driver.backend.running() and not taken:
            assert gate.inside.acquire(timeout=60)
            store.leases.unregister(driver.id)
            store.leases.register(leases.driver_here("other", driver.job_id, "machine"))
            taken.update(store.leases.claim("other", [driver.backend.running()[0].key]))
            gate.open.set()
        elif taken and messages(caplog):
            driver.stop("interrupted")

    drive_to_end(store, alone, machine, tmp_path, watch=watch)
    (key,) = taken
    assert "taken over" in messages(caplog)[0]
    assert store.trials.get(key).token == 2
    assert store.trials.get(key).state is TrialState.running


def test_a_driver_that_slept_past_its_lease_registers_again(store: Store, tmp_path: Path) -> None:
    driver = prepared_driver(store, SMALL, tmp_path)
    slept = False

    def forgets(driver: Driver) -> None:
        nonlocal slept
        if not slept and driver.tally.finished:
            slept = True
            store.leases.unregister(driver.id)

    driver._watch = forgets
    machine = Machine()
    assert driver.run(ThreadBackend(machine, driver.id)) is JobState.done
    assert slept
    assert set(machine.ran.values()) == {1}
