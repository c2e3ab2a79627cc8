"""Submits a job: looks up its weights, checks its data and models, drives it to its end, and writes its report."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.engine.backend import RunSite
from orchestrator.engine.driver import Driver
from orchestrator.engine.tally import Tally
from orchestrator.errors import BackendUnreachable, NotFound
from orchestrator.launch import provenance
from orchestrator.launch.data_manifests import check_unchanged, with_manifests
from orchestrator.launch.driving import Connection, drive
from orchestrator.launch.inputs import missing_data
from orchestrator.launch.job_plugins import with_plugins
from orchestrator.launch.notes import training_caveats
from orchestrator.launch.other_jobs import check_test_data_unseen, resolve_weights
from orchestrator.launch.preflight import ModelPreflight
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.rows import JobRecord
from orchestrator.records.states import JobState
from orchestrator.settings import Settings, private_folder
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store.store import Store, open_store
from orchestrator.tracking.process import MirrorProcess, mirrored
from workers.plugin_code import PluginCode, plugin_versions
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
    make_folder(where.folder)
    with contextlib.closing(open_store(where.database_url)) as store:
        job, plugins = with_plugins(job)
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
        for line in training_caveats(job):
            log.warning("%s", line)
        record_job(store, job, identity)
        store.lineage.put_origins(identity, origins)
        result = _drive(_Study(store, job, planned_job, identity, where, options, plugins), planner, durations)
        result.message = store.jobs.get(identity).message
        from orchestrator.report.publish import publish

        result.files = publish(store, identity, where)
        return result


@dataclass(frozen=True)
class _Study:
    """A recorded job and how to run it."""

    store: Store
    job: JobSpec
    planned_job: JobSpec
    """The job with its data manifests."""
    identity: str
    where: Settings
    options: Options
    plugins: tuple[PluginCode, ...]


def _drive(study: _Study, planner: Planner, durations: DurationModel) -> Submitted:
    """Drives the job to its end, with its mirror beside it, while the first models are built and the cluster starts."""
    store, identity, where, options = study.store, study.identity, study.where, study.options
    mirror = MirrorProcess(identity, where)

    def watch(driver: Driver) -> None:
        mirror.keep()
        options.watch(driver)

    def driver_of(planner: Planner) -> Driver:
        return Driver(store, study.job, identity, planner, _site(where, study.plugins), watch)

    first = driver_of(planner)
    result = Submitted(identity, JobState.running, first.tally)
    unfinished = first.prepare()
    record_claims(store, identity)  # when every trial that can be known is placed, and before any of them starts
    preflight = ModelPreflight(planner.specs() if unfinished else [], durations, where.data_root, study.plugins)

    def ready(cluster: Any) -> None:
        result.dashboard = cluster.dashboard
        if cluster.dashboard:
            log.info("Ray dashboard: %s", cluster.dashboard)
        preflight.end()

    track = options.tracking and (unfinished or not mirrored(store, identity))
    with contextlib.closing(preflight), mirror.running(track):
        if not unfinished:
            result.state = first.conclude()
        else:
            make_folder(where.storage)
            way = Connection(where, options.cpus, options.ship, ready)
            result.state = drive(first, lambda: driver_of(Planner(study.planned_job, recorded_durations(store))), way)
    result.tracking = mirror.problem
    return result


def _site(where: Settings, plugins: tuple[PluginCode, ...]) -> RunSite:
    return RunSite(where.storage, where.data_root, where.address or f"local:{where.folder}", plugins)


def record_job(store: Store, job: JobSpec, identity: str) -> None:
    """Records the job and its stages, once."""
    spec = job.model_dump(mode="json", by_alias=True)
    commit, dirty = provenance.git()
    store.jobs.put(
        JobRecord(
            identity, job.name, job.profile, spec, yaml.safe_dump(spec, sort_keys=False, allow_unicode=True),
            job.priority, commit, dirty, {**provenance.versions(), **plugin_versions(job.plugins)},
        )
    )  # fmt: skip
    store.jobs.put_stages(identity, [(stage["name"], position, stage) for position, stage in enumerate(spec["stages"])])


def record_claims(store: Store, identity: str) -> None:
    """Records when each claim of a job was first submitted, and how many of the trials that it reads had ended."""
    from orchestrator.report.claims import reads

    store.claims.submit(identity, reads(store, identity))


def recorded_durations(store: Store) -> DurationModel:
    """Step times of the store's newest trials, without those whose spec has an older form."""
    from pydantic import ValidationError

    durations = DurationModel()
    for spec, snapshot in store.trials.timed():
        with contextlib.suppress(ValidationError):
            durations.record(TrialSpec.model_validate(spec), snapshot)
    return durations


def make_folder(folder: Path) -> None:
    """Makes the folder, if needed, so that no other user can enter it; one that exists keeps its rights. Raises
    BackendUnreachable if it cannot be made or written to."""
    try:
        private_folder(folder)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BackendUnreachable(
            f"cannot write to {folder}: {error.strerror}; choose another folder with --runs or ORCHESTRATOR_RUNS"
        ) from error
