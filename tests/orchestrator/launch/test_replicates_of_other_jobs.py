"""Weights of another job's stage with replicates: replicate i starts from its replicate i."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from k12_job import FINAL, RAND, grid, job
from two_jobs import FROM_OTHER, SEVERAL, SMALL, forget_by_force, giving, run, taking

from orchestrator.errors import NotFound, SpecError
from orchestrator.launch.other_jobs import resolve_weights
from orchestrator.launch.submit import record_job
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.rows import PlacedRow
from orchestrator.report.verify import verify
from orchestrator.rules.retention import reasons
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store.store import Store, open_store

GIVING = giving({**SEVERAL, "replicates": 3})


def taking_with(replicates: int | None) -> JobSpec:
    final = {**FINAL, "from": "grid", "replicates": replicates}
    return job(grid(**{**SMALL, "init": [RAND, FROM_OTHER]}), final, name="user")


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()


def best_of(store: Store, giver: JobSpec) -> list[PlacedRow]:
    """Its replicates with the best learning rate."""
    return [row for row in store.trials.placed(job_id(giver)) if row.settings["optim.lr"] == 6e-4]


def test_each_replicate_starts_from_another_one(store: Store, tmp_path: Path) -> None:
    run(store, GIVING, tmp_path)
    best = best_of(store, GIVING)
    wanted, origins = resolve_weights(taking_with(3), store)
    assert [(each.key, each.value, each.candidates) for each in origins] == [(row.key, row.value, 2) for row in best]
    record_job(store, wanted, job_id(wanted))
    store.lineage.put_origins(job_id(wanted), origins)
    assert {row.key for row in best} <= set(reasons(store.weights.retention_facts()))
    again, same = resolve_weights(taking_with(3), store)
    assert (job_id(again), same) == (job_id(wanted), origins)
    run(store, wanted, tmp_path)
    mim = [row for row in store.trials.placed(job_id(wanted)) if row.group == "digits/MIM"]
    of_stage = {stage: [store.trials.get(row.key) for row in mim if row.stage == stage] for stage in ("grid", "final")}
    assert {row.parent for row in of_stage["grid"]} == {best[0].key}
    assert [(row.seed, row.parent) for row in of_stage["final"]] == [(1 + n, row.key) for n, row in enumerate(best)]
    assert all("replicates" not in row.spec["backbone"]["init"] for row in of_stage["final"])
    assert verify(store, job_id(wanted)) == []


def test_a_job_without_replicates_starts_from_the_first(store: Store, tmp_path: Path) -> None:
    run(store, GIVING, tmp_path)
    first, *others = best_of(store, GIVING)
    for row in others:
        forget_by_force(store, row.key)  # nobody needs these
    wanted, (origin,) = resolve_weights(taking(), store)
    assert origin.key == first.key
    (init,) = [axes["backbone.init"][1] for axes in wanted.stages[0].sweep.grid]  # type: ignore[union-attr]
    assert init == {"kind": "trial", "name": "MIM", "trial": first.key}
    run(store, wanted, tmp_path)
    mim = [row.key for row in store.trials.placed(job_id(wanted), "grid") if row.group == "digits/MIM"]
    assert {store.trials.get(key).parent for key in mim} == {first.key}


def test_another_number_of_replicates_is_refused(store: Store, tmp_path: Path) -> None:
    run(store, GIVING, tmp_path)
    wanted, _ = resolve_weights(taking_with(2), store)
    with pytest.raises(SpecError, match="stage final: runs 2 seeds, but starts from MIM of another job, which has 3"):
        Planner(wanted, DurationModel())


def test_weights_of_every_replicate_are_needed(store: Store, tmp_path: Path) -> None:
    run(store, GIVING, tmp_path)
    last = best_of(store, GIVING)[-1]
    forget_by_force(store, last.key)
    with pytest.raises(NotFound, match=f"its best trial is {last.name} .*whose weights were not kept"):
        resolve_weights(taking_with(3), store)
