"""Two jobs of which one starts from the other's weights, for tests of what leads from one to the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from in_process_backend import Machine, drive_to_end
from k12_job import FINAL, PRETRAIN, RAND, SUP, grid, job

from orchestrator.engine.plan_rows import placement_of
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.states import JobState
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store import tables
from orchestrator.store.store import Store

SMALL = {"dataset": ["digits"], "init": [SUP], "lr": [1e-4, 6e-4, 1e-3], "layer_decay": [0.85]}
FROM_OTHER = {"kind": "stage", "name": "MIM", "job": "pre", "stage": "pretrain"}
SEVERAL = {**PRETRAIN, "sweep": {"grid": {"optim.lr": [1e-4, 6e-4]}}, "keep_weights": True}
"""Several pre-trainings, of which the second is the best (see k12_job.figures)."""


def giving(*stages: dict[str, Any], **fields: Any) -> JobSpec:
    """The job whose weights are taken."""
    return job(*(stages or (SEVERAL,)), **{"name": "pre", **fields})


def taking(init: dict[str, Any] = FROM_OTHER, **fields: Any) -> JobSpec:
    """The job that starts from them, beside trials from scratch."""
    return job(grid(**{**SMALL, "init": [RAND, init]}), FINAL | {"from": "grid"}, name="user", **fields)


def run(store: Store, what: JobSpec, folder: Path, machine: Machine | None = None) -> Machine:
    """Drives the job until it is done."""
    machine = machine or Machine()
    state, _ = drive_to_end(store, what, machine, folder)
    assert state is JobState.done, store.jobs.get(job_id(what)).message
    return machine


def only(store: Store, what: JobSpec, stage: str) -> str:
    """Key of the stage's only trial."""
    (row,) = store.trials.placed(job_id(what), stage)
    return row.key


def placed_by_a_planner(store: Store, what: JobSpec) -> list[str]:
    """Keys of the job's first trials, which are recorded as pending."""
    placements = [placement_of(planned) for planned in Planner(what, DurationModel()).placed]
    store.trials.place(job_id(what), placements)
    return [placement.key for placement in placements]


def forget_by_force(store: Store, key: str) -> None:
    """Removes the record of a trial's weights, even if they are needed."""
    gone = sa.update(tables.trials).where(tables.trials.c.key == key).values(weights_path=None, weights_sha256=None)
    store._db.write(lambda connection: connection.execute(gone) and None)
