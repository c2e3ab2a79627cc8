"""What submit makes and records around a job: its folders, and why it did not start."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from k12_job import PRETRAIN, job

from orchestrator.engine import ray_cluster
from orchestrator.errors import BackendUnreachable
from orchestrator.launch.driving import Connection, drive
from orchestrator.launch.submit import make_folder, record_job
from orchestrator.records.states import JobState
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
