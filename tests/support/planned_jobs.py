"""Runs a real spec to its end in a store without training anything: the planner places trials, a formula measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.engine.plan_rows import choice_of, placement_of
from orchestrator.launch.other_jobs import assumed_snapshots
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.rows import JobRecord
from orchestrator.records.writes import Finished
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store.leases import driver_here
from orchestrator.store.store import Store

Measured = Callable[[PlannedTrial], Mapping[str, float]]


def run(
    store: Store,
    job: JobSpec,
    measured: Measured,
    only: Callable[[PlannedTrial], bool] = lambda trial: True,
    facts: Mapping[str, Any] | None = None,
) -> str:
    """Every trial that `only` takes ends with the figures that `measured` says; returns the job's id. `facts`: of each
    trial."""
    identity, planner = job_id(job), Planner(job, DurationModel())
    store.jobs.put(JobRecord(identity, job.name, job.profile, job.model_dump(mode="json", by_alias=True), ""))
    driver = driver_here(f"driver of {identity}", identity, "local", slots=1)
    store.leases.register(driver)
    planner_knows = assumed_snapshots(planner.outside())
    for key, snapshot in planner_knows.items():
        planner.update(key, snapshot)
    store.trials.place(identity, [placement_of(trial) for trial in planner.placed])
    while trial := planner.next(only):
        store.leases.claim(driver.id, [trial.key])
        weights = (f"{trial.key}.safetensors", "0" * 64)
        store.trials.commit(driver.id, [Finished(trial.key, 1, measured(trial), facts or {}, weights)])
        placed, decisions = planner.update(trial.key, store.trials.snapshots([trial.key])[trial.key])
        store.trials.place(identity, [placement_of(each) for each in placed])
        for decision in decisions:
            store.choices.record(identity, choice_of(decision))
    store.jobs.set_state(identity, "done" if planner.finished() and not planner.incomplete() else "incomplete")
    store.leases.unregister(driver.id)
    return identity
