"""Results can be read with the right to read alone, on a full disk, and while a job writes: looking writes nothing."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from other_user import as_ordinary_user
from recorded_study import Plot, Study

from orchestrator.errors import BackendUnreachable, NotFound
from orchestrator.report.build import build
from orchestrator.report.describe import job as described
from orchestrator.report.status import ls, status
from orchestrator.settings import settings
from orchestrator.store.store import Store, open_store, open_to_look


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, closed properly."""
    folder = tmp_path_factory.mktemp("looking")
    with closing(open_store(f"sqlite:///{folder / 'store.db'}")) as store:
        Study(store, Plot(data_sets=("digits", "faces"), seeds=(0,))).run()
    assert [path.name for path in folder.iterdir()] == ["store.db"]
    return folder


@pytest.fixture
def folder(recorded: Path) -> Iterator[Path]:
    # Not under pytest's folder, which every start of pytest makes private again.
    above = Path(tempfile.mkdtemp(prefix="looking-"))
    above.chmod(0o755)
    yield Path(shutil.copytree(recorded, above / "a%20b #?"))
    shutil.rmtree(above)


def look(folder: Path) -> Store:
    return open_to_look(settings(folder=folder))


def everything(folder: Path) -> str:
    """What the looking commands print."""
    with closing(look(folder)) as store:
        job = store.jobs.all()[0].id
        assert store.trials.reports(store.trials.placed(job)[3].key)
        views = (ls(store), status(store, job), described(store, job))
        values = [cell.value for cell in build(store, job).cells]
        return "\n".join([*(view.text() for view in views), repr(values)])


@pytest.fixture
def read_only(folder: Path) -> Iterator[Callable[[], Path]]:
    """Takes away every right to write, from the folder and from its files."""

    def close() -> Path:
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        return folder

    yield close
    folder.chmod(0o755)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_looking_leaves_every_byte_as_it_was(folder: Path) -> None:
    before = contents(folder)
    assert "k12-grid" in everything(folder)
    assert contents(folder) == before


def test_the_right_to_read_is_enough(read_only: Callable[[], Path], recorded: Path) -> None:
    folder = read_only()
    assert as_ordinary_user(lambda: everything(folder)) == everything(recorded)


def test_the_right_to_read_is_enough_while_a_job_writes(folder: Path, read_only: Callable[[], Path]) -> None:
    with closing(open_store(settings(folder=folder).database_url)) as store:
        job = store.jobs.all()[0].id
        store.jobs.set_state(job, "incomplete", "written last")
        assert {path.name for path in folder.iterdir()} == {"store.db", "store.db-wal", "store.db-shm"}
        read_only()
        assert "written last" in as_ordinary_user(lambda: everything(folder))


@pytest.mark.parametrize("index", [True, False])
def test_what_a_killed_process_wrote_last_is_seen(
    folder: Path, read_only: Callable[[], Path], index: bool, tmp_path: Path
) -> None:
    writer = sqlite3.connect(folder / "store.db")
    writer.execute("UPDATE jobs SET message = 'written last'")
    writer.commit()
    killed = tmp_path / "killed"
    killed.mkdir()
    for ending in ("", "-wal", *(["-shm"] if index else [])):
        shutil.copy(folder / f"store.db{ending}", killed)
    writer.close()
    shutil.rmtree(folder)
    shutil.copytree(killed, folder)
    read_only()
    assert "written last" in as_ordinary_user(lambda: everything(folder))
    folder.chmod(0o755)
    before = contents(folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    if not index:
        assert "written last" in everything(folder)
        assert contents(folder) == before


def test_a_full_disk_is_enough(folder: Path, recorded: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    expected = everything(recorded)
    # No file may grow by a byte, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            (folder / "probe").write_bytes(b"x")
        found = everything(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found == expected


def test_each_read_sees_what_was_written_since(folder: Path) -> None:
    with closing(look(folder)) as looking:
        job = looking.jobs.all()[0].id
        with closing(open_store(settings(folder=folder).database_url)) as writing:
            for state in ("incomplete", "done"):
                writing.jobs.set_state(job, state, f"now {state}")
                assert looking.jobs.get(job).message == f"now {state}"
        assert looking.jobs.get(job).message == "now done"  # the log is gone again


def test_a_read_is_repeated_if_the_file_changed_meanwhile(folder: Path) -> None:
    with closing(look(folder)) as looking:
        calls = []

        def work(connection: Any) -> int:
            calls.append(1)
            if len(calls) == 1:
                thread = threading.Thread(target=change)
                thread.start()
                thread.join()
            return int(connection.exec_driver_sql("SELECT count(*) FROM jobs").scalar_one())

        def change() -> None:
            with closing(open_store(settings(folder=folder).database_url)) as writing:
                writing.jobs.request_cancel(writing.jobs.all()[0].id)

        assert looking._db.read(work) == 1
        assert len(calls) == 2
        assert looking.jobs.cancel_requested(looking.jobs.all()[0].id)


def test_nothing_can_be_written_by_a_store_that_looks(folder: Path) -> None:
    with closing(look(folder)) as store, pytest.raises(BackendUnreachable, match="read-only"):
        store.jobs.set_state(store.jobs.all()[0].id, "done")


def test_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(NotFound, match=r"no store at .*\nNo jobs here yet"):
            look(folder)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "store.db").mkdir()
    with pytest.raises(BackendUnreachable, match="cannot be opened"):
        look(tmp_path)
    (tmp_path / "store.db").rmdir()
    (tmp_path / "store.db").write_bytes(b"")
    with pytest.raises(NotFound, match="is empty"):
        look(tmp_path)


def test_a_folder_of_another_user_is_one_message(folder: Path) -> None:
    folder.parent.chmod(0o700)
    answer = as_ordinary_user(lambda: everything(folder))
    assert answer.startswith("BackendUnreachable: ")
    assert "Permission denied" in answer


def test_an_older_store_says_what_brings_it_up_to_date(folder: Path, read_only: Callable[[], Path]) -> None:
    connection = sqlite3.connect(folder / "store.db")
    connection.execute("UPDATE orchestrator_version SET version_num = '0003'")
    connection.commit()
    connection.close()
    read_only()
    answer = as_ordinary_user(lambda: everything(folder))
    assert answer.startswith("BackendUnreachable: ")
    assert "written by an earlier version (schema 0003)" in answer


def test_rights_to_read_are_enough_on_postgresql(postgres: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE looked_at")
        connection.execute("CREATE ROLE reader LOGIN")
    url = postgres.replace("/postgres?", "/looked_at?")
    with closing(open_store(url)) as store:
        job = Study(store, Plot(seeds=(0,))).run()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    reading = url.replace("//postgres:", "//reader:")
    assert reading != url
    with closing(open_to_look(settings(database_url=reading))) as store:
        assert [cell.value for cell in build(store, job).cells if cell.value is None] == []
        with pytest.raises(BackendUnreachable, match="may not"):
            store.jobs.set_state(job, "done")
    with closing(open_to_look(settings(database_url=url))) as store, pytest.raises(BackendUnreachable, match="may not"):
        store.jobs._db._run(store.jobs._db._reader, lambda connection: connection.exec_driver_sql("DELETE FROM pins"))
