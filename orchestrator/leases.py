"""The only place that says who holds a trial: drivers, their leases, and the attempts they claim or adopt."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from orchestrator import tables
from orchestrator.database import Database, chunks
from orchestrator.errors import LeaseLost
from orchestrator.known import TrialState
from orchestrator.records import DriverRow, Running

FORGET_SECONDS = 86400.0
"""A driver that has been silent for this long is no longer listed, dead or alive."""

_trials, _attempts, _drivers = tables.trials, tables.attempts, tables.drivers


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
    import psutil

    pid = os.getpid()
    started = psutil.Process(pid).create_time()
    return DriverRow(driver_id, this_host(), pid, started, job_id, cluster, priority, slots)


def _is_gone(host: str, pid: int, pid_started: float) -> bool:
    """Whether the process certainly no longer exists. Of another host's nothing is certain."""
    if host != this_host():
        return False
    import psutil

    try:
        process = psutil.Process(pid)
        # The start time is counted from the boot time, which moves a little when the clock is set.
        return bool(abs(process.create_time() - pid_started) > 2.0 or process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def live_drivers(db: Database, connection: sa.Connection) -> list[DriverRow]:
    """Drivers whose lease has not run out by the database's clock, and whose process is not known to be gone."""
    rows = connection.execute(
        sa.select(_drivers).where(_drivers.c.expires > db.now(connection)).order_by(_drivers.c.id)
    )
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


def claim(
    db: Database, connection: sa.Connection, driver_id: str, keys: Iterable[str], for_weights: bool = False
) -> dict[str, int]:
    """Takes what is pending, or held by a dead driver. What another driver is taking just now is left to it.

    `for_weights`: also what is done but whose weights were not kept, since a later trial starts from them.
    """
    alive = {driver.id: driver for driver in live_drivers(db, connection)}
    mine = alive.get(driver_id)
    if mine is None:
        raise LeaseLost(f"driver {driver_id} holds no live lease: register it, and send heartbeats")
    git = connection.execute(
        sa.select(tables.jobs.c.git_commit, tables.jobs.c.git_dirty).where(tables.jobs.c.id == mine.job_id)
    ).one()
    free = (_trials.c.state == TrialState.pending) | (
        (_trials.c.state == TrialState.running) & _trials.c.driver_id.not_in(list(alive))
    )
    if for_weights:
        free |= (_trials.c.state == TrialState.done) & _trials.c.weights_path.is_(None)
    taken: list[Any] = []
    for some in chunks(sorted(set(keys))):
        taken += connection.execute(
            sa.select(_trials.c.id, _trials.c.key, _trials.c.token, _trials.c.state)
            .where(_trials.c.key.in_(some), free)
            .order_by(_trials.c.id)
            .with_for_update(skip_locked=True)  # SQLite: the one writer holds the whole file
        ).all()
    if not taken:
        return {}
    now = db.now(connection)
    for row in taken:
        if row.state == TrialState.running:
            close_attempt(connection, row.id, row.token, now, "driver_lost", "its driver is gone")
    connection.execute(
        sa.update(_trials)
        .where(_trials.c.id == sa.bindparam("row_id"))
        .values(state=TrialState.running, token=_trials.c.token + 1, driver_id=driver_id, started=now,
                ended=None, error_class=None, error=None, git_commit=git.git_commit, git_dirty=git.git_dirty),
        [{"row_id": row.id} for row in taken],
    )  # fmt: skip
    connection.execute(
        sa.insert(_attempts),
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


def close_attempt(connection: sa.Connection, trial_id: int, token: int, now: float, cause: str, message: str) -> None:
    connection.execute(
        sa.update(_attempts)
        .where(_attempts.c.trial_id == trial_id, _attempts.c.token == token, _attempts.c.ended.is_(None))
        .values(ended=now, cause=cause, message=message)
    )
