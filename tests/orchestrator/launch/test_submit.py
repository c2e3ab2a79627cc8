"""What submit makes and records around a job: its folders, and why it did not start."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from k12_job import FINAL, PRETRAIN, grid, job

from orchestrator.engine import ray_cluster
from orchestrator.errors import BackendUnreachable
from orchestrator.launch.driving import Connection, drive
from orchestrator.launch.submit import make_folder, record_claims, record_job
from orchestrator.records.states import JobState
from orchestrator.report import claim_words
from orchestrator.report.build import build
from orchestrator.settings import settings
from orchestrator.spec.job import job_id
from orchestrator.store.store import Store, open_store

JOB = job(PRETRAIN)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


def test_a_runs_folder_is_its_owners_alone_and_one_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    def mode(folder: Path) -> int:
        return stat.S_IMODE(folder.stat().st_mode)

    make_folder(tmp_path / "runs")
    assert mode(tmp_path / "runs") == 0o700
    (tmp_path / "shared").mkdir(mode=0o750)
    make_folder(tmp_path / "shared")
    assert mode(tmp_path / "shared") == 0o750
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("before", "after"), [(JobState.queued, JobState.interrupted), (JobState.incomplete, JobState.incomplete)]
)
def test_a_job_whose_cluster_does_not_start_is_not_about_to_run(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: JobState, after: JobState
) -> None:
    from in_process_backend import prepared_driver

    driver = prepared_driver(store, JOB, tmp_path)
    store.jobs.set_state(driver.job_id, before)

    def fails(folder: Path, cpus: int | None) -> None:
        assert [each.id for each in store.leases.drivers()] == [driver.id]
        raise BackendUnreachable("the local Ray cluster did not start: waited 120 s")

    monkeypatch.setattr(ray_cluster, "_start", fails)
    connection = Connection(settings(tmp_path, address=""), None, False, lambda cluster: None)
    with pytest.raises(BackendUnreachable, match="did not start"):
        drive(driver, lambda: driver, connection)
    row = store.jobs.get(driver.job_id)
    assert row.state is after
    if before is JobState.queued:
        assert row.message == "Ray did not start: the local Ray cluster did not start: waited 120 s"
    assert store.leases.drivers() == []


def test_a_later_submit_withdraws_a_request_to_cancel(store: Store) -> None:
    identity = job_id(JOB)
    record_job(store, JOB, identity)
    store.jobs.request_cancel(identity)
    assert store.jobs.cancel_requested(identity)
    record_job(store, JOB, identity)
    assert not store.jobs.cancel_requested(identity)


CLAIM = {
    "name": "sup-ahead", "relation": "above", "right": 1,
    "left": {"row": "SUP", "column": "digits", "stage": "final"},
}  # fmt: skip


def test_a_claim_is_recorded_before_any_trial_starts_and_one_added_later_says_so(store: Store, tmp_path: Path) -> None:
    """The job with the added claim has no new run: when it is prepared, all its trials are placed and ended."""
    from in_process_backend import Machine, drive_to_end, prepared_driver

    stages = (PRETRAIN, grid(dataset=["digits"], lr=[1e-3], layer_decay=[0.75, 0.85]), FINAL | {"from": ["grid"]})
    first = job(*stages, claims=[CLAIM])
    driver = prepared_driver(store, first, tmp_path)
    record_claims(store, driver.job_id)
    (row,) = store.claims.of("k12", "").values()
    assert (row.ended, row.total) == (0, 0), "the final trial is not known yet"
    drive_to_end(store, first, machine := Machine(), tmp_path)
    (early,) = build(store, driver.job_id).claims
    assert claim_words.written_text(early) == "written before"
    late = job(*stages, claims=[CLAIM, {**CLAIM, "name": "late", "relation": "below"}])
    runs = machine.ran.total()
    record_claims(store, prepared_driver(store, late, tmp_path).job_id)
    kept, added = build(store, job_id(late)).claims
    assert [claim_words.written_text(each) for each in (kept, added)] == ["written before", "after 1 of 1 results"]
    assert machine.ran.total() == runs
