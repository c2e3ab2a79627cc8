"""Submits a job: looks up its weights, checks its data and models, drives it to its end, and writes its report."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.engine.backend import RunSite
from orchestrator.engine.driver import Driver, Tally
from orchestrator.errors import BackendUnreachable, NotFound, OrchestratorError
from orchestrator.launch import provenance
from orchestrator.launch.data_manifests import check_unchanged, with_manifests
from orchestrator.launch.inputs import missing_data
from orchestrator.launch.other_jobs import check_test_data_unseen, resolve_weights
from orchestrator.launch.preflight import ModelPreflight
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.rows import JobRecord
from orchestrator.records.states import JobState
from orchestrator.settings import Settings, private_folder
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store.store import Store, open_store
from orchestrator.tracking.process import _mirrored, tracked
from workers.trial import TrialSpec

log = logging.getLogger(__name__)


@dataclass
class Submitted:
    """The outcome of a submit."""

    job_id: str
    state: JobState
    tally: Tally
    message: str = ""
    """Why the job is incomplete, a line for each group; empty otherwise."""
    dashboard: str | None = None
    """Address of Ray's dashboard, if there is one."""
    tracking: str | None = None
    """What the tracking server lacks, and how to fill it in; None if nothing is missing."""
    files: dict[str, Path] = field(default_factory=dict)
    """The report, by form: html, md, csv, tex, json."""


@dataclass(frozen=True)
class Options:
    """How to run a job; what it computes is in its spec.

    Messages go to the logger "orchestrator", at level INFO.
    """

    cpus: int | None = None
    """CPUs of the local cluster; None: all of this machine's."""
    tracking: bool = True
    """Mirror the job into MLflow while it runs."""
    ship: bool = True
    """Send the project's code to the nodes of a cluster given by address."""
    watch: Callable[[Driver], None] = lambda driver: None
    """Called in each round of the control loop, to show progress."""


def submit(job: JobSpec, where: Settings, options: Options | None = None) -> Submitted:
    """Runs what is missing of a job; returns when it is done, incomplete, cancelled or interrupted.

    The same content again starts nothing. Raises NotFound if data or weights are missing, BackendUnreachable, Conflict;
    what is recorded by then is kept.
    """
    options = options or Options()
    make_folder(where.folder, private=True)
    with contextlib.closing(open_store(where.database_url)) as store:
        job, origins = resolve_weights(job, store)
        planned_job = with_manifests(job, where)
        durations = recorded_durations(store)
        planner = Planner(planned_job, durations)
        specs = [*planner.specs(), *planner.foreseen()]
        check_test_data_unseen(store, origins, specs)
        if missing := missing_data(specs, where.data_root):
            raise NotFound(missing)
        identity = job_id(job)
        check_unchanged(store, identity, planned_job)
        record_job(store, job, identity)
        store.lineage.put_origins(identity, origins)
        driver = Driver(store, job, identity, planner, _site(where), options.watch)
        result = Submitted(identity, JobState.running, driver.tally)
        unfinished = driver.prepare()
        track = options.tracking and (unfinished or not _mirrored(store, identity))
        preflight = ModelPreflight(planner.specs() if unfinished else [], durations, where.data_root)
        with contextlib.closing(preflight), tracked(identity, where, track) as tracking:
            result.state = _run(driver, where, options, result, preflight) if unfinished else driver.conclude()
        result.tracking = tracking.problem
        result.message = store.jobs.get(identity).message
        from orchestrator.report.publish import publish

        result.files = publish(store, identity, where)
        return result


def _run(driver: Driver, where: Settings, options: Options, result: Submitted, preflight: ModelPreflight) -> JobState:
    """Runs the driver on the cluster, which starts while the preflight builds the models."""
    from orchestrator.engine import ray_cluster
    from orchestrator.engine.ray_backend import RayBackend, require

    make_folder(where.storage)
    namespace = f"{ray_cluster.NAMESPACE}{hashlib.sha256(where.database_url.encode()).hexdigest()[:8]}"
    if where.address is None:
        log.info("starting Ray on this machine, or connecting to it ...")
    with ray_cluster.connected(where, namespace, options.cpus, options.ship) as cluster:
        result.dashboard = cluster.dashboard
        if cluster.dashboard:
            log.info("Ray dashboard: %s", cluster.dashboard)
        backend = RayBackend(f"{namespace}/", owner=driver.id)
        with refusal_recorded(driver.store, driver.job_id):
            require(backend, {stage.name: stage.resources or driver.job.resources for stage in driver.job.stages})
            preflight.end()
        with stops_on_signals(driver):
            return driver.run(backend)


@contextlib.contextmanager
def refusal_recorded(store: Store, identity: str) -> Iterator[None]:
    """Marks a job that is refused before its first trial as incomplete; a queued job would seem about to run."""
    try:
        yield
    except OrchestratorError as error:
        if store.jobs.get(identity).state is JobState.queued:  # else it ran before, or another driver runs it
            store.jobs.set_state(identity, JobState.incomplete, f"refused: {error}")
        raise


def _site(where: Settings) -> RunSite:
    return RunSite(where.storage, where.data_root, where.address or f"local:{where.folder}")


def record_job(store: Store, job: JobSpec, identity: str) -> None:
    """Records the job and its stages, once."""
    spec = job.model_dump(mode="json", by_alias=True)
    commit, dirty = provenance.git()
    store.jobs.put(
        JobRecord(
            identity, job.name, job.profile, spec, yaml.safe_dump(spec, sort_keys=False, allow_unicode=True),
            job.priority, commit, dirty, provenance.versions(),
        )
    )  # fmt: skip
    store.jobs.put_stages(identity, [(stage["name"], position, stage) for position, stage in enumerate(spec["stages"])])


def recorded_durations(store: Store) -> DurationModel:
    """Step times of the store's newest trials, without those whose spec has an older form."""
    from pydantic import ValidationError

    durations = DurationModel()
    for spec, snapshot in store.trials.timed():
        with contextlib.suppress(ValidationError):
            durations.record(TrialSpec.model_validate(spec), snapshot)
    return durations


def make_folder(folder: Path, private: bool = False) -> None:
    """Makes the folder if needed; `private`: so that no other user can enter it. Raises BackendUnreachable if it cannot
    be made or written to."""
    try:
        if private:
            private_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BackendUnreachable(
            f"cannot write to {folder}: {error.strerror}; choose another folder with --runs or ORCHESTRATOR_RUNS"
        ) from error


@contextlib.contextmanager
def stops_on_signals(driver: Driver) -> Iterator[None]:
    """On SIGINT or SIGTERM running trials write a checkpoint and stop; on a second one they are left running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: Any) -> None:
        if driver.stopping:
            raise KeyboardInterrupt
        log.info("stopping: running trials write a checkpoint (once more to leave them running)")
        driver.stop("interrupted")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
