"""Opens the database (addresses, pragmas, migrations), runs transactions, and words errors for the user."""

from __future__ import annotations

import json
import random
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from orchestrator.errors import BackendUnreachable, Conflict, NotFound, OrchestratorError, StoreAway
from orchestrator.settings import masked, private_file, private_folder
from orchestrator.store import address, tables
from orchestrator.store.column_types import damaged
from orchestrator.store.sqlite_files import looking_engine, refuse_network_folder, was_changed, writing_engine

T = TypeVar("T")

BUSY_SECONDS = 20
"""How long a writer waits for another writer before it gives up."""
CHUNK = 2000
"""Keys in one IN list; the databases allow 32,766 (SQLite) and 65,535 (PostgreSQL) parameters."""
TRIES = 5
"""How often a transaction is tried: after a deadlock, or when another process wrote the file while it was read."""


def to_json(value: Any) -> str:
    """Compact JSON as Python writes it, with NaN and Infinity."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def object_of(text: str, what: str) -> dict[str, Any]:
    """The object in a column named *_json; `what` names it. Raises BackendUnreachable if there is none."""
    return _decoded(text, what, dict)


def list_of(text: str, what: str) -> list[Any]:
    """The list in a column named *_json; `what` names it. Raises BackendUnreachable if there is none."""
    return _decoded(text, what, list)


def fields_of(text: str, what: str) -> dict[str, Any]:
    """As `object_of`, for a value whose fields are relied on, such as a spec: `value["stages"]`, at any depth, raises
    BackendUnreachable if there is no such field, since this program writes them all."""
    return _decoded(text, what, dict, json.JSONDecoder(object_hook=lambda found: _Fields(found, what)).decode)


class _Fields(dict[str, Any]):
    __slots__ = ("_what",)

    def __init__(self, found: dict[str, Any], what: str) -> None:
        super().__init__(found)
        self._what = what

    def __missing__(self, name: str) -> Any:
        raise damaged(self._what, dict(self), f"has no field {name!r} in")

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


_decode = json.JSONDecoder().decode


def _decoded(text: str, what: str, kind: type[T], decode: Callable[[str], Any] = _decode) -> T:
    try:
        value = decode(text)
    except (ValueError, RecursionError):
        raise damaged(what, text) from None
    if not isinstance(value, kind):
        raise damaged(what, text)
    return value


E = TypeVar("E", bound=StrEnum)


def state_of(kind: type[E], text: str) -> E:
    """The state that a row names. Raises BackendUnreachable if there is none of this name."""
    try:
        return kind(text)
    except ValueError:
        raise damaged("a state", text) from None


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """Splits the items, in their order, into lists of at most CHUNK."""
    listed = list(items)
    for start in range(0, len(listed), CHUNK):
        yield listed[start : start + CHUNK]


class Database:
    """Transactions on one database.

    `read` and `write` run a piece of work in one transaction and turn errors of the database into errors that a user
    can act on. Threads may share it; each process must open its own. `looking`: nothing is written, not even beside
    the file of a SQLite database, so that the right to read and a full disk are enough.
    """

    def __init__(self, url: sa.URL, looking: bool = False) -> None:
        self.url = url
        self.sqlite = url.get_backend_name() == "sqlite"
        self.where = address.display(url)
        if self.sqlite:
            self._engine = (looking_engine if looking else writing_engine)(url, BUSY_SECONDS)
        else:
            self._engine = _postgres_engine(url)
        # All queries of one read see the same moment; SQLite's transactions do so anyway.
        options = {"isolation_level": "REPEATABLE READ", **({"postgresql_readonly": True} if looking else {})}
        self._reader = self._engine if self.sqlite else self._engine.execution_options(**options)
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
        for tries_left in range(TRIES - 1, -1, -1):
            driver: Any = None
            try:
                with engine.begin() as connection:
                    driver = connection.connection.driver_connection
                    result = work(connection)
                if not was_changed(driver, self.url):
                    return result
            except DBAPIError as error:
                # 40P01: deadlock, 40001: serialization failure. The transaction was rolled back; try again.
                repeatable = getattr(error.orig, "sqlstate", None) in ("40P01", "40001") or was_changed(
                    driver, self.url
                )
                if not (repeatable and tries_left):
                    explained = self._explained(error)
                    raise (StoreAway(str(explained)) if may_pass(error) else explained) from error
            except OSError as error:
                if driver is not None:
                    raise
                raise BackendUnreachable(f"{self.where} cannot be opened: {error.strerror}") from error
            except (sa.exc.ArgumentError, TypeError, ValueError) as error:
                if driver is not None:
                    raise  # our own mistake
                raise _unusable(
                    self.url, error
                ) from error  # the driver reads the options of the address when it connects
            time.sleep(random.uniform(0.01, 0.1))
        raise BackendUnreachable(f"{self.where}: another process is writing it all the time: try again")

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
        text = masked(str(error.orig).strip(), self.url.render_as_string(hide_password=False))
        if self.sqlite:
            for sign, advice in _SQLITE_ADVICE:
                if sign in text.lower():
                    return BackendUnreachable(f"{self.where}: {advice} ({text})")
            return error
        state = getattr(error.orig, "sqlstate", None) or ""
        first = text.splitlines()[0] if text else "no answer"
        for sign, advice in _POSTGRES_ADVICE:
            if state.startswith(sign):
                return BackendUnreachable(f"{self.where}: {advice} ({first})")
        if isinstance(error, sa.exc.OperationalError) or error.connection_invalidated:
            return BackendUnreachable(
                f"{self.where} does not answer: check that the server is up, and the address, user and password in "
                f"DATABASE_URL ({first})"
            )
        if not state and isinstance(error, sa.exc.ProgrammingError):  # before any statement: an option of the address
            return _unusable(self.url, error.orig or error)
        return error


def may_pass(error: DBAPIError) -> bool:
    """True if the same transaction may succeed later: the server restarts or is full, the network or the disk is."""
    state = getattr(error.orig, "sqlstate", None) or ""
    if isinstance(error.orig, sqlite3.Error):
        return any(sign in str(error.orig).lower() for sign in ("disk is full", "disk i/o", "locked"))
    if state:  # connection, resources, an operator's shutdown; not a wrong password or a missing right
        return state.startswith(("08", "53", "57P"))
    return isinstance(error, sa.exc.OperationalError) or error.connection_invalidated


_BROKEN = "is damaged: a table or column is missing: restore a copy, or choose another store"
_SQLITE_ADVICE = (
    ("unable to open", "cannot be opened: make sure that the folder exists and is writable, or choose another folder"),
    ("readonly", "is read-only: make file and folder writable, or choose another folder"),
    ("read-only", "is read-only: make file and folder writable, or choose another folder"),
    ("disk is full", "the disk is full: make room, then submit again; everything recorded is intact"),
    ("disk i/o", "the disk is full or failing: make room, then submit again; everything recorded is intact"),
    ("locked", f"another process has been writing for over {BUSY_SECONDS} s: wait for it or end it, then try again"),
    ("not a database", "is not a store: choose another file, or move this one away"),
    ("malformed", "is damaged: restore a copy, or recover what is left with `sqlite3 FILE .recover`"),
    ("no such table", _BROKEN),
    ("no such column", _BROKEN),
)
_POSTGRES_ADVICE = (
    ("53", "the server is out of disk, memory or connections: make room, submit again"),
    ("25006", "this user may not write there: grant the permission, or change DATABASE_URL"),
    ("42501", "this user may not do that there: grant the permission, or change DATABASE_URL"),
    ("42P01", _BROKEN),
    ("42703", _BROKEN),
)
"""By the beginning of the server's code of the error."""


def connect(url: str, create: bool = True) -> Database:
    """Opens the database at sqlite:///FILE, postgresql:// or postgres://, and migrates its schema to this version.

    Raises NotFound if there is no store and `create` is False, BackendUnreachable if it cannot be reached or written,
    Conflict if a newer version wrote it or it belongs to another program.
    """
    parsed = address.parse(url)
    if parsed.get_backend_name() == "sqlite":
        file = Path(str(parsed.database))
        if not create:
            _require_file(file)
        refuse_network_folder(file)
        try:
            private_folder(file.parent)
        except OSError as error:
            raise BackendUnreachable(
                f"cannot make the folder {file.parent} for the store: {error.strerror}; choose another folder"
            ) from error
        try:
            _require_file(private_file(file))
        except OSError as error:
            raise BackendUnreachable(
                f"store sqlite:///{file} cannot be opened: {error.strerror}: make sure that the folder is writable, "
                "or choose another folder"
            ) from error
    database = Database(parsed)
    try:
        _bring_up_to_date(database, create)
    except BaseException:
        database.close()
        raise
    return database


def look(url: str) -> Database:
    """Opens the database to read it: writes nothing, so that the right to read and a full disk are enough.

    A store of an earlier version whose rows this one cannot read is migrated first, which needs the right to write.
    Raises as `connect` does.
    """
    parsed = address.parse(url)
    if parsed.get_backend_name() == "sqlite":
        file = Path(str(parsed.database))
        _require_file(file)
        refuse_network_folder(file)
    database = Database(parsed, looking=True)
    try:
        revision = database.read(_revision)
    except BaseException:
        database.close()
        raise
    if revision in tables.READABLE:
        return database
    database.close()
    try:
        connect(url, create=False).close()
    except BackendUnreachable as error:
        raise BackendUnreachable(
            f"{error}\nThis store was written by an earlier version (schema {revision}): a command of somebody who may "
            "write it brings it up to date once; then the right to read is enough."
        ) from error
    return Database(parsed, looking=True)


def _require_file(file: Path) -> None:
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"no store at {file}: nothing was submitted there yet") from None
    except OSError as error:
        raise BackendUnreachable(f"store {file} cannot be opened: {error.strerror}; choose another folder") from error
    if not stat.S_ISREG(mode):  # SQLite would wait for ever at the end of a pipe
        raise BackendUnreachable(f"store {file} cannot be opened: it is no file; choose another folder")


def _postgres_engine(url: sa.URL) -> sa.Engine:
    arguments = {} if "connect_timeout" in url.query else {"connect_timeout": 10}
    try:
        # pre_ping: a connection that broke when the server restarted is replaced before it is used.
        engine = sa.create_engine(url, connect_args=arguments, pool_pre_ping=True)
        engine.dialect.create_connect_args(url)
    except ImportError as error:
        raise BackendUnreachable(f"PostgreSQL needs the package psycopg: {error}") from error
    except (sa.exc.ArgumentError, TypeError, ValueError) as error:
        raise _unusable(url, error) from error
    return engine


def _unusable(url: sa.URL, error: BaseException) -> BackendUnreachable:
    """The error for an option of the address that SQLAlchemy or the driver refuses."""
    lines = masked(str(error), url.render_as_string(hide_password=False)).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    return BackendUnreachable(f"{address.display(url)}: DATABASE_URL has an option that cannot be used ({reason})")


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
    """The revision of the schema; None if there is no store here yet."""
    inspector = sa.inspect(connection)
    if not inspector.has_table(tables.VERSION_TABLE):
        return None
    versions = list(connection.execute(sa.text(f"SELECT version_num FROM {tables.VERSION_TABLE}")).scalars())
    if len(versions) == 1 and isinstance(versions[0], str):
        return versions[0]
    if versions or inspector.has_table(tables.jobs.name):
        raise damaged(f"the version in its table {tables.VERSION_TABLE}", versions)
    return None


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    folder = Path(__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
