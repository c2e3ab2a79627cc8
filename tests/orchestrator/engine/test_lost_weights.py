"""Weights that gc removed are recomputed when they are needed again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_process_backend import Machine, ThreadBackend, drive_to_end, made_up, prepared_driver
from k12_job import BASE, FINAL, PRETRAIN, SUP, figures, grid, job, planner_of
from stored_job import elsewhere as driver_elsewhere
from two_jobs import SEVERAL, SMALL, forget_by_force, giving, only, placed_by_a_planner, run

from orchestrator.engine import collector
from orchestrator.launch.submit import record_job
from orchestrator.records.rows import DriverRow
from orchestrator.records.states import JobState, TrialSnapshot, TrialState
from orchestrator.records.writes import Failed, Finished, Write
from orchestrator.spec.job import job_id
from orchestrator.store.store import Store, open_store
from workers.errors import ErrorClass, TrialError
from workers.trial import TrialSpec

LONGER = job(PRETRAIN, grid(**{**SMALL, "lr": [1e-4, 6e-4, 1e-3, 2e-3]}))


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()


def test_a_chain_whose_weights_are_gone_runs_again_from_its_start() -> None:
    """3 starts from 2, which started from 1; the weights of 1 and 2 are gone."""
    first = {"name": "first", "override": {"task.dataset": "digits-pretrain"}}
    second = {"name": "second", "override": {"backbone.init": {**SUP, "stage": "first"}}}
    third = {"name": "third", "override": {"backbone.init": {**SUP, "stage": "second"}, "task.dataset": "faces"}}
    planner = planner_of(first, second, third)
    lost = TrialSnapshot(TrialState.done, figures={"top1": 1.0, "mean_per_class": 1.0, "loss": 0.0})
    for name in ("first", "second"):
        (planned,) = [each for each in planner.placed if each.stage == name]
        planner.update(planned.key, lost)
    handed = []
    while planned := planner.next(lambda _: True):
        handed.append(planned.stage)
        weights = (planned.key, "0" * 64) if planned.keep_weights else None
        figures = {planned.spec.task.metric: 1.0, "loss": 0.0}
        planner.update(planned.key, TrialSnapshot(TrialState.done, figures=figures, weights=weights))
    assert handed == ["first", "second", "third"]
    assert planner.finished()
    assert planner.incomplete() == []


def test_a_lost_parent_of_another_job_is_named_also_behind_a_done_trial() -> None:
    """3 starts from 2, which has no weights and started from a trial elsewhere, which has none either."""
    elsewhere = TrialSpec.model_validate({**BASE, "seed": 9}).key
    init = {"kind": "trial", "name": "MIM", "trial": elsewhere}
    second = {"name": "second", "override": {"backbone.init": init}}
    third = {"name": "third", "override": {"backbone.init": {**SUP, "stage": "second"}, "task.dataset": "faces"}}
    planner = planner_of(second, third)
    assert planner.outside() == [elsewhere]
    lost = TrialSnapshot(TrialState.done, figures={"top1": 1.0, "loss": 0.0})
    planner.update(elsewhere, lost)
    planner.update(planner.placed[0].key, lost)
    assert planner.next(lambda _: True) is None
    assert planner.finished()
    assert any("third" in line and f"pin {elsewhere[:12]}" in line for line in planner.incomplete())


def test_a_longer_study_runs_after_gc_removed_what_it_could(store: Store, tmp_path: Path) -> None:
    """The study is done and its pre-training's weights are removed by hand; a longer study needs them again."""
    short = job(PRETRAIN, grid(**SMALL))
    machine = run(store, short, tmp_path)
    pretrain = only(store, short, "pretrain")
    forget_by_force(store, pretrain)
    run(store, LONGER, tmp_path, machine)
    assert machine.ran[pretrain] == 2
    assert store.trials.get(pretrain).weights is not None
    assert store.jobs.get(job_id(LONGER)).state is JobState.done


def test_a_trial_whose_process_dies_while_it_runs_again_for_its_weights_is_restarted(
    store: Store, tmp_path: Path
) -> None:
    short = job(PRETRAIN, grid(**SMALL))
    run(store, short, tmp_path)
    pretrain = only(store, short, "pretrain")
    forget_by_force(store, pretrain)
    started: list[str] = []

    def dies_at_first(assignment: Any, emit: Any, stop: Any) -> Any:
        started.append(assignment.trial.key)
        if len(started) == 1:
            raise TrialError(ErrorClass.node_lost, "another worker of the trial is gone")
        return made_up(assignment, emit, stop)

    run(store, LONGER, tmp_path, Machine(execute=dies_at_first))
    assert started[:2] == [pretrain, pretrain]
    assert [attempt.cause for attempt in store.trials.attempts(pretrain)] == ["done", "node_lost", "done"]


@pytest.mark.parametrize("failed", [False, True])
def test_weights_that_another_driver_did_not_keep_are_made_here(store: Store, tmp_path: Path, failed: bool) -> None:
    """It claimed the trial first. Its job keeps no weights; or it ran it again for them, and `failed`."""
    short = job(PRETRAIN, grid(**SMALL))
    if failed:
        run(store, short, tmp_path)
        forget_by_force(store, only(store, short, "pretrain"))
    driver = prepared_driver(store, LONGER, tmp_path)
    pretrain = only(store, LONGER, "pretrain")
    store.leases.register(driver_elsewhere("other", driver.job_id))
    (token,) = store.leases.claim("other", [pretrain], for_weights=failed).values()
    end: Write = Finished(pretrain, token, figures(driver.planned_trials[pretrain].spec))
    if failed:
        end = Failed(pretrain, token, "code", "its own")

    class Late(ThreadBackend):
        polls = 0

        def poll(self, timeout_s: float) -> Any:
            self.polls += 1
            if self.polls == 2:  # this driver has asked for the trial, too
                store.trials.commit("other", [end])
                store.leases.unregister("other")
                driver._membership._last_beat = float("-inf")
            return super().poll(0.01)

    machine = Machine()
    assert driver.run(Late(machine, driver.id)) is JobState.done, store.jobs.get(driver.job_id).message
    assert machine.ran[pretrain] == 1
    assert store.trials.get(pretrain).weights is not None


def test_gc_leaves_a_running_study_alone(store: Store, tmp_path: Path) -> None:
    """Called again and again while drivers work, with real files: no trial misses the weights it starts from."""

    def with_files(assignment: Any, emit: Any, stop: Any) -> Any:
        for weights in assignment.parents.values():
            assert Path(weights.path).read_bytes() == b"weights"
        outcome = made_up(assignment, emit, stop)
        folder = Path(assignment.folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "checkpoint-000000010-0.pt").write_bytes(b"c")
        if outcome.weights is None:
            return outcome
        path = folder / "weights.safetensors"
        path.write_bytes(b"weights")
        return replace(outcome, weights=replace(outcome.weights, path=str(path)))

    storage = tmp_path / "storage"
    removed: list[collector.Item] = []

    def watch(driver: Any) -> None:
        removed.extend(
            collector.remove(store, storage, collector.plan(store, storage, collector.Options(checkpoints=True))).items
        )

    study = job(SEVERAL, grid(**{**SMALL, "lr": [1e-4, 6e-4]}), FINAL | {"from": "grid"})
    state, driver = drive_to_end(store, study, Machine(execute=with_files), tmp_path, watch=watch)
    assert state is JobState.done
    assert driver.tally.started == 5
    assert all(item.kind != "weights" for item in removed)
    collector.remove(store, storage, collector.plan(store, storage))
    rows = {row.name: row for row in store.trials.placed(job_id(study))}
    kept = {name.split("/")[0] for name, row in rows.items() if store.trials.get(row.key).weights}
    assert kept == {"pretrain", "final"}
    assert len(list(storage.rglob("weights.safetensors"))) == 2
    assert list(storage.rglob("checkpoint-*")) == []


def test_the_driver_row_of_another_host_counts_as_alive(store: Store, tmp_path: Path) -> None:
    """A pending trial keeps its checkpoints if a driver on another host drives its job."""
    giver = giving()
    record_job(store, giver, job_id(giver))
    key = placed_by_a_planner(store, giver)[0]
    folder = tmp_path / "storage" / "trials" / key[:2] / key
    folder.mkdir(parents=True)
    (folder / "checkpoint-000000010-0.pt").write_bytes(b"c")
    store.leases.register(DriverRow("far", "elsewhere", 1, 0.0, job_id(giver), "cluster"))
    options = collector.Options(checkpoints=True)
    assert collector.plan(store, tmp_path / "storage", options).items == []
    store.leases.unregister("far")
    assert len(collector.plan(store, tmp_path / "storage", options).items) == 1
