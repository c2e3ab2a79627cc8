"""Opens the database (addresses, pragmas, migrations), runs transactions, and words errors for the user."""

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

from orchestrator.errors import BackendUnreachable, Conflict, NotFound, OrchestratorError, StoreAway
from orchestrator.store import tables

T = TypeVar("T")

BUSY_SECONDS = 20
"""How long a writer waits for another writer before it gives up."""
CHUNK = 2000
"""Keys in one IN list; the databases allow 32,766 (SQLite) and 65,535 (PostgreSQL) parameters."""
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "afs", "ceph", "lustre", "gpfs", "beegfs", "gluster", "fuse.")
LOCAL_FUSE = ("fuse.fuse-overlayfs", "fuse.overlayfs")
"""Root file systems of rootless containers: local although they are FUSE."""


def to_json(value: Any) -> str:
    """Compact JSON as Python writes it, with NaN and Infinity."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """Splits the items, in their order, into lists of at most CHUNK."""
    listed = list(items)
    for start in range(0, len(listed), CHUNK):
        yield listed[start : start + CHUNK]


class Database:
    """Transactions on one database.

    `read` and `write` run a piece of work in one transaction and turn errors of the database into errors that a user
    can act on. Threads may share it; each process must open its own.
    """

    def __init__(self, url: sa.URL) -> None:
        self.url = url
        self.sqlite = url.get_backend_name() == "sqlite"
        self.where = f"store {url.render_as_string(hide_password=True)}"
        self._engine = _sqlite_engine(url) if self.sqlite else _postgres_engine(url)
        # All queries of one read see the same moment; SQLite's transactions do so anyway.
        self._reader = (
            self._engine if self.sqlite else self._engine.execution_options(isolation_level="REPEATABLE READ")
        )
        self._writer = self._engine.execution_options(begin="IMMEDIATE") if self.sqlite else self._engine

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Runs `work` in a transaction that sees one moment."""
        return self._run(self._reader, work)

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Runs `work` and commits all it wrote, or nothing. After a deadlock it calls `work` again."""
        return self._run(self._writer, work)

    def _run(self, engine: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
        for tries_left in (3, 2, 1, 0):
            try:
                with engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                # 40P01: deadlock, 40001: serialization failure. The transaction was rolled back; try again.
                if getattr(error.orig, "sqlstate", None) in ("40P01", "40001") and tries_left:
                    time.sleep(random.uniform(0.01, 0.1))
                    continue
                explained = self._explained(error)
                raise (StoreAway(str(explained)) if may_pass(error) else explained) from error
        raise AssertionError("the last try returns or raises")

    def insert(self, table: sa.Table) -> Any:
        """An INSERT of the database's dialect, with `on_conflict_do_nothing` and `on_conflict_do_update`."""
        if self.sqlite:
            from sqlalchemy.dialects.sqlite import insert as sqlite_insert

            return sqlite_insert(table)
        from sqlalchemy.dialects.postgresql import insert as postgres_insert

        return postgres_insert(table)

    def now(self, connection: sa.Connection) -> float:
        """Seconds since 1970 (UTC) by the database's clock, which all drivers share."""
        clock = (
            "SELECT (julianday('now') - 2440587.5) * 86400.0"
            if self.sqlite
            else "SELECT extract(epoch FROM clock_timestamp())::double precision"
        )
        return float(connection.exec_driver_sql(clock).scalar_one())

    def _explained(self, error: DBAPIError) -> OrchestratorError | DBAPIError:
        """An error that tells the user what to do next, or the error itself if the mistake is ours."""
        text = str(error.orig).strip()
        if self.sqlite:
            for sign, advice in _SQLITE_ADVICE:
                if sign in text.lower():
                    return BackendUnreachable(f"{self.where}: {advice} ({text})")
            return error
        state = getattr(error.orig, "sqlstate", None) or ""
        first = text.splitlines()[0] if text else "no answer"
        if state.startswith("53"):
            return BackendUnreachable(
                f"{self.where}: the server is out of disk, memory or connections: make room, submit again ({first})"
            )
        if state == "25006" or state == "42501":
            return BackendUnreachable(
                f"{self.where}: this user may not write there: grant the permission, or change DATABASE_URL ({first})"
            )
        if isinstance(error, sa.exc.OperationalError) or error.connection_invalidated:
            return BackendUnreachable(
                f"{self.where} does not answer: check that the server is up, and the address, user and password in "
                f"DATABASE_URL ({first})"
            )
        return error


def may_pass(error: DBAPIError) -> bool:
    """True if the same transaction may succeed later: the server restarts or is full, the network or the disk is."""
    state = getattr(error.orig, "sqlstate", None) or ""
    if isinstance(error.orig, sqlite3.Error):
        return any(sign in str(error.orig).lower() for sign in ("disk is full", "disk i/o", "locked"))
    if state:  # connection, resources, an operator's shutdown; not a wrong password or a missing right
        return state.startswith(("08", "53", "57P"))
    return isinstance(error, sa.exc.OperationalError) or error.connection_invalidated


_SQLITE_ADVICE = (
    ("unable to open", "cannot be opened: make sure that the folder exists and is writable, or choose another folder"),
    ("readonly", "is read-only: make file and folder writable, or choose another folder"),
    ("read-only", "is read-only: make file and folder writable, or choose another folder"),
    ("disk is full", "the disk is full: make room, then submit again; everything recorded is intact"),
    ("disk i/o", "the disk is full or failing: make room, then submit again; everything recorded is intact"),
    ("locked", f"another process has been writing for over {BUSY_SECONDS} s: wait for it or end it, then try again"),
    ("not a database", "is not a store: choose another file, or move this one away"),
    ("malformed", "is damaged: restore a copy, or recover what is left with `sqlite3 FILE .recover`"),
)  # fmt: skip


def connect(url: str, create: bool = True) -> Database:
    """Opens the database at sqlite:///FILE, postgresql:// or postgres://, and migrates its schema to this version.

    Raises NotFound if there is no store and `create` is False, BackendUnreachable if it cannot be reached or written,
    Conflict if a newer version wrote it or it belongs to another program.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        file = Path(parsed.database or "").absolute()
        if not create and not file.exists():
            raise NotFound(f"no store at {file}: nothing was submitted there yet")
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
            "DATABASE_URL is not a database address: write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        ) from error
    name = parsed.get_backend_name()
    if name in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    if name == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed
    raise BackendUnreachable(
        f"cannot keep a store at {parsed.render_as_string(hide_password=True)}: write sqlite:///FILE or postgresql://..."
    )


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        # A committed write survives a power cut; the cost is one sync a batch (benchmarks/store.py).
        connection.execute("PRAGMA synchronous = FULL")
        _write_ahead(connection)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # Python's driver begins late and deferred: two writers that both read first would then fail as locked.
        kind = connection.get_execution_options().get("begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {kind}")

    return engine


def _write_ahead(connection: Any) -> None:
    """Puts a new file into WAL mode. SQLite does not wait for other processes that open the file here, so we do."""
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
        # pre_ping: a connection that broke when the server restarted is replaced before it is used.
        return sa.create_engine(url, connect_args=arguments, pool_pre_ping=True)
    except ImportError as error:
        raise BackendUnreachable(f"PostgreSQL needs the package psycopg: {error}") from error


def refuse_network_folder(file: Path, partitions: Sequence[Any] | None = None) -> None:
    """Raises BackendUnreachable if the file lies on a network file system, where SQLite's locks do not hold.

    `partitions`: mounted file systems as psutil.disk_partitions returns them; None reads those of this machine.
    """
    if partitions is None:
        import psutil

        partitions = psutil.disk_partitions(all=True)
    real = file.resolve()
    above = [part for part in partitions if real.is_relative_to(part.mountpoint)]
    if not above:
        return
    # The longest mount point; of two mounts on the same point the later one hides the earlier.
    _, part = max(enumerate(above), key=lambda item: (len(item[1].mountpoint), item[0]))
    kind = part.fstype.lower()
    if kind.startswith(NETWORK_FILE_SYSTEMS) and kind not in LOCAL_FUSE:
        raise BackendUnreachable(
            f"store {file} lies on a network file system ({part.fstype} at {part.mountpoint}), where SQLite "
            "loses data: choose a folder on a local disk, or set DATABASE_URL to a PostgreSQL server"
        )


def _bring_up_to_date(database: Database, create: bool) -> None:
    newest = tables.REVISIONS[-1]
    before = database.read(_revision)
    if before == newest:
        return
    if before is None and not create:
        raise NotFound(f"{database.where} is empty: nothing was submitted there yet")

    def upgrade(connection: sa.Connection) -> None:
        if not database.sqlite:
            # Of two processes that migrate at once, the second waits here. The number is arbitrary, used only here.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7305421886)")
        revision = _revision(connection)
        if revision == newest:
            return
        if revision is not None and revision not in tables.REVISIONS:
            raise Conflict(
                f"{database.where} was written by a newer version (schema {revision}, this one knows "
                f"{newest}): install that version, or choose another store"
            )
        if revision is None:
            others = sorted(set(sa.inspect(connection).get_table_names()) & set(tables.metadata.tables))
            if others:
                raise Conflict(
                    f"{database.where} holds tables of another program ({', '.join(others)}): "
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
