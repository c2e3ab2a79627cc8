"""Which errors of a database may pass by themselves: a driver waits for those, and for no other."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from orchestrator.errors import BackendUnreachable, StoreAway
from orchestrator.store import database
from orchestrator.store.database import Database, connect, may_pass


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    opened = connect(database_url)
    yield opened
    opened.close()


class Refused(Exception):
    """An error of PostgreSQL's driver."""

    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("refused")
        self.sqlstate = sqlstate


def error_of(kind: type[sa.exc.DBAPIError], origin: BaseException) -> sa.exc.DBAPIError:
    return kind("SELECT 1", {}, origin)


@pytest.mark.parametrize(
    ("sqlstate", "passes"),
    [("57P01", True), ("57P03", True), ("08006", True), ("53100", True), ("53300", True), (None, True),
     ("28P01", False), ("3D000", False), ("42501", False), ("25006", False), ("42P01", False)],
)  # fmt: skip
def test_of_postgresql(sqlstate: str | None, passes: bool) -> None:
    assert may_pass(error_of(sa.exc.OperationalError, Refused(sqlstate))) is passes


@pytest.mark.parametrize(
    ("text", "passes"),
    [("database or disk is full", True), ("disk I/O error", True), ("database is locked", True),
     ("attempt to write a readonly database", False), ("unable to open database file", False),
     ("file is not a database", False), ("no such table: jobs", False)],
)  # fmt: skip
def test_of_sqlite(text: str, passes: bool) -> None:
    assert may_pass(error_of(sa.exc.OperationalError, sqlite3.OperationalError(text))) is passes


def test_a_server_that_ends_the_connection_in_a_transaction(db: Database) -> None:
    if db.sqlite:
        pytest.skip("a file has no server")

    def cut_off(connection: sa.Connection) -> None:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(StoreAway, match="does not answer"):
        db.write(cut_off)
    assert db.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar_one()) == 1


def test_a_file_that_another_process_writes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    opened = connect(f"sqlite:///{tmp_path / 'store.db'}")
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreAway, match="another process has been writing"):
        opened.write(lambda connection: None)
    other.close()
    opened.write(lambda connection: None)
    opened.close()
    assert issubclass(StoreAway, BackendUnreachable), "exit code 7 for whoever does not wait"
