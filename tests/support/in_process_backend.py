"""A backend without Ray: the real TrialActor in threads of this process, which outlives the driver that uses it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from k12_job import figures

from orchestrator.engine.backend import RunSite
from orchestrator.engine.driver import Driver
from orchestrator.launch.submit import record_job
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.states import JobState
from orchestrator.spec.job import JobSpec, Resources, job_id
from orchestrator.store import leases
from orchestrator.store.store import Store
from workers.actor import Execute, TrialActor
from workers.errors import Stopped
from workers.messages import Acknowledgement, Assignment, Outcome, Report, TrialUpdate, Weights


class Machine:
    """Slots, and the actors on them. `ran` counts how often each trial was started."""

    def __init__(self, slots: int = 2, execute: Execute | None = None) -> None:
        self.slots = slots
        self.actors: list[Handle] = []
        """The handle of the driver to which each belongs."""
        self.ran: Counter[str] = Counter()
        self._execute = execute or made_up

    def execute(self, assignment: Assignment, emit: Any, stop: Any) -> Outcome:
        self.ran[assignment.trial.key] += 1
        return self._execute(assignment, emit, stop)


def made_up(assignment: Assignment, emit: Any, stop: Any) -> Outcome:
    """Two epochs and the figures of tests/support/k12_job.py, without training."""
    values = figures(assignment.trial)
    for epoch in (1, 2):
        if stop():
            raise Stopped
        emit(Report(epoch, epoch * 10, {"train_loss": 1 / epoch, **values}, 0.01))
    weights = Weights(f"{assignment.folder}/weights", "0" * 64) if assignment.keep_weights else None
    return Outcome(values, {"train_seconds": 0.02, "step_seconds": 0.001, "device": "cpu"}, weights)


@dataclass(eq=False)
class Handle:
    """An actor as one driver knows it."""

    actor: TrialActor
    key: str = ""
    token: int = 0
    acknowledged: Acknowledgement | None = None
    dead: bool = False
    broken: str = ""
    """Why its start was refused."""
    former_owner: str = ""
    """The driver from which it was, or is to be, taken over."""


class ThreadBackend:
    """One driver's backend on a machine, as orchestrator.engine.ray_backend.RayBackend is on Ray."""

    def __init__(self, machine: Machine, owner: str) -> None:
        self.machine = machine
        self.owner = owner
        self.workers: list[Handle] = []
        """Those of this driver."""

    def slots(self, resources: Resources) -> int:
        return self.machine.slots

    def running(self) -> Sequence[Any]:
        return [worker for worker in self.workers if worker.key]

    def has_room(self, resources: Resources) -> bool:
        return any(not w.key for w in self.workers) or len(self.machine.actors) < self.machine.slots

    def start(self, assignment: Assignment, resources: Resources) -> Any:
        worker = next((w for w in self.workers if not w.key), None)
        if worker is None:
            actor = TrialActor(self.machine.execute, owner=self.owner)
            worker = Handle(actor)
            self.machine.actors.append(worker)
            self.workers.append(worker)
        worker.key, worker.token, worker.acknowledged = assignment.trial.key, assignment.token, None
        try:
            worker.actor.start(assignment, wait_s=0, owner=self.owner)
        except RuntimeError as error:  # another driver has taken it over
            worker.broken = str(error)
        return worker

    def poll(self, timeout_s: float) -> Sequence[Any]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            answers = [answer for worker in self.running() if (answer := self._answer(worker))]
            if answers:
                return answers
            time.sleep(0.001)
        return []

    def _answer(self, worker: Any) -> Any:
        if worker.dead or worker.broken:
            self.retire(worker)
            return SimpleNamespace(worker=worker, update=None, reason=worker.broken or "killed by the test")
        update = worker.actor.poll(worker.acknowledged, 0.0)
        if update.owner != self.owner:
            self.retire(worker)
            return SimpleNamespace(worker=worker, update=None, reason="another driver has taken it over")
        return SimpleNamespace(worker=worker, update=update, reason="") if update.events or update.ended else None

    def acknowledge(self, update: TrialUpdate, worker: Any) -> None:
        worker.acknowledged = update.acknowledgement
        if update.ended:
            worker.actor.release(update.key, update.token)
            worker.key = ""

    def stop(self, worker: Any) -> None:
        worker.actor.stop(self.owner)

    def retire(self, worker: Any) -> None:
        if worker in self.workers:
            self.workers.remove(worker)
        if not worker.dead and not worker.actor.set_owner("nobody", self.owner, worker.former_owner):
            return  # another driver has taken it over
        for place in [place for place, each in enumerate(self.machine.actors) if each.actor is worker.actor]:
            del self.machine.actors[place]

    def close(self) -> None:
        for worker in [w for w in self.workers if not w.key]:
            self.retire(worker)

    def foreign_actors(self, wait_s: float) -> Sequence[Any]:
        """With a handle of this driver's own: that of the driver before, which may be asleep, stays as it is."""
        own = [worker.actor for worker in self.workers]
        others = [worker for worker in self.machine.actors if worker.actor not in own and not worker.dead]
        updates = [worker.actor.poll(None, 0.0) for worker in others]
        handles = [
            Handle(worker.actor, update.key, update.token, former_owner=update.owner)
            for worker, update in zip(others, updates, strict=True)
        ]
        return [
            SimpleNamespace(worker=handle, update=update, reason="")
            for handle, update in zip(handles, updates, strict=True)
        ]

    def adopt(self, answer: Any) -> None:
        answer.worker.actor.set_owner(self.owner, answer.update.owner)
        self._take(answer.worker)

    def reuse_idle(self, answer: Any) -> None:
        if answer.worker.actor.set_owner(self.owner, answer.update.owner):
            answer.worker.actor.release(answer.update.key, answer.update.token)
            answer.worker.key = ""
            self._take(answer.worker)

    def _take(self, worker: Any) -> None:
        for place in [place for place, each in enumerate(self.machine.actors) if each.actor is worker.actor]:
            self.machine.actors[place] = worker
        self.workers.append(worker)


def prepared_driver(store: Store, job: JobSpec, folder: Path, planned: JobSpec | None = None, **options: Any) -> Driver:
    """A driver of a job that is recorded and prepared. `planned`: the job with the manifests of its data."""
    record_job(store, job, job_id(job))
    site = RunSite(folder / "storage", folder / "data", "machine")
    driver = Driver(store, job, job_id(job), Planner(planned or job, DurationModel()), site, **options)
    driver.prepare()
    return driver


def drive_to_end(store: Store, job: JobSpec, machine: Machine, folder: Path, **options: Any) -> tuple[JobState, Driver]:
    """The state in which the job ends, and its driver."""
    driver = prepared_driver(store, job, folder, **options)
    return driver.run(ThreadBackend(machine, driver.id)), driver


def results_of(store: Store, job: JobSpec) -> dict[tuple[str, str], tuple[str, float | None]]:
    """Key and value of the last stage's trial in each group."""
    rows = store.trials.placed(job_id(job), job.stages[-1].name)
    return {(row.stage, row.group): (row.key, row.value) for row in rows}


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the service logged for its user; trials in this process log too."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("orchestrator")]


class Gate:
    """An execute that waits after its first epoch until `open` is set."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = threading.Semaphore(0)
        """Counts the trials that have reached the gate."""

    def __call__(self, assignment: Assignment, emit: Any, stop: Any) -> Outcome:
        emit(Report(1, 10, {"train_loss": 1.0}, 0.01))
        self.inside.release()
        while not self.open.wait(0.005):
            if stop():
                raise Stopped
        return made_up(assignment, emit, stop)


class Crash(Exception):
    """Stands for SIGKILL of the driver: nothing after it runs (see `crashed` and `killed`)."""


def crashed(driver: Driver, backend: ThreadBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the driver until it raises Crash, without an orderly end; its process counts as gone."""
    monkeypatch.setattr(driver, "_release", lambda: None)
    with pytest.raises(Crash):
        driver.run(backend)
    _count_as_gone(driver)


def killed(store: Store, job: JobSpec, machine: Machine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drives the job until its driver raises Crash, even while it prepares; its process counts as gone."""
    monkeypatch.setattr(Driver, "_release", lambda driver: None)
    drivers: list[Driver] = []
    init = Driver.__init__

    def noted(driver: Driver, *arguments: Any, **options: Any) -> None:
        init(driver, *arguments, **options)
        drivers.append(driver)

    monkeypatch.setattr(Driver, "__init__", noted)
    with pytest.raises(Crash):
        drive_to_end(store, job, machine, folder)
    _count_as_gone(drivers[0])


def _count_as_gone(driver: Driver) -> None:
    gone = replace(leases.driver_here(driver.id, driver.job_id, "machine"), pid=2**22 - 3)
    driver.store.leases.register(gone)


def crashing(store: Store, monkeypatch: pytest.MonkeyPatch, at: int, after: bool) -> list[int]:
    """Lets the driver die at its `at`-th commit with events of a search: before it, or after. Returns their count."""
    count, place = [0], store.trials.place

    def placed(job: str, placements: Any, events: Any = ()) -> Any:
        if events:
            count[0] += 1
            if count[0] == at and not after:
                raise Crash
        snapshots = place(job, placements, events)
        if events and count[0] == at and after:
            raise Crash
        return snapshots

    monkeypatch.setattr(store.trials, "place", placed)
    return count
