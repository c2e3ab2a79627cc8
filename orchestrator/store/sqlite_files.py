"""Opens SQLite files: to write them, with a write-ahead log, or to look at them without writing a byte."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from orchestrator.errors import BackendUnreachable

NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "afs", "ceph", "lustre", "gpfs", "beegfs", "gluster", "fuse.")
LOCAL_FUSE = ("fuse.fuse-overlayfs", "fuse.overlayfs")
"""Root file systems of rootless containers: local although they are FUSE."""


def writing_engine(url: sa.URL, busy_seconds: float) -> sa.Engine:
    """For a process that reads and writes; it waits so long for another writer."""
    engine = sa.create_engine(url, connect_args={"timeout": busy_seconds, "isolation_level": None})

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        # A committed write survives a power cut; the cost is one sync a batch (benchmarks/store.py).
        connection.execute("PRAGMA synchronous = FULL")
        _write_ahead(connection, busy_seconds)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # Python's driver begins late and deferred: two writers that both read first would then fail as locked.
        kind = connection.get_execution_options().get("begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {kind}")

    return engine


def _write_ahead(connection: Any, busy_seconds: float) -> None:
    """Puts a new file into WAL mode. SQLite does not wait for other processes that open the file here, so we do."""
    give_up = time.monotonic() + busy_seconds
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(random.uniform(0.01, 0.1))


def looking_engine(url: sa.URL, busy_seconds: float) -> sa.Engine:
    """For a process that only reads, perhaps from a full disk or without the right to write.

    Every transaction opens the file anew, in the way that fits what lies beside it at that moment; call `was_changed`
    after it.
    """
    file = Path(str(url.database))
    engine = sa.create_engine(url, creator=lambda: _open_to_look(file, busy_seconds), poolclass=sa.pool.NullPool)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN DEFERRED")

    return engine


class _Looking(sqlite3.Connection):
    """A connection that knows what the file was like when it was opened."""

    stamp: tuple[int, ...] | None = None
    """None: SQLite's own locks say when the file changes."""


def _open_to_look(file: Path, busy_seconds: float) -> sqlite3.Connection:
    file = file.resolve()  # what SQLite writes lies beside the file itself, not beside a link to it
    journal = _size(_beside(file, "-journal"))
    if journal or _beside(file, "-shm").exists():
        try:
            return _opened(file, "mode=ro", busy_seconds)
        except sqlite3.OperationalError as error:
            if journal or "locked" in str(error):
                raise
            # Left by a process that is gone, in a folder where SQLite may not renew it.
    if _size(_beside(file, "-wal")):
        # No process has the log open, or it could be read as above: no locks are needed, and its index is kept in
        # memory instead of in a file.
        return _opened(file, "mode=ro&vfs=unix-none", busy_seconds, "PRAGMA locking_mode = EXCLUSIVE")
    stamp = _stamp(file)
    # Without a log, SQLite would make one before it reads, unless the file is said not to change.
    connection = _opened(file, "mode=ro&immutable=1", busy_seconds)
    connection.stamp = stamp
    return connection


def _opened(file: Path, how: str, busy_seconds: float, *pragmas: str) -> _Looking:
    address = f"file:{quote(str(file))}?{how}"
    connection = sqlite3.connect(address, busy_seconds, isolation_level=None, uri=True, factory=_Looking)
    try:
        for pragma in pragmas:
            connection.execute(pragma)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def was_changed(connection: Any, url: sa.URL) -> bool:
    """True if another process wrote the file while this connection read it without locks: read again."""
    stamp = getattr(connection, "stamp", None)
    if stamp is None:
        return False
    try:
        return bool(stamp != _stamp(Path(str(url.database)).resolve()))
    except OSError:
        return True


def _stamp(file: Path) -> tuple[int, ...]:
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, _size(_beside(file, "-wal"))


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


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
