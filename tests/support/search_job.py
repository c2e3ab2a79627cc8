"""Small jobs that search, and a trainer that makes figures up and waits for the decisions of the search."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import k12_job
from in_process_backend import Machine, drive_to_end
from k12_job import BASE, FINAL, RAND, figures

from orchestrator.records.rows import SearchEvent
from orchestrator.records.states import JobState
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store.store import Store
from workers.errors import Stopped
from workers.messages import Assignment, Outcome, Report, Weights

LONG = {**BASE, "optim": {"lr": 1e-3, "epochs": 9, "warmup_epochs": 0, "batch": 64}}
ASHA = {"asha": {"grace_epochs": 1, "reduction_factor": 3}}
RUNGS = (1, 3)
"""Epochs after which ASHA decides."""
RANGES = {"optim.lr": {"loguniform": [1e-4, 1e-2]}, "optim.layer_decay": {"uniform": [0.6, 1]}}
FROM_SEARCH = {**FINAL, "from": "search"}


def search(**fields: Any) -> dict[str, Any]:
    """A stage that searches; `fields` replace those of its sweep."""
    sweep = {
        "search": RANGES, "each": {"task.dataset": ["digits"], "backbone.init": [RAND]}, "trials": 7, "startup": 3,
        "at_once": 2, "stopping": ASHA,
    }  # fmt: skip
    return {"name": "search", "sweep": {**sweep, **fields}}


def job(*stages: dict[str, Any], **fields: Any) -> JobSpec:
    """A job of these stages, whose trials have nine epochs."""
    return k12_job.job(*stages, **{"trial": LONG, **fields})


class Trainer:
    """Makes figures up, epoch by epoch from the last checkpoint.

    At each rung it waits until the store has the search's decision, because a real epoch takes longer than a commit.
    """

    def __init__(self, store: Store, *jobs: JobSpec) -> None:
        self.store = store
        self.jobs = [
            each for each in jobs if any(getattr(stage.sweep, "stopping", "none") != "none" for stage in each.stages)
        ]
        self.at: Counter[str] = Counter()
        """Key -> epochs trained: the checkpoint."""
        self.trained: Counter[str] = Counter()
        """Key -> epochs that were computed, over all attempts."""
        self.wanted: set[str] = set()
        """Keys of trials that another job or stage wants in full, so that no order to stop comes."""

    def __call__(self, assignment: Assignment, emit: Any, stop: Callable[[], bool]) -> Outcome:
        trial, key = assignment.trial, assignment.trial.key
        metric, final = trial.task.metric, figures(trial)
        for epoch in range(1, trial.optim.epochs + 1):
            if epoch > self.at[key]:
                if stop():
                    raise Stopped
                self.trained[key] += 1
                self.at[key] = epoch
            values = {**final, metric: final[metric] - (1 / epoch - 1 / trial.optim.epochs)}
            emit(Report(epoch, epoch * 10, values, 0.01))
            self.wait(key, epoch, stop)
        weights = Weights(f"{assignment.folder}/weights", "0" * 64) if assignment.keep_weights else None
        return Outcome(final, {"train_seconds": 0.02, "step_seconds": 0.001, "device": "cpu"}, weights)

    def wait(self, key: str, epoch: int, stop: Callable[[], bool]) -> None:
        """Waits until every search of this trial has judged the rung, and, if one stopped it, for the order to stop."""
        until = time.monotonic() + (20 if key not in self.wanted else 0.3)
        while epoch in RUNGS and not stop() and time.monotonic() < until:
            events = [event for job in self.jobs for event in _events(self.store, job) if event.key == key]
            judged = [event for event in events if event.kind in ("continued", "stopped", "told")]
            if not events or any(
                event.kind == "told" or (event.kind == "continued" and event.body["epoch"] >= epoch) for event in judged
            ):
                return
            time.sleep(0.002)


def _events(store: Store, job: JobSpec) -> list[SearchEvent]:
    return [event for log in store.search_log.events(job_id(job)).values() for event in log]


def log_of(store: Store, job: JobSpec) -> list[SearchEvent]:
    """The events of the job's only search."""
    (events,) = store.search_log.events(job_id(job)).values()
    return events


def run(store: Store, job: JobSpec, folder: Path, slots: int = 1, **options: Any) -> tuple[JobState, Trainer, Machine]:
    """Drives the job to its end with a trainer of its own."""
    trainer = Trainer(store, job)
    machine = Machine(slots=slots, execute=trainer)
    state, _driver = drive_to_end(store, job, machine, folder, **options)
    return state, trainer, machine
