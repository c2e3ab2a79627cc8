"""The only place that says who holds a trial: drivers, their leases, and the attempts they claim or adopt."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from orchestrator.errors import LeaseLost
from orchestrator.records.rows import DriverRow, Running
from orchestrator.records.states import TrialState
from orchestrator.store import tables
from orchestrator.store.database import Database, chunks

FORGET_SECONDS = 86400.0
"""A driver that has been silent for this long is no longer listed, dead or alive."""

_trials, _attempts, _drivers = tables.trials, tables.attempts, tables.drivers


@functools.cache
def this_host() -> str:
    """The name of this machine, and what tells apart two machines or containers of that name: the process ids of
    one mean nothing in the other."""
    marks = []
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        path = Path(source)
        try:
            marks.append(os.readlink(path) if path.is_symlink() else path.read_text().strip()[:8])
        except OSError:
            continue  # not Linux: the name alone
    return "/".join([socket.gethostname(), *marks])


def driver_here(driver_id: str, job_id: str, cluster: str, priority: int = 0, slots: int = 0) -> DriverRow:
    """The record of a driver that is this process."""
    pid = os.getpid()
    return DriverRow(driver_id, this_host(), pid, _started(pid), job_id, cluster, priority, slots)


@functools.cache
def _started(pid: int) -> float:
    """When this process began; its number is asked for because a forked child is another process."""
    import psutil

    return float(psutil.Process(pid).create_time())


def _is_gone(host: str, pid: int, pid_started: float) -> bool:
    """Whether the process certainly no longer exists. Of another host's nothing is certain."""
    if host != this_host():
        return False
    if pid == os.getpid():
        return abs(_started(pid) - pid_started) > 2.0
    import psutil

    try:
        process = psutil.Process(pid)
        # The start time is counted from the boot time, which moves a little when the clock is set.
        return bool(abs(process.create_time() - pid_started) > 2.0 or process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


_LIVE = sa.select(_drivers).where(_drivers.c.expires > sa.bindparam("now")).order_by(_drivers.c.id)


def live_drivers(db: Database, connection: sa.Connection) -> list[DriverRow]:
    """Drivers whose lease has not run out by the database's clock, and whose process is not known to be gone."""
    rows = connection.execute(_LIVE, {"now": db.now(connection)})
    return [_driver(row) for row in rows if not _is_gone(row.host, row.pid, row.pid_started)]


def _driver(row: Row[Any]) -> DriverRow:
    return DriverRow(**{name: getattr(row, name) for name in DriverRow.__dataclass_fields__})


def register(db: Database, connection: sa.Connection, driver: DriverRow, ttl_s: float) -> None:
    now = db.now(connection)
    connection.execute(sa.delete(_drivers).where(_drivers.c.expires < now - FORGET_SECONDS))
    row = {name: getattr(driver, name) for name in DriverRow.__dataclass_fields__}
    statement = db.insert(_drivers).values(**row, started=now, expires=now + ttl_s)
    again = {name: statement.excluded[name] for name in row if name != "id"}
    connection.execute(
        statement.on_conflict_do_update(index_elements=["id"], set_={**again, "expires": statement.excluded.expires})
    )


def heartbeat(
    db: Database, connection: sa.Connection, driver_id: str, demand: int, running: int, ttl_s: float
) -> list[DriverRow]:
    kept = connection.execute(
        sa.update(_drivers)
        .where(_drivers.c.id == driver_id)
        .values(demand=demand, running=running, expires=db.now(connection) + ttl_s)
    )
    if kept.rowcount == 0:
        raise LeaseLost(f"driver {driver_id} is not registered any more: register it again")
    return live_drivers(db, connection)


# Statements of the engine's every trial are built once: to build one takes SQLAlchemy longer than to run it.
_FREE = _trials.c.state.in_([TrialState.pending, TrialState.stopped]) | (
    (_trials.c.state == TrialState.running) & _trials.c.driver_id.not_in(sa.bindparam("alive", expanding=True))
)
_TO_TAKE = {
    for_weights: sa.select(_trials.c.id, _trials.c.key, _trials.c.token, _trials.c.state)
    .where(_trials.c.key.in_(sa.bindparam("keys", expanding=True)), free)
    .order_by(_trials.c.id)
    .with_for_update(skip_locked=True)  # SQLite: the one writer holds the whole file
    for for_weights, free in {
        False: _FREE,
        True: _FREE | ((_trials.c.state == TrialState.done) & _trials.c.weights_path.is_(None)),
    }.items()
}
_TAKE = (
    sa.update(_trials)
    .where(_trials.c.id == sa.bindparam("row_id"))
    .values(
        state=TrialState.running, token=_trials.c.token + 1, driver_id=sa.bindparam("by"), started=sa.bindparam("now"),
        ended=None, error_class=None, error=None, git_commit=sa.bindparam("commit"), git_dirty=sa.bindparam("dirty"),
    )
)  # fmt: skip
_BEGIN = sa.insert(_attempts)
_GIT = sa.select(tables.jobs.c.git_commit, tables.jobs.c.git_dirty).where(tables.jobs.c.id == sa.bindparam("job_id"))


def claim(
    db: Database, connection: sa.Connection, driver_id: str, keys: Iterable[str], for_weights: bool = False
) -> dict[str, int]:
    """Takes what is pending (or was stopped by a search, to be run in full), or held by a dead driver. What another
    driver is taking just now is left to it.

    `for_weights`: also what is done but whose weights were not kept, since a later trial starts from them.
    """
    alive = {driver.id: driver for driver in live_drivers(db, connection)}
    mine = alive.get(driver_id)
    if mine is None:
        raise LeaseLost(f"driver {driver_id} holds no live lease: register it, and send heartbeats")
    taken: list[Any] = []
    for some in chunks(sorted(set(keys))):
        taken += connection.execute(_TO_TAKE[for_weights], {"keys": some, "alive": list(alive)}).all()
    if not taken:
        return {}
    git = connection.execute(_GIT, {"job_id": mine.job_id}).one()
    now = db.now(connection)
    for row in taken:
        if row.state == TrialState.running:
            close_attempt(connection, row.id, row.token, now, "driver_lost", "its driver is gone")
    taking = {"by": driver_id, "now": now, "commit": git.git_commit, "dirty": git.git_dirty}
    connection.execute(_TAKE, [{"row_id": row.id, **taking} for row in taken])
    connection.execute(
        _BEGIN,
        [
            {
                "trial_id": row.id, "token": row.token + 1, "driver_id": driver_id, "cluster": mine.cluster,
                "host": mine.host, "git_commit": git.git_commit, "git_dirty": git.git_dirty, "started": now,
            }
            for row in taken
        ],
    )  # fmt: skip
    return {row.key: row.token + 1 for row in taken}


def adopt(db: Database, connection: sa.Connection, driver_id: str, key: str, token: int) -> bool:
    alive = [driver.id for driver in live_drivers(db, connection)]
    if driver_id not in alive:
        raise LeaseLost(f"driver {driver_id} holds no live lease: register it, and send heartbeats")
    trial_id = connection.execute(
        sa.update(_trials)
        .where(
            _trials.c.key == key,
            _trials.c.token == token,
            _trials.c.state == TrialState.running,
            _trials.c.driver_id.not_in([other for other in alive if other != driver_id]),
        )
        .values(driver_id=driver_id)
        .returning(_trials.c.id)
    ).scalar_one_or_none()
    if trial_id is None:
        return False
    connection.execute(
        sa.update(_attempts)
        .where(_attempts.c.trial_id == trial_id, _attempts.c.token == token)
        .values(driver_id=driver_id)
    )
    return True


def running(db: Database, connection: sa.Connection, cluster: str | None) -> list[Running]:
    alive = {driver.id for driver in live_drivers(db, connection)}
    query = (
        sa.select(_trials.c.key, _trials.c.token, _trials.c.driver_id, _attempts.c.cluster)
        .join(_attempts, (_attempts.c.trial_id == _trials.c.id) & (_attempts.c.token == _trials.c.token))
        .where(_trials.c.state == TrialState.running)
        .order_by(_trials.c.id)
    )
    if cluster is not None:
        query = query.where(_attempts.c.cluster == cluster)
    return [
        Running(row.key, row.token, row.driver_id, row.driver_id in alive, row.cluster)
        for row in connection.execute(query)
    ]


_CLOSE = (
    sa.update(_attempts)
    .where(
        _attempts.c.trial_id == sa.bindparam("of_trial"), _attempts.c.token == sa.bindparam("of_token"),
        _attempts.c.ended.is_(None),
    )
    .values(ended=sa.bindparam("now"), cause=sa.bindparam("why"), message=sa.bindparam("said"))
)  # fmt: skip


def close_attempt(connection: sa.Connection, trial_id: int, token: int, now: float, cause: str, message: str) -> None:
    connection.execute(_CLOSE, {"of_trial": trial_id, "of_token": token, "now": now, "why": cause, "said": message})
