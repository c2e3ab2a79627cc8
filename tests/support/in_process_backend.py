"""A cluster without Ray: the real TrialActor in this process, which outlives the driver that uses it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from k12_job import figures

from orchestrator.engine import driver
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
from workers.messages import Assignment, Outcome, Report, TrialUpdate, Weights


class Machine:
    """Slots, and the actors on them. `ran` counts how often each trial was begun."""

    def __init__(self, slots: int = 2, execute: Execute | None = None) -> None:
        self.slots = slots
        self.actors: list[Any] = []
        self.ran: Counter[str] = Counter()
        self._execute = execute or made_up

    def execute(self, assignment: Assignment, emit: Any, stop: Any) -> Outcome:
        self.ran[assignment.trial.key] += 1
        return self._execute(assignment, emit, stop)


def made_up(assignment: Assignment, emit: Any, stop: Any) -> Outcome:
    """Two epochs and the figures of tests/support/k12_job.py, without training."""
    found = figures(assignment.trial)
    for epoch in (1, 2):
        if stop():
            raise Stopped
        emit(Report(epoch, epoch * 10, {"train_loss": 1 / epoch, **found}, 0.01))
    weights = Weights(f"{assignment.folder}/weights", "0" * 64) if assignment.keep_weights else None
    return Outcome(found, {"train_seconds": 0.02, "step_seconds": 0.001, "device": "cpu"}, weights)


class ThreadBackend:
    """One driver's view of a machine: what orchestrator.engine.ray_backend.Pool is on Ray."""

    def __init__(self, machine: Machine, owner: str) -> None:
        self.machine = machine
        self.owner = owner
        self.mine: list[Any] = []

    def slots(self, resources: Resources) -> int:
        return self.machine.slots

    def running(self) -> Sequence[Any]:
        return [worker for worker in self.mine if worker.key]

    def has_room(self, resources: Resources) -> bool:
        return any(not w.key for w in self.mine) or len(self.machine.actors) < self.machine.slots

    def start(self, assignment: Assignment, resources: Resources) -> Any:
        worker = next((w for w in self.mine if not w.key), None)
        if worker is None:
            actor = TrialActor(self.machine.execute, orphan_s=3600, owner=self.owner)
            worker = SimpleNamespace(actor=actor, key="", token=0, acknowledged=0, dead=False)
            self.machine.actors.append(worker)
            self.mine.append(worker)
        worker.key, worker.token, worker.acknowledged = assignment.trial.key, assignment.token, 0
        worker.actor.start(assignment, wait_s=0)
        return worker

    def poll(self, timeout_s: float) -> Sequence[Any]:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            answers = [answer for worker in self.running() if (answer := self._ask(worker))]
            if answers:
                return answers
            time.sleep(0.001)
        return []

    def _ask(self, worker: Any) -> Any:
        if worker.dead:
            self.mine.remove(worker)
            self.machine.actors.remove(worker)
            return SimpleNamespace(worker=worker, update=None, reason="killed by the test")
        news = worker.actor.poll(worker.acknowledged, 0.0)
        return SimpleNamespace(worker=worker, update=news, reason="") if news.events or news.ended else None

    def acknowledge(self, news: TrialUpdate, worker: Any) -> None:
        worker.acknowledged = news.heard + len(news.events)
        if news.ended:
            worker.actor.release(news.token)
            worker.key = ""

    def stop(self, worker: Any) -> None:
        worker.actor.stop()

    def retire(self, worker: Any) -> None:
        if worker in self.mine:
            self.mine.remove(worker)
        if worker in self.machine.actors:
            self.machine.actors.remove(worker)

    def close(self) -> None:
        for worker in [w for w in self.mine if not w.key]:
            self.retire(worker)

    def foreign_actors(self, wait_s: float) -> Sequence[Any]:
        theirs = [worker for worker in self.machine.actors if worker not in self.mine and not worker.dead]
        return [SimpleNamespace(worker=worker, update=worker.actor.poll(0, 0.0), reason="") for worker in theirs]

    def adopt(self, heard: Any) -> None:
        heard.worker.actor.set_owner(self.owner, heard.update.owner)
        self.mine.append(heard.worker)

    def reuse_idle(self, heard: Any) -> None:
        if heard.worker.actor.set_owner(self.owner, heard.update.owner):
            heard.worker.actor.release(heard.update.token)
            heard.worker.key = ""
            self.mine.append(heard.worker)


def a_drive(store: Store, job: JobSpec, folder: Path, **options: Any) -> Driver:
    """A driver of a job that is recorded and prepared."""
    record_job(store, job, job_id(job))
    site = RunSite(folder / "storage", folder / "data", "machine")
    drive = Driver(store, job, job_id(job), Planner(job, DurationModel()), site, **options)
    drive.prepare()
    return drive


def drive_to_end(store: Store, job: JobSpec, machine: Machine, folder: Path, **options: Any) -> tuple[JobState, Driver]:
    drive = a_drive(store, job, folder, **options)
    return drive.run(ThreadBackend(machine, drive.id)), drive


def results_of(store: Store, job: JobSpec) -> dict[tuple[str, str], tuple[str, float | None]]:
    """Of every group's final trial: key and value."""
    rows = store.trials.placed(job_id(job), job.stages[-1].name)
    return {(row.stage, row.group): (row.key, row.value) for row in rows}


class Gate:
    """An execute that waits at its first epoch until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = threading.Semaphore(0)

    def __call__(self, assignment: Assignment, emit: Any, stop: Any) -> Outcome:
        emit(Report(1, 10, {"train_loss": 1.0}, 0.01))
        self.inside.release()
        while not self.open.wait(0.005):
            if stop():
                raise Stopped
        return made_up(assignment, emit, stop)


__all__ = ["Gate", "Machine", "ThreadBackend", "a_drive", "drive_to_end", "made_up", "results_of"]


class Crash(Exception):
    """Stands for SIGKILL of the driver: nothing after it runs."""


def crashing(store: Store, monkeypatch: pytest.MonkeyPatch, at: int, after: bool) -> list[int]:
    """The driver dies at its `at`-th commit with events of a search: before it, or after."""
    count, place = [0], store.trials.place

    def placed(job: str, placements: Any, events: Any = ()) -> Any:
        if events:
            count[0] += 1
            if count[0] == at and not after:
                raise Crash
        known = place(job, placements, events)
        if events and count[0] == at and after:
            raise Crash
        return known

    monkeypatch.setattr(store.trials, "place", placed)
    return count


def killed(store: Store, one: JobSpec, machine: Machine, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Drives until it crashes, without the goodbyes of an orderly end; its process counts as gone."""
    patch.setattr(driver.Driver, "_release", lambda drive: None)
    drives: list[driver.Driver] = []
    init = driver.Driver.__init__

    def noted(drive: driver.Driver, *arguments: Any, **options: Any) -> None:
        init(drive, *arguments, **options)
        drives.append(drive)

    patch.setattr(driver.Driver, "__init__", noted)
    with pytest.raises(Crash):
        drive_to_end(store, one, machine, folder)
    gone = replace(leases.driver_here(drives[0].id, drives[0].job_id, "machine"), pid=2**22 - 3)
    store.leases.register(gone)
