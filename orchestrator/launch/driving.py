"""Drives a job to its end through the loss of its cluster and outages of its store."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.engine.driver import Driver
from orchestrator.engine.supervision import PATIENCE_S
from orchestrator.engine.watch import STOP_S
from orchestrator.errors import BackendUnreachable, ClusterLost, OrchestratorError, StoreAway
from orchestrator.records.states import JobState
from orchestrator.settings import Settings
from orchestrator.store.store import Store
from workers.plugin_code import mark

CLUSTERS = 5
"""So many clusters may be lost in a row, without a report of any trial in between, before the driver gives up."""
RETRY_S, STORE_RETRY_S = 5.0, 1.0
"""Seconds between two tries to reach a cluster, and the store."""

log = logging.getLogger(__name__)


class Outages:
    """Decides whether to go on after an outage: a small state machine of what was lost when, and what went on since."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._lost = 0
        self._progress = -1
        self._since: float | None = None
        """Since when there is no cluster on which anything went on; None if there is one."""

    def cluster_lost(self, error: ClusterLost, progress: int) -> None:
        """The cluster is gone. `progress`: reports and results so far. Raises BackendUnreachable after too many."""
        self._note(progress)
        self._lost += 1
        self._since = self._since or self._clock()
        if self._lost > CLUSTERS:
            raise BackendUnreachable(
                f"{self._lost} times in a row the Ray cluster was lost before any trial reported: {error}\nSomething "
                "ends it, for example a lack of memory: see `dmesg` and ray.log. Nothing is lost: submit again."
            ) from error
        log.info("%s: going on, on another or when it answers again; trials resume from their checkpoints", error)

    def no_cluster(self, error: BackendUnreachable, progress: int) -> None:
        """No cluster can be used now: waits a little. Raises the error if none was lost before, or too long ago."""
        self._note(progress)
        if self._since is None or self._clock() - self._since > PATIENCE_S:
            raise error
        self._sleep(RETRY_S)

    def store_away(self, error: StoreAway, answers: Callable[[], object]) -> None:
        """Waits until `answers` raises nothing. Raises the error after PATIENCE_S seconds."""
        log.info("%s\nTrying again for %.0f min; running trials go on.", error, PATIENCE_S / 60)
        until = self._clock() + PATIENCE_S
        while True:
            self._sleep(STORE_RETRY_S)
            try:
                answers()
            except BackendUnreachable:
                if self._clock() > until:
                    raise error from None
            else:
                log.info("the store answers again: going on")
                return

    def _note(self, progress: int) -> None:
        if progress > self._progress:
            self._lost, self._since, self._progress = 0, None, progress


@dataclass(frozen=True)
class Connection:
    """How drivers of one submit come to a cluster."""

    where: Settings
    cpus: int | None
    ship: bool
    ready: Callable[[Any], None]
    """Called once with the first cluster, before anything runs on it; may raise."""


def drive(first: Driver, another: Callable[[], Driver], connection: Connection) -> JobState:
    """Runs the prepared driver; after an outage, new drivers of the same job (`another`) until one comes to the end.

    Every driver begins with what the store knows, as one of a new process does: what an outage has interrupted at any
    point needs no rule of its own.
    """
    driver, outages = first, Outages()
    prepared = True
    while True:
        try:
            if not prepared and not driver.prepare():
                return driver.conclude()
            driver.register()
            return _on_cluster(driver, connection, first is driver)
        except ClusterLost as error:
            outages.cluster_lost(error, driver.tally.progress)
        except StoreAway as error:
            outages.store_away(error, _probe(driver))
        except BackendUnreachable as error:
            outages.no_cluster(error, driver.tally.progress)
        finally:
            driver.unregister()
        if driver.stopping:
            state = JobState(driver.stopping)
            driver.store.jobs.set_state(driver.job_id, state)
            return state
        begun = driver.tally
        driver, prepared = another(), False
        driver.tally = begun


def _probe(driver: Driver) -> Callable[[], object]:
    """A question that the store answers once it can be written again: it also ends the lease of a driver."""
    return lambda: driver.store.leases.unregister(driver.id)


def _on_cluster(driver: Driver, connection: Connection, first: bool) -> JobState:
    from orchestrator.engine import ray_cluster
    from orchestrator.engine.ray_backend import RayBackend, require

    where, store = connection.where, driver.store
    namespace = f"{ray_cluster.NAMESPACE}{hashlib.sha256(where.database_url.encode()).hexdigest()[:8]}"
    if where.address is None and first:
        log.info("starting Ray on this machine, or connecting to it ...")
    with contextlib.ExitStack() as stack:
        with _state_recorded(store, driver.job_id, JobState.interrupted, "Ray did not start: "):
            joining = ray_cluster.connected(where, namespace, connection.cpus, connection.ship)
            cluster = stack.enter_context(joining)
        backend = RayBackend(f"{namespace}/", owner=driver.id, gone=cluster.gone, plugins=mark(driver.site.plugins))
        with refusal_recorded(store, driver.job_id):
            require(backend, {stage.name: stage.resources or driver.job.resources for stage in driver.job.stages})
            if first:
                connection.ready(cluster)
        with stops_on_signals(driver):
            return driver.run(backend)


@contextlib.contextmanager
def _state_recorded(store: Store, identity: str, state: JobState, why: str) -> Iterator[None]:
    """Records why a job ends before its first trial; a job that is queued would seem about to run."""
    try:
        yield
    except OrchestratorError as error:
        if store.jobs.get(identity).state is JobState.queued:  # else it ran before, or another driver runs it
            store.jobs.set_state(identity, state, f"{why}{error}")
        raise


def refusal_recorded(store: Store, identity: str) -> contextlib.AbstractContextManager[None]:
    """Marks a job that is refused before its first trial as incomplete."""
    return _state_recorded(store, identity, JobState.incomplete, "refused: ")


@contextlib.contextmanager
def stops_on_signals(driver: Driver) -> Iterator[None]:
    """On SIGINT, SIGTERM or SIGHUP running trials write a checkpoint and stop; on a second one they are left running.

    SIGHUP (the terminal was closed) stays ignored if it is, as under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: Any) -> None:
        if driver.stopping and number == signal.SIGHUP:
            return
        if driver.stopping:
            raise KeyboardInterrupt
        log.info(
            "stopping: running trials write a checkpoint, for which they have %.0f s (once more to leave them running)",
            STOP_S,
        )
        driver.stop("interrupted")

    kinds = [signal.SIGINT, signal.SIGTERM]
    kinds += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    before = {number: signal.signal(number, on_signal) for number in kinds}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
