"""Two jobs, their drivers and the collector as processes that a test takes step by step, over one store."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from k12_job import FINAL, PRETRAIN, RAND, SUP, grid, job
from stepped_cluster import Cluster, Node, SteppedBackend, TrialFolder, without_threads
from stepped_processes import Clock, Killed, Process, SteppedDatabase
from store_invariants import Records

from orchestrator.engine import collector, commits, driver, membership
from orchestrator.engine.backend import RunSite
from orchestrator.engine.driver import Driver
from orchestrator.launch import provenance
from orchestrator.launch.submit import record_job
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.rows import DriverRow
from orchestrator.records.states import JobState, TrialState
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store import leases, tables
from orchestrator.store.database import Database
from orchestrator.store.store import Store
from workers.messages import Assignment

_REFINE = {"name": "refine", "from": "grid", "neighbourhood": {"near": {"optim.lr": {"multiply": [1.4]}}}}
_FROM_SHARED = {"kind": "stage", "name": "SHARED", "stage": "base"}
_BASE = {
    "name": "base", "override": {"optim.layer_decay": 0.85}, "sweep": {"grid": {"optim.lr": [6e-4, 1e-3]}},
    "replicates": 2,
}  # fmt: skip
_CHILD = {"name": "child", "override": {"backbone.init": _FROM_SHARED}, "replicates": 2}
_LAST = {**FINAL, "from": "base", "replicates": 2}
JOBS = (
    job(PRETRAIN, grid(dataset=["digits"], init=[RAND, SUP], lr=[1e-4, 6e-4], layer_decay=[0.85]), _REFINE, FINAL),
    job(_BASE, _CHILD, _LAST, name="b"),
)
"""The whole protocol; and a job with replicates of which one is a trial of the first, which does not keep its weights.
Replicates start from the weights of the best setting's, and its setting is run again with other seeds."""
SLOTS = 3


@contextlib.contextmanager
def patched(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that a driver takes from outside comes from the test: time, process ids, threads, the disk's sync."""
    without_threads(patch)
    patch.setattr("os.fsync", lambda descriptor: None)
    patch.setattr(provenance, "git", lambda: ("c0ffee", False))
    patch.setattr(provenance, "versions", dict)
    for module in (driver, collector, commits):
        patch.setattr(module, "fault_point", _at_fault_point)
    patch.setattr(leases, "_is_gone", lambda host, pid, started: pid in Service.current.gone)
    patch.setattr(membership, "driver_here", _driver_here)
    patch.setattr(membership, "time", SimpleNamespace(monotonic=lambda: Service.current.clock.monotonic()))
    patch.setattr(driver, "uuid", SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=Service.current.next_id())))
    yield


def _at_fault_point(point: str, where: str = "") -> None:
    """Every point at which tests kill real processes is a step here."""
    process = Service.current.processes.get(threading.current_thread().name)
    if process is not None:
        process.pause(point)


def _driver_here(driver_id: str, job_id: str, cluster: str, priority: int = 0, slots: int = 0) -> DriverRow:
    pid = int(threading.current_thread().name.partition(" ")[0])
    return DriverRow(driver_id, "host", pid, 0.0, job_id, cluster, priority, slots)


class Service:
    """The store, the cluster, the storage, and the processes that use them."""

    current: Service

    def __init__(self, database: Database) -> None:
        Service.current = self
        _empty(database)
        self._database = database
        self.clock = Clock()
        self.store = Store(SteppedDatabase(database, self.clock))  # type: ignore[arg-type]
        self.folder = Path(tempfile.mkdtemp(prefix="any-order-"))
        self.cluster = Cluster(SLOTS, self._started)
        self.processes: dict[str, Process] = {}
        """By the name of their thread."""
        self.gone: set[int] = set()
        """Ids of processes that are known to have ended."""
        self.starts: Counter[tuple[str, int]] = Counter()
        """How often each attempt (key, token) was given to an actor."""
        self._ids = 0

    def close(self) -> None:
        for process in self.live:
            process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def next_id(self) -> str:
        self._ids += 1
        return f"{self._ids:08d}"

    # Processes

    @property
    def live(self) -> list[Process]:
        return [process for process in self.processes.values() if not process.ended]

    @property
    def drivers(self) -> list[Driver]:
        """The drivers that run trials."""
        return [
            process.driver for process in self.live if process.driver is not None and hasattr(process.driver, "backend")
        ]

    @property
    def running(self) -> list[Node]:
        """The actors whose trial has not ended."""
        return [node for node in self.cluster.nodes if node.running]

    def pick(self, which: int) -> Process:
        return self.live[which % len(self.live)]

    def raise_errors(self) -> None:
        """Raises what ended a process, unless the test did."""
        for process in self.processes.values():
            error = process.error
            if error is not None and not isinstance(error, Killed) and "made up by the test" not in str(error):
                raise AssertionError(f"{process.name} ended at {process.where!r}: {error!r}") from error

    def _begin(self, what: str, work: Any) -> Process:
        name = f"{len(self.processes) + 1} {what}"
        process = self.processes[name] = Process(name, work)
        return process

    def submit(self, what: JobSpec) -> Process:
        """Begins a driver, as `launch.submit` does after its checks."""

        def work(process: Process) -> JobState:
            store = Store(SteppedDatabase(self._database, self.clock, process))  # type: ignore[arg-type]
            identity = job_id(what)
            record_job(store, what, identity)
            site = RunSite(self.folder / "storage", self.folder / "data", "cluster")
            process.driver = Driver(store, what, identity, Planner(what, DurationModel()), site)
            if not process.driver.prepare():
                return process.driver.conclude()
            return process.driver.run(SteppedBackend(self.cluster, process, process.driver.id))

        return self._begin(what.name, work)

    def remove_files(self, checkpoints: bool) -> Process:
        """Begins `gc`."""

        def work(process: Process) -> None:
            store = Store(SteppedDatabase(self._database, self.clock, process))  # type: ignore[arg-type]
            storage = self.folder / "storage"
            plan = collector.plan(store, storage, collector.Options(checkpoints=checkpoints))
            removed = collector.remove(store, storage, plan)
            assert not removed.refused

        return self._begin("gc", work)

    def kill(self, process: Process, noticed: bool) -> None:
        """`noticed`: it ran on this host, so all know that it is gone; else its lease has to run out."""
        process.kill()
        if noticed:
            self.gone.add(int(process.name.partition(" ")[0]))

    # Users

    def recorded(self, what: JobSpec) -> bool:
        return any(row.id == job_id(what) for row in self.store.jobs.all())

    def cancel(self, what: JobSpec) -> None:
        """As the command does."""
        identity = job_id(what)
        if self.store.jobs.get(identity).state in (JobState.done, JobState.incomplete, JobState.cancelled):
            return
        self.store.jobs.request_cancel(identity)
        if not any(each.job_id == identity for each in self.store.leases.drivers()):
            self.store.jobs.set_state(identity, JobState.cancelled)

    # Undisturbed

    def settle(self) -> None:
        """Lets all processes come to their ends."""
        for node in self.cluster.nodes:
            node.silent = False
        for _ in range(300):
            if not self.live:
                return
            self.round(self.live)
        raise AssertionError(f"these do not end: {[(each.name, each.where) for each in self.live]}")

    def round(self, processes: list[Process]) -> None:
        """These processes go on for some steps, and all trials end."""
        self.clock.seconds += 4
        for process in processes:
            process.step(10)
        self.raise_errors()
        for node in self.running:
            if not node.silent:
                node.advance("finish")

    def run_to_end(self, what: JobSpec) -> JobState:
        """The state in which the job ends when its failed trials are run again and nobody disturbs it."""
        if self.recorded(what):
            self.store.jobs.retry(job_id(what))
        process = self.submit(what)
        self.settle()
        assert isinstance(process.result, JobState)
        return process.result

    def message(self, what: JobSpec) -> str:
        """Why the job is not done."""
        return self.store.jobs.get(job_id(what)).message

    # What must hold of the cluster

    def _started(self, assignment: Assignment) -> None:
        """Nothing done is run again, unless for weights that somebody needs; no attempt is started twice."""
        key, now = assignment.trial.key, Records.of(self.store)
        self.starts[key, assignment.token] += 1
        assert self.starts[key, assignment.token] == 1, f"attempt {assignment.token} of {key[:8]} was started twice"
        row = now.trials[key]
        assert (
            row.state != TrialState.diverged or row.token != assignment.token
        )  # else a sleeper's, which counts nowhere
        if row.value is not None and row.token == assignment.token:
            assert assignment.keep_weights, f"{key[:8]} is done and was started again, and not for its weights"
            assert row.weights_path is None, f"{key[:8]} was started again for weights that it has"

    def check_actors(self, now: Records) -> None:
        """No attempt runs twice, and what a trial would resume from is there."""
        held = Counter((node.actor._key, node.actor._assignment.token) for node in self.running)  # type: ignore[union-attr]
        assert not held or max(held.values()) == 1
        for node in self.running:
            assignment = node.actor._assignment
            if assignment is node.trial and assignment is not None and node.epoch:
                row = now.trials[assignment.trial.key]
                if (row.state, row.token) == (TrialState.running, assignment.token):
                    assert TrialFolder(assignment).epoch >= node.epoch, "the checkpoints of a running trial are gone"


def _empty(database: Database) -> None:
    """Removes all rows: a new database would take longer to make than most examples take."""

    def work(connection: Any) -> None:
        for each in reversed(tables.metadata.sorted_tables):
            connection.execute(each.delete())

    database.write(work)
