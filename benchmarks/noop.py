"""A trial that does nothing: overhead.py and memory.py run it, in our engine and under Tune."""

from __future__ import annotations

import gc
import json
import logging
import os
import platform
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import cloudpickle, tune

from orchestrator.engine import ray_cluster
from orchestrator.engine.backend import RunSite
from orchestrator.engine.driver import Driver
from orchestrator.engine.ray_backend import RayBackend
from orchestrator.launch.submit import record_job
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.settings import Settings, settings, sqlite_url
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store.address import sqlite_file
from orchestrator.store.store import open_store
from orchestrator.tracking import process
from workers.messages import Assignment, Outcome, Report, TrialUpdate

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the actors need not find this file

SLOTS = 2
VALUES = {"train_loss": 0.7, "loss": 0.8, "top1": 0.9, "lr": 1e-3}
FACTS: dict[str, Any] = {  # of the size that a real trial says
    "device": "cpu", "precision": "fp32", "channels_last": False, "compiled": False, "micro_batch": 32, "workers": 1,
    "threads": 1, "steps": 1000, "train_images": 700, "train_seconds": 5.0, "step_seconds": 0.005,
    "images_per_second": 6400.0, "gpu_memory_bytes": 0, "parameters": 204_362, "data_digest": "0" * 64,
    "resumed_at": None, "notes": [], "host": "node-1",
    "versions": dict.fromkeys(("python", "torch", "torchvision", "timm", "numpy"), "1.2.3"),
}  # fmt: skip


@dataclass
class Ends:
    """When trials ended (time.perf_counter), and what went before the first one."""

    times: list[float] = field(default_factory=list)
    planning: float = 0.0
    """Seconds of planning and recording all trials, where that is done before the first one starts."""
    whole: float = 0.0
    """Seconds of the whole call, start and end of actors included."""

    def per_trial(self) -> float:
        """Seconds per trial once the first has ended, and each one's part of the planning."""
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1) + self.planning / len(self.times)


def machine() -> str:
    load = os.getloadavg()
    return (
        f"{date.today()}, {platform.platform()}, {platform.machine()}, {os.cpu_count()} cores, load {load[0]:.1f} "
        f"(1 min) {load[1]:.1f} (5 min); Python {platform.python_version()}, ray {ray.__version__}, "
        f"SQLite {sqlite3.sqlite_version}"
    )


@contextmanager
def small_ray() -> Iterator[None]:
    """A local cluster as `submit` starts it, with as many CPUs as slots; its start is in no figure."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    where = settings(folder=folder)
    try:
        with ray_cluster.connected(replace(where, address=None), "benchmark", cpus=SLOTS):
            yield
    finally:
        end_cluster(folder)
        shutil.rmtree(folder, ignore_errors=True)


def end_cluster(folder: Path) -> None:
    """Ends the local cluster of this folder now; it would leave by itself two minutes later."""
    try:
        head = psutil.Process(json.loads((folder / "ray.json").read_text())["pid"])
    except (OSError, psutil.NoSuchProcess):
        return
    family = [head, *head.children(recursive=True)]
    head.terminate()
    for member in psutil.wait_procs(family, timeout=20)[1]:
        member.kill()


def resident_kb() -> float:
    """Resident memory of this process, garbage collected."""
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 1024


# Ours


def nothing(given: Assignment, emit: Callable[[Report], None], stop: Callable[[], bool]) -> Outcome:
    """A trial that reports once."""
    emit(Report(1, 1, VALUES, 0.0))
    return Outcome({"top1": 0.9, "loss": 0.8}, FACTS)


def job_of(count: int) -> JobSpec:
    """A grid of `count` learning rates."""
    return JobSpec.model_validate(
        {
            "name": f"noop-{count}",
            "trial": {
                "task": {"kind": "classify", "dataset": "digits"},
                "backbone": {"model": "vit_tiny_patch16_224", "image_size": 32},
                "optim": {"lr": 1e-3, "epochs": 10, "warmup_epochs": 1, "batch": 64},
            },
            "stages": [
                {"name": "grid", "sweep": {"grid": {"optim.lr": [round(1e-6 * n, 12) for n in range(1, count + 1)]}}}
            ],
        }
    )


class Timed(RayBackend):
    """Our pool, which notes when trials ended."""

    ends: Ends

    def acknowledge(self, news: TrialUpdate, worker: Any) -> None:
        super().acknowledge(news, worker)
        if news.ended:
            self.ends.times.append(time.perf_counter())


def ours(
    count: int,
    folder: Path,
    mirrored: bool = False,
    watch: Callable[[Driver], None] = lambda drive: None,
    planned: Callable[[], None] = lambda: None,
) -> Ends:
    """The engine as `submit` runs it: planner, SQLite store (synchronous FULL), drive, pool. In a fresh folder.

    `mirrored`: the process that mirrors the job into MLflow works beside it, as in a submit with tracking.
    """
    where = settings(folder=folder, database_url=sqlite_url(folder / "store.db"), data_root=folder)
    job, ends = job_of(count), Ends()
    with closing(open_store(where.database_url)) as store:
        begun = time.perf_counter()
        identity = job_id(job)
        record_job(store, job, identity)
        site = RunSite(where.storage, folder, "benchmark")
        drive = Driver(store, job, identity, Planner(job, DurationModel()), site, watch)
        drive.prepare()
        ends.planning = time.perf_counter() - begun
        planned()
        with _no_messages(), process.MirrorProcess(identity, where).running(mirrored) as tracking:
            if mirrored:
                _wait_for_mirror(where, job.name)
            pool = Timed(f"benchmark-{time.time_ns()}/", nothing, owner=drive.id)
            pool.ends = ends
            begun = time.perf_counter()
            state = drive.run(pool)
            ends.whole = time.perf_counter() - begun + ends.planning
        if state != "done" or len(ends.times) != count:
            raise RuntimeError(f"the job is {state}, {len(ends.times)} of {count} trials ended")
        if mirrored and (tracking.problem or len(store.tracked_runs.of(identity)) != count + 1):
            raise RuntimeError(f"the mirror has {len(store.tracked_runs.of(identity))} runs: {tracking.problem}")
    return ends


class _Unexpected(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError(record.getMessage())


@contextmanager
def _no_messages() -> Iterator[None]:
    """Raises RuntimeError with the first message that the driver has for its user."""
    logger, handler = logging.getLogger("orchestrator"), _Unexpected()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _wait_for_mirror(where: Settings, experiment: str) -> None:
    """Until MLflow is imported there and its new database made (seconds, once for each folder)."""
    file = str(sqlite_file(where.tracking_uri))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
                if connection.execute("SELECT 1 FROM experiments WHERE name = ?", (experiment,)).fetchone():
                    return
        except sqlite3.OperationalError:
            pass  # not made yet
        time.sleep(0.1)
    raise RuntimeError("the mirror did not begin within 120 s")


# Ray Tune


def function_trainable(config: dict[str, Any]) -> None:
    tune.report(VALUES)


class ClassTrainable(tune.Trainable):
    """Reports once and is done; takes the next trial in the same actor."""

    def step(self) -> dict[str, Any]:
        return {**VALUES, "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True


class Noting(tune.Callback):
    """Notes when trials ended, and calls `after` then; costs microseconds."""

    def __init__(self, ends: Ends, after: Callable[[int], None] = lambda count: None) -> None:
        self.ends, self.after = ends, after

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.ends.times.append(time.perf_counter())
        self.after(len(self.ends.times))


TUNED = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # no snapshots of the experiment's state while it runs
    "TUNE_MAX_PENDING_TRIALS_PG": str(SLOTS),  # no more trials prepared than there are slots
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
"""What someone who knows Tune turns off; with it a killed driver loses what it had, unlike ours."""


def default_tune(count: int, folder: Path) -> Ends:
    """A function that reports once, every setting as it comes (a fresh actor for each trial, all loggers)."""
    ends = Ends()
    config = tune.RunConfig(storage_path=str(folder), callbacks=[Noting(ends)])
    tuner = tune.Tuner(function_trainable, param_space={"i": tune.grid_search(list(range(count)))}, run_config=config)
    return _fit(tuner, ends, count)


def tuned_tune(count: int, folder: Path, after: Callable[[int], None] = lambda count: None) -> Ends:
    """A class with reuse_actors, no loggers, no output, no snapshots, as many trials at once as slots."""
    ends = Ends()
    before = {name: os.environ.get(name) for name in TUNED}
    os.environ.update(TUNED)
    try:
        tuner = tune.Tuner(
            ClassTrainable,
            param_space={"i": tune.grid_search(list(range(count)))},
            tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=SLOTS),
            run_config=tune.RunConfig(
                storage_path=str(folder),
                callbacks=[Noting(ends, after)],
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            ),
        )
        return _fit(tuner, ends, count)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _fit(tuner: tune.Tuner, ends: Ends, count: int) -> Ends:
    begun = time.perf_counter()
    results = tuner.fit()
    ends.whole = time.perf_counter() - begun
    if results.num_errors or len(results) != count or len(ends.times) != count:
        raise RuntimeError(f"{results.num_errors} of {len(results)} trials failed, {len(ends.times)} noted")
    return ends


def spread(values: Sequence[float], form: str = "{:8.1f}") -> str:
    """Median, and the lowest and highest of several runs."""
    shown = form.format(statistics.median(values))
    return f"{shown}  ({form.format(min(values)).strip()} to {form.format(max(values)).strip()})"
