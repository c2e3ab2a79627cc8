"""The only place that puts the parts together: from a job and settings to a driven job with its report."""

from __future__ import annotations

import contextlib
import hashlib
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
from orchestrator.settings import Settings
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store.store import Store, open_store
from orchestrator.tracking.process import _mirrored, tracked
from workers.trial import TrialSpec


@dataclass
class Submitted:
    """What a submit came to."""

    job_id: str
    state: JobState
    tally: Tally
    message: str = ""
    dashboard: str | None = None
    tracking: str | None = None
    """Why the tracking server lacks something, if it does."""
    files: dict[str, Path] = field(default_factory=dict)
    """The report, by form: html, md, csv, tex, json."""


@dataclass(frozen=True)
class Options:
    """How to run, as against what."""

    cpus: int | None = None
    """CPUs of the local cluster (none: all of this machine's)."""
    tracking: bool = True
    ship: bool = True
    """Send the project's code to the nodes of a cluster given by address."""
    watch: Callable[[Driver], None] = lambda drive: None
    say: Callable[[str], None] = lambda line: None


def submit(job: JobSpec, where: Settings, options: Options | None = None) -> Submitted:
    """Runs what is missing of a job and returns when it is done, Incomplete, cancelled or interrupted.

    The same content again starts nothing. Raises NotFound when data or weights are not there, BackendUnreachable,
    Conflict; nothing recorded is lost by any of them.
    """
    options = options or Options()
    make_folder(where.folder)
    with contextlib.closing(open_store(where.database_url)) as store:
        job, origins = resolve_weights(job, store, options.say)
        told = with_manifests(job, where)
        speed = recorded_speed(store)
        planner = Planner(told, speed)
        check_test_data_unseen(store, origins, [*planner.specs(), *planner.foreseen()])
        missing = missing_data([*planner.specs(), *planner.foreseen()], where.data_root)
        if missing:
            raise NotFound(missing)
        identity = job_id(job)
        check_unchanged(store, identity, told)
        record_job(store, job, identity)
        store.lineage.put_origins(identity, origins)
        drive = Driver(store, job, identity, planner, _site(where), options.watch, options.say)
        result = Submitted(identity, JobState.running, drive.tally)
        left = drive.prepare()
        mirrored = not left and _mirrored(store, identity)
        rehearsal = ModelPreflight(planner.specs() if left else [], speed, where.data_root)
        with contextlib.closing(rehearsal), tracked(identity, where, options.tracking and not mirrored) as tracking:
            result.state = _run(drive, where, options, result, rehearsal) if left else drive.conclude()
        result.tracking = tracking.problem
        result.message = store.jobs.get(identity).message
        from orchestrator.report.publish import publish

        result.files = publish(store, identity, where)
        return result


def _run(drive: Driver, where: Settings, options: Options, result: Submitted, rehearsal: ModelPreflight) -> JobState:
    from orchestrator.engine import ray_cluster
    from orchestrator.engine.ray_backend import RayBackend, require

    make_folder(where.storage)
    namespace = f"{ray_cluster.NAMESPACE}{hashlib.sha256(where.database_url.encode()).hexdigest()[:8]}"
    if where.address is None:
        options.say("starting Ray on this machine (or finding it started) ...")
    with ray_cluster.connected(where, namespace, options.cpus, options.ship) as connection:
        result.dashboard = connection.dashboard
        if connection.dashboard:
            options.say(f"Ray dashboard: {connection.dashboard}")
        pool = RayBackend(f"{namespace}/", owner=drive.id)
        with refusal_kept(drive.store, drive.job_id):
            require(pool, {stage.name: stage.resources or drive.job.resources for stage in drive.job.stages})
            rehearsal.end()
        with stops_on_signals(drive, options.say):
            return drive.run(pool)


@contextlib.contextmanager
def refusal_kept(store: Store, identity: str) -> Iterator[None]:
    """A job that is refused before its first trial is not left queued, which would promise that it is to run."""
    try:
        yield
    except OrchestratorError as error:
        if store.jobs.get(identity).state is JobState.queued:  # else it ran before, or another driver has it
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


def recorded_speed(store: Store) -> DurationModel:
    """Step times of the store's newest trials; rows of an older form of spec are passed over."""
    from pydantic import ValidationError

    speed = DurationModel()
    for spec, known in store.trials.timed():
        with contextlib.suppress(ValidationError):
            speed.record(TrialSpec.model_validate(spec), known)
    return speed


def make_folder(folder: Path) -> None:
    """Raises BackendUnreachable when the folder cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BackendUnreachable(
            f"cannot write to {folder}: {error.strerror}; choose another folder with --runs or ORCHESTRATOR_RUNS"
        ) from error


@contextlib.contextmanager
def stops_on_signals(drive: Driver, say: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM: running trials write checkpoints and leave; a second one leaves them running at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: Any) -> None:
        if drive.stopping:
            raise KeyboardInterrupt
        say("stopping: running trials write a checkpoint (once more to leave them running)")
        drive.stop("interrupted")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
