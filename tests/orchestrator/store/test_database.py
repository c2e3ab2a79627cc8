"""Opens stores: migrations, refusals, and the errors for databases that cannot be used."""

from __future__ import annotations

import os
import re
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from other_user import as_ordinary_user

from orchestrator.errors import BackendUnreachable, Conflict, NotFound, OrchestratorError
from orchestrator.records.rows import DriverRow, JobRecord, Placement
from orchestrator.records.writes import Reported
from orchestrator.store import database as database_module
from orchestrator.store import tables
from orchestrator.store.database import connect, refuse_network_folder
from orchestrator.store.store import Store, open_store

ROOT = Path(__file__).parents[3]
KEY = "ab" * 32


def engine_of(url: str) -> sa.Engine:
    driver = "postgresql+psycopg" if url.startswith("postgresql") else "sqlite"
    return sa.create_engine(sa.make_url(url).set(drivername=driver))


def schema_of(engine: sa.Engine) -> set[tuple[object, ...]]:
    """The database's own description of its tables, constraints and indexes, as a set of rows."""
    queries = [r"SELECT name, sql FROM sqlite_master WHERE name NOT LIKE '%orchestrator_version%'"]
    if engine.dialect.name == "postgresql":
        queries = [
            "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns "
            "WHERE table_schema = current_schema() AND table_name <> 'orchestrator_version'",
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE connamespace = current_schema()::regnamespace "
            "AND conrelid::regclass::text <> 'orchestrator_version'",
            "SELECT replace(indexdef, schemaname, '') FROM pg_indexes "
            "WHERE schemaname = current_schema() AND tablename <> 'orchestrator_version'",
        ]
    with engine.connect() as connection:
        rows = [row for query in queries for row in connection.exec_driver_sql(query)]
    return {tuple(_parts(str(cell)) for cell in row) for row in rows}


def _parts(cell: str) -> tuple[str, ...]:
    """A CREATE TABLE as its columns and constraints, sorted: their order means nothing, and a column that was added
    later follows the constraints."""
    if not cell.startswith("CREATE TABLE"):
        return (" ".join(cell.split()),)
    body = cell[cell.index("(") + 1 : cell.rindex(")")]
    return tuple(sorted(" ".join(part.split()) for part in re.split(r",(?![^()]*\))", body)))


def test_the_migrated_schema_is_the_one_in_tables(database_url: str, tmp_path: Path) -> None:
    open_store(database_url).close()
    migrated = engine_of(database_url)
    with migrated.connect() as connection:
        options = {"version_table": tables.VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), tables.complete()) == []
    by_migration = schema_of(migrated)
    with migrated.begin() as connection:  # the same database once more, made from tables.py
        if migrated.dialect.name == "postgresql":
            name = connection.exec_driver_sql("SELECT current_schema()").scalar()
            connection.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")
            connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    if migrated.dialect.name == "sqlite":
        migrated.dispose()
        migrated = sa.create_engine(f"sqlite:///{tmp_path / 'fresh.db'}")
    tables.complete().create_all(migrated)
    assert by_migration == schema_of(migrated)
    assert len(by_migration) > 20
    migrated.dispose()


def test_revisions_are_those_of_the_migrations() -> None:
    scripts = ScriptDirectory(str(Path(tables.__file__).parent / "migrations"))
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == tables.REVISIONS


def test_opening_an_up_to_date_store_imports_nothing_heavy(database_url: str) -> None:
    open_store(database_url).close()
    check = (
        "import sys; from orchestrator.store.store import open_store; open_store(sys.argv[1], create=False).jobs.all();"
        "print([name for name in ('alembic', 'torch', 'timm', 'ray', 'mlflow', 'pandas', 'numpy', 'pydantic',"
        " 'tasks', 'workers', 'sqlalchemy.orm', sys.argv[2]) if name in sys.modules])"
    )
    other = "sqlalchemy.dialects." + ("postgresql" if database_url.startswith("sqlite") else "sqlite")
    call = [sys.executable, "-c", check, database_url, other]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_a_store_of_a_newer_version_is_a_conflict(database_url: str) -> None:
    open_store(database_url).close()
    engine = engine_of(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE orchestrator_version SET version_num = '9999'")
    with pytest.raises(Conflict, match="newer version"):
        open_store(database_url)
    engine.dispose()


def test_a_database_of_another_program_is_left_alone(database_url: str) -> None:
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).parent.mkdir()
    engine = engine_of(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE jobs (x INTEGER)")
    with pytest.raises(Conflict, match=r"another program \(jobs\)"):
        open_store(database_url)
    assert sa.inspect(engine).get_table_names() == ["jobs"]
    engine.dispose()


def test_without_create_nothing_is_made(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing was submitted there yet"):
        open_store(database_url, create=False)
    assert not (tmp_path / "runs").exists()
    open_store(database_url).close()
    open_store(database_url, create=False).close()


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/d", "sqlite://", "sqlite:///:memory:", "not an address", "", "redis://x"]
)
def test_an_address_we_cannot_use_is_refused(url: str) -> None:
    with pytest.raises(BackendUnreachable, match="sqlite:///FILE") as refused:
        open_store(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_server_that_does_not_answer_is_named_without_its_password(scheme: str) -> None:
    with pytest.raises(BackendUnreachable, match=r"127\.0\.0\.1:1/x does not answer") as refused:
        open_store(f"{scheme}://user:secret@127.0.0.1:1/x")
    assert "secret" not in str(refused.value)


def test_a_read_only_postgres_is_named(postgres: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE DATABASE readonly")
        url = postgres.replace("/postgres?", "/readonly?")
        store = open_store(url)
        connection.execute("ALTER DATABASE readonly SET default_transaction_read_only = on")
    store.close()
    with pytest.raises(BackendUnreachable, match="may not write"):
        store.jobs.put(JobRecord("j", "n", "p", {}, ""))
    assert store.jobs.all() == []
    store.close()


def test_a_postgres_connection_that_was_cut_is_replaced(postgres: str) -> None:
    store = open_store(postgres)
    store.jobs.all()
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert store.jobs.all() == []
    store.close()


@pytest.mark.parametrize(
    ("mounts", "refused"),
    [
        ([("/", "ext4")], False),
        ([("/", "ext4"), ("/data", "nfs4")], True),
        ([("/", "nfs"), ("/data", "ext4")], False),
        ([("/", "ext4"), ("/data", "cifs"), ("/data/run", "ext4")], True),  # not below /data/run
        ([("/", "fuse.fuse-overlayfs")], False),
        ([("/", "ext4"), ("/data/runs", "fuse.sshfs")], True),
        ([("/", "overlay"), ("/data", "ext4"), ("/data", "nfs")], True),  # the later mount covers the earlier
        ([], False),
    ],
)
def test_network_file_systems_are_refused(mounts: list[tuple[str, str]], refused: bool) -> None:
    partitions = [SimpleNamespace(mountpoint=point, fstype=kind) for point, kind in mounts]
    file = Path("/data/runs/store.db")
    if not refused:
        refuse_network_folder(file, partitions)
        return
    with pytest.raises(BackendUnreachable, match=r"network file system .* PostgreSQL"):
        refuse_network_folder(file, partitions)


# SQLite files that cannot be used


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "store.db"


def ready(file: Path) -> tuple[Store, int]:
    """A store with one running trial, and its token."""
    store = open_store(f"sqlite:///{file}")
    store.jobs.put(JobRecord("j", "n", "p", {}, ""))
    store.trials.place("j", [Placement("grid", "all", {}, KEY, {}, {}, "grid/all", 0, "top1", "max", 0, 10)])
    store.leases.register(DriverRow("d", "another-host", 1, 0.0, "j", "c"))
    return store, store.leases.claim("d", [KEY])[KEY]


def reported(token: int, epoch: int, size: int = 1) -> Reported:
    return Reported(KEY, token, epoch, epoch, {f"value{n}": 0.1 for n in range(size)}, 1.0)


def intact(file: Path) -> bool:
    connection = sqlite3.connect(file)
    answer = connection.execute("PRAGMA integrity_check").fetchone()[0]
    connection.close()
    return bool(answer == "ok")


def reachable(folder: Path) -> None:
    """Lets other users enter the folder, which pytest makes private."""
    while folder != folder.parent and folder.stat().st_uid == os.getuid() and folder.name != "tmp":
        folder.chmod(folder.stat().st_mode | 0o055)
        folder = folder.parent


def test_a_read_only_folder_is_named(file: Path) -> None:
    store, token = ready(file)
    store.trials.commit("d", [reported(token, 1)])
    store.close()
    url = f"sqlite:///{file}"
    reachable(file.parent)
    file.parent.chmod(0o555)
    file.chmod(0o444)

    def write() -> str:
        try:
            open_store(url).jobs.put(JobRecord("other", "n", "p", {}, ""))
        except OrchestratorError as error:
            return f"{error.exit_code} {error}"
        return "written"

    error = as_ordinary_user(write)
    assert error.startswith(f"7 store {url}"), error
    assert "writ" in error
    error = as_ordinary_user(lambda: str(open_store(f"sqlite:///{file.parent / 'deeper' / 'store.db'}")))
    assert error.startswith("BackendUnreachable: cannot make the folder"), error
    file.parent.chmod(0o755)
    file.chmod(0o644)
    again = open_store(url)
    assert len(again.trials.reports(KEY)) == 1
    again.trials.commit("d", [reported(token, 2)])
    again.close()
    assert intact(file)


def test_a_full_disk_is_named_and_the_store_stays_intact(file: Path) -> None:
    store, token = ready(file)
    acknowledged = 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # To SQLite a file that may not grow looks like a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    refused = None
    try:
        while refused is None and acknowledged < 1000:
            try:
                store.trials.commit("d", [reported(token, acknowledged + 1, size=200)])
                acknowledged += 1
            except BackendUnreachable as error:
                refused = error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "make room" in str(refused)
    assert acknowledged > 10
    assert [row.epoch for row in store.trials.reports(KEY)] == list(range(1, acknowledged + 1))
    store.trials.commit("d", [reported(token, acknowledged + 1, size=200)])  # there is room again
    store.close()
    assert intact(file)
    again = open_store(f"sqlite:///{file}")
    assert len(again.trials.reports(KEY)) == acknowledged + 1
    again.close()


def test_a_locked_file_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.1)
    store, token = ready(file)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BackendUnreachable, match="another process"):
        store.trials.commit("d", [reported(token, 1)])
    assert store.trials.reports(KEY) == []  # readers do not wait
    other.execute("COMMIT")
    store.trials.commit("d", [reported(token, 1)])
    store.close()
    other.close()


def test_a_file_that_is_no_store_is_named(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"not a database at all, but long enough to have a header of its own" * 50)
    with pytest.raises(BackendUnreachable, match="is not a store"):
        open_store(f"sqlite:///{file}")
    folder = file.parent / "folder.db"
    folder.mkdir()
    with pytest.raises(BackendUnreachable, match="cannot be opened"):
        open_store(f"sqlite:///{folder}")


def test_a_damaged_file_is_named(file: Path) -> None:
    store, token = ready(file)
    store.trials.commit("d", [reported(token, epoch, size=50) for epoch in range(1, 400)])
    store.close()
    with file.open("r+b") as content:
        content.seek(4096 * 2)
        content.write(b"\xff" * (file.stat().st_size - 4096 * 2))
    with pytest.raises(BackendUnreachable, match="damaged"):
        open_store(f"sqlite:///{file}").trials.reports(KEY)


def test_sqlite_keeps_what_it_acknowledged(file: Path) -> None:
    database = connect(f"sqlite:///{file}")
    pragmas = {
        name: database.read(lambda c, name=name: c.exec_driver_sql(f"PRAGMA {name}").scalar())  # type: ignore[misc]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    database.close()


def test_a_name_with_odd_letters_is_a_file_like_any_other(tmp_path: Path) -> None:
    for name in ("with space", "100%", "données#1"):
        store, token = ready(tmp_path / name / "store.db")
        store.trials.commit("d", [reported(token, 1)])
        store.close()
        assert (tmp_path / name / "store.db").exists()


def test_a_store_of_the_first_version_goes_on_with_its_rows(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    file = tmp_path / "store.db"
    engine = sa.create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(database_module.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        columns = [row[1] for row in connection.execute(sa.text("PRAGMA table_info(trials)"))]
        values = dict.fromkeys(columns, "0") | {"key": "old", "state": "pending", "mode": "max"}
        values |= {"metric": "top1", "spec_json": '{"task": {"kind": "classify", "evaluate": "test"}}'}
        names = ", ".join(f":{name}" for name in columns)
        connection.execute(sa.text(f"INSERT INTO trials VALUES ({names})"), values)
        with pytest.raises(sa.exc.IntegrityError, match="ck_trials_state"):
            connection.execute(sa.text("UPDATE trials SET state = 'stopped'"))
    engine.dispose()
    open_store(f"sqlite:///{file}").close()
    with sa.create_engine(f"sqlite:///{file}").begin() as connection:
        connection.execute(sa.text("UPDATE trials SET state = 'stopped'"))
        assert connection.execute(sa.text("SELECT key, state, split FROM trials")).all() == [("old", "stopped", "test")]
        titles = "SELECT title, unit, better FROM metrics JOIN trials USING (metric_set) ORDER BY position"
        assert connection.execute(sa.text(titles)).all() == [
            ("top-1 accuracy", "%", "higher"), ("mean per-class accuracy", "%", "higher"), ("loss", "", "lower"),
        ]  # fmt: skip
        with pytest.raises(sa.exc.IntegrityError, match="ck_trials_state"):
            connection.execute(sa.text("UPDATE trials SET state = 'asleep'"))
    assert intact(file)
