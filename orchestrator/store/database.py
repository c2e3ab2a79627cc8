"""The only place that opens the database: addresses, pragmas, migrations, and what its errors mean to a user."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError

from orchestrator.errors import BackendUnreachable, Conflict, NotFound, OrchestratorError
from orchestrator.store import tables

T = TypeVar("T")

BUSY_SECONDS = 20
"""How long a writer waits for another one before it gives up."""
CHUNK = 2000
"""Keys in one IN list: below the limits of both databases (32,766 and 65,535 parameters)."""
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "afs", "ceph", "lustre", "gpfs", "beegfs", "gluster", "fuse.")
LOCAL_FUSE = ("fuse.fuse-overlayfs", "fuse.overlayfs")
"""The root of a rootless container; local, though it is FUSE."""


def to_json(value: Any) -> str:
    """Python's JSON: compact; NaN and Infinity are kept."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    held = list(items)
    for start in range(0, len(held), CHUNK):
        yield held[start : start + CHUNK]


class Database:
    """Transactions on one database. `read` and `write` run a piece of work in one transaction each, and turn what
    the database says into errors a user can act on. Threads may share it; processes may not (open one each)."""

    def __init__(self, url: sa.URL) -> None:
        self.url = url
        self.sqlite = url.get_backend_name() == "sqlite"
        self.where = f"store {url.render_as_string(hide_password=True)}"
        self._engine = _sqlite_engine(url) if self.sqlite else _postgres_engine(url)
        # Several queries of one read see the same moment; SQLite's transactions do so anyway.
        self._reader = (
            self._engine if self.sqlite else self._engine.execution_options(isolation_level="REPEATABLE READ")
        )
        self._writer = self._engine.execution_options(begin="IMMEDIATE") if self.sqlite else self._engine

    def close(self) -> None:
        self._engine.dispose()

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        return self._run(self._reader, work)

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """All of `work` or nothing of it. May call it again after a deadlock, so it must change only the database."""
        return self._run(self._writer, work)

    def _run(self, engine: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
        for tries_left in (3, 2, 1, 0):
            try:
                with engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                # 40P01: deadlock, 40001: the row changed under a snapshot. The transaction is undone; try again.
                if getattr(error.orig, "sqlstate", None) in ("40P01", "40001") and tries_left:
                    time.sleep(random.uniform(0.01, 0.1))
                    continue
                raise self._explained(error) from error
        raise AssertionError("the last try returns or raises")

    def insert(self, table: sa.Table) -> Any:
        """INSERT with `on_conflict_do_nothing` and `on_conflict_do_update`, which both databases spell alike."""
        if self.sqlite:
            from sqlalchemy.dialects.sqlite import insert as sqlite_insert

            return sqlite_insert(table)
        from sqlalchemy.dialects.postgresql import insert as postgres_insert

        return postgres_insert(table)

    def now(self, connection: sa.Connection) -> float:
        """Seconds since 1970 by the database's clock, the one clock that all drivers share."""
        clock = (
            "SELECT (julianday('now') - 2440587.5) * 86400.0"
            if self.sqlite
            else "SELECT extract(epoch FROM clock_timestamp())::double precision"
        )
        return float(connection.exec_driver_sql(clock).scalar_one())

    def _explained(self, error: DBAPIError) -> OrchestratorError | DBAPIError:
        """What to do next, or the error itself when it is our own mistake."""
        said = str(error.orig).strip()
        low = said.lower()
        if self.sqlite:
            for sign, advice in _SQLITE_ADVICE:
                if sign in low:
                    return BackendUnreachable(f"{self.where}: {advice} ({said})")
            return error
        state = getattr(error.orig, "sqlstate", None) or ""
        first = said.splitlines()[0] if said else "no answer"
        if state.startswith("53"):
            return BackendUnreachable(
                f"{self.where}: the server is out of disk, memory or connections: make room, submit again ({first})"
            )
        if state == "25006" or state == "42501":
            return BackendUnreachable(
                f"{self.where}: this user may not write there: grant it the right, or set DATABASE_URL ({first})"
            )
        if isinstance(error, sa.exc.OperationalError) or error.connection_invalidated:
            return BackendUnreachable(
                f"{self.where} does not answer: is the server up, and are address, user and password in "
                f"DATABASE_URL right? ({first})"
            )
        return error


_SQLITE_ADVICE = (
    ("unable to open", "cannot be opened: does the folder exist and may you write in it? Or choose another folder"),
    ("readonly", "is read-only: make file and folder writable, or choose another folder"),
    ("read-only", "is read-only: make file and folder writable, or choose another folder"),
    ("disk is full", "the disk is full: make room, then submit again; what was recorded is intact"),
    ("disk i/o", "the disk refuses (full, or failing): make room, then submit again; what was recorded is intact"),
    ("locked", f"another process has been writing for over {BUSY_SECONDS} s: wait for it or end it, then try again"),
    ("not a database", "is not a store: choose another file, or move this one away"),
    ("malformed", "is damaged: restore a copy, or save what is left with `sqlite3 FILE .recover`"),
)  # fmt: skip


def connect(url: str, create: bool = True) -> Database:
    """Opens the database and brings its schema to this version's.

    sqlite:///FILE, or postgresql:// (postgres:// too). With `create` False a store that is not there is NotFound.
    Raises BackendUnreachable when it cannot be reached or written, Conflict when a newer version has written it.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        file = Path(parsed.database or "").absolute()
        if not create and not file.exists():
            raise NotFound(f"no store at {file}: nothing was submitted there yet, or another folder is meant")
        refuse_network_folder(file)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BackendUnreachable(
                f"cannot make the folder {file.parent} for the store: {error.strerror}; choose another folder"
            ) from error
        parsed = parsed.set(database=str(file))
    database = Database(parsed)
    try:
        _bring_up_to_date(database, create)
    except BaseException:
        database.close()
        raise
    return database


def _parsed(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except ArgumentError as error:
        raise BackendUnreachable(
            "DATABASE_URL is not an address of a database: write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        ) from error
    name = parsed.get_backend_name()
    if name in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    if name == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed
    raise BackendUnreachable(
        f"cannot keep a store in {parsed.render_as_string(hide_password=True)}: it needs sqlite:///FILE or postgresql://..."
    )


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        # An acknowledged write survives a power cut. Benchmark in benchmarks/store.py: per batch, not per row.
        connection.execute("PRAGMA synchronous = FULL")
        _write_ahead(connection)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # Python's driver would begin late and deferred: two writers that both read first would then fail as locked.
        kind = connection.get_execution_options().get("begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {kind}")

    return engine


def _write_ahead(connection: Any) -> None:
    """Puts a new file into WAL mode. Where several open it at once SQLite does not wait here, it refuses: we wait."""
    give_up = time.monotonic() + BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(random.uniform(0.01, 0.1))


def _postgres_engine(url: sa.URL) -> sa.Engine:
    arguments = {} if "connect_timeout" in url.query else {"connect_timeout": 10}
    try:
        # pre_ping: a connection that a restarted server has forgotten is replaced before it is used.
        return sa.create_engine(url, connect_args=arguments, pool_pre_ping=True)
    except ImportError as error:
        raise BackendUnreachable(f"PostgreSQL needs the package psycopg: {error}") from error


def refuse_network_folder(file: Path, partitions: Sequence[Any] | None = None) -> None:
    """Raises BackendUnreachable when the file lies on a network file system: SQLite's locks do not hold there.

    `partitions`: of psutil.disk_partitions, for tests.
    """
    if partitions is None:
        import psutil

        partitions = psutil.disk_partitions(all=True)
    real = file.resolve()
    under = [part for part in partitions if real.is_relative_to(part.mountpoint)]
    if not under:
        return
    # The longest mount point; of two on the same, the later one covers the earlier.
    _, part = max(enumerate(under), key=lambda item: (len(item[1].mountpoint), item[0]))
    kind = part.fstype.lower()
    if kind.startswith(NETWORK_FILE_SYSTEMS) and kind not in LOCAL_FUSE:
        raise BackendUnreachable(
            f"store {file} lies on a network file system ({part.fstype} at {part.mountpoint}), where SQLite "
            "loses data: choose a folder on a local disk, or set DATABASE_URL to a PostgreSQL"
        )


def _bring_up_to_date(database: Database, create: bool) -> None:
    found = database.read(_revision)
    if found == tables.REVISIONS[-1]:
        return
    if found is None and not create:
        raise NotFound(f"{database.where} is empty: nothing was submitted there yet")

    def upgrade(connection: sa.Connection) -> None:
        if not database.sqlite:
            # Two first users at once: the second waits here, then finds the work done. The number is ours alone.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7305421886)")
        now_found = _revision(connection)
        if now_found == tables.REVISIONS[-1]:
            return
        if now_found is not None and now_found not in tables.REVISIONS:
            raise Conflict(
                f"{database.where} was written by a newer version (schema {now_found}, this one knows "
                f"{tables.REVISIONS[-1]}): install that version, or choose another store"
            )
        if now_found is None:
            taken = sorted(set(sa.inspect(connection).get_table_names()) & set(tables.metadata.tables))
            if taken:
                raise Conflict(
                    f"{database.where} holds tables of another program ({', '.join(taken)}): "
                    "give the orchestrator a database of its own"
                )
        _upgrade(connection)

    database.write(upgrade)


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(tables.VERSION_TABLE):
        return None
    return connection.execute(sa.text(f"SELECT version_num FROM {tables.VERSION_TABLE}")).scalar_one_or_none()


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    folder = Path(__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
