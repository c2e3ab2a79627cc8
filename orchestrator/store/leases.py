"""Who holds a trial: drivers, their leases, and the attempts they claim or adopt."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from orchestrator.errors import LeaseLost
from orchestrator.processes import is_running, this_began
from orchestrator.records.rows import DriverRow, Running
from orchestrator.records.states import TrialState
from orchestrator.store import tables
from orchestrator.store.database import Database, chunks

LEASE_SECONDS = 30.0
"""A driver counts as dead this long after its last heartbeat."""
DELETE_AFTER_SECONDS = 86400.0
"""A driver's row is deleted this long after its lease ran out."""

_trials, _attempts, _drivers = tables.trials, tables.attempts, tables.drivers


@functools.cache
def this_host() -> str:
    """The name of this machine with its boot and container ids.

    Process ids mean nothing on another machine or in another container, even of the same name.
    """
    marks = []
    for source in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        path = Path(source)
        try:
            marks.append(os.readlink(path) if path.is_symlink() else path.read_text().strip()[:8])
        except OSError:
            continue  # not Linux: the name alone
    return "/".join([socket.gethostname(), *marks])


def driver_here(driver_id: str, job_id: str, cluster: str, priority: int = 0, slots: int = 0) -> DriverRow:
    """The row of a driver that runs in this process."""
    pid = os.getpid()
    return DriverRow(driver_id, this_host(), pid, this_began(), job_id, cluster, priority, slots)


def _is_gone(host: str, pid: int, pid_started: float) -> bool:
    """True if the process is known not to exist any more; always False for a process of another host."""
    return host == this_host() and not is_running(pid, pid_started)


# Statements that run for every trial are built once: building one takes SQLAlchemy longer than running it.
_FREE = _trials.c.state.in_([TrialState.pending, TrialState.stopped]) | (
    (_trials.c.state == TrialState.running) & _trials.c.driver_id.not_in(sa.bindparam("alive", expanding=True))
)
_TO_TAKE = {
    for_weights: sa.select(_trials.c.id, _trials.c.key, _trials.c.token, _trials.c.state, _trials.c.value)
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
_DONE_AGAIN = (
    sa.update(_trials)
    .where(_trials.c.id == sa.bindparam("row_id"))
    .values(state=TrialState.done, ended=sa.bindparam("now"))
)
_BEGIN = sa.insert(_attempts)
_GIT = sa.select(tables.jobs.c.git_commit, tables.jobs.c.git_dirty).where(tables.jobs.c.id == sa.bindparam("job_id"))


class Leases:
    """Drivers and the trials they hold.

    A driver is alive until its lease runs out by the database's clock or its process is known to be gone.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    def register(self, driver: DriverRow, ttl_s: float = LEASE_SECONDS) -> None:
        """Starts a lease of `ttl_s` seconds; a driver of the same id is replaced."""

        def work(connection: sa.Connection) -> None:
            now = self._db.now(connection)
            connection.execute(sa.delete(_drivers).where(_drivers.c.expires < now - DELETE_AFTER_SECONDS))
            row = {name: getattr(driver, name) for name in DriverRow.__dataclass_fields__}
            insert = self._db.insert(_drivers).values(**row, started=now, expires=now + ttl_s)
            again = {name: insert.excluded[name] for name in row if name != "id"}
            connection.execute(
                insert.on_conflict_do_update(index_elements=["id"], set_={**again, "expires": insert.excluded.expires})
            )

        self._db.write(work)

    def heartbeat(self, driver_id: str, demand: int, running: int, ttl_s: float = LEASE_SECONDS) -> list[DriverRow]:
        """Renews the lease and returns the drivers that are alive.

        `demand`, `running`: slots the driver could use, and uses. Raises LeaseLost if it is not registered any more.
        """

        def work(connection: sa.Connection) -> list[DriverRow]:
            renewed = connection.execute(
                sa.update(_drivers)
                .where(_drivers.c.id == driver_id)
                .values(demand=demand, running=running, expires=self._db.now(connection) + ttl_s)
            )
            if renewed.rowcount == 0:
                raise LeaseLost(f"driver {driver_id} is not registered any more: register it again")
            return live_drivers(self._db, connection)

        return self._db.write(work)

    def unregister(self, driver_id: str) -> None:
        """Ends the lease: other drivers can claim at once what this one still holds."""
        delete = sa.delete(_drivers).where(_drivers.c.id == driver_id)
        self._db.write(lambda connection: connection.execute(delete) and None)

    def drivers(self) -> list[DriverRow]:
        """The drivers that are alive, by id."""
        return self._db.read(lambda connection: live_drivers(self._db, connection))

    def claim(self, driver_id: str, keys: Iterable[str], for_weights: bool = False) -> dict[str, int]:
        """Takes those of these trials that are free; returns their keys with the token of the new attempt.

        Free are pending trials, trials that a search stopped (they then run in full), and running ones whose driver is
        dead: their old attempt is closed as driver_lost. `for_weights`: done trials without weights are free too,
        because a later trial starts from them. Without it, a trial with figures that ran once more for its weights when
        its driver died is not taken: it is done again. A trial that another driver claims at this moment is skipped.
        Raises LeaseLost if the driver itself is not alive.
        """
        wanted = sorted(set(keys))
        return self._db.write(lambda connection: self._claim(connection, driver_id, wanted, for_weights))

    def _claim(
        self, connection: sa.Connection, driver_id: str, wanted: Sequence[str], for_weights: bool
    ) -> dict[str, int]:
        alive = {driver.id: driver for driver in live_drivers(self._db, connection)}
        driver = alive.get(driver_id)
        if driver is None:
            raise LeaseLost(f"driver {driver_id} holds no live lease: register it, and send heartbeats")
        taken: list[Any] = []
        for keys in chunks(wanted):
            taken += connection.execute(_TO_TAKE[for_weights], {"keys": keys, "alive": list(alive)}).all()
        if not taken:
            return {}
        now = self._db.now(connection)
        for row in taken:
            if row.state == TrialState.running:
                close_attempt(connection, row.id, row.token, now, "driver_lost", "its driver is gone")
                if row.value is not None and not for_weights:
                    connection.execute(_DONE_AGAIN, {"row_id": row.id, "now": now})
        taken = [row for row in taken if row.state != TrialState.running or row.value is None or for_weights]
        if not taken:
            return {}
        git = connection.execute(_GIT, {"job_id": driver.job_id}).one()
        taking = {"by": driver_id, "now": now, "commit": git.git_commit, "dirty": git.git_dirty}
        connection.execute(_TAKE, [{"row_id": row.id, **taking} for row in taken])
        connection.execute(
            _BEGIN,
            [
                {
                    "trial_id": row.id, "token": row.token + 1, "driver_id": driver_id, "cluster": driver.cluster,
                    "host": driver.host, "git_commit": git.git_commit, "git_dirty": git.git_dirty, "started": now,
                }
                for row in taken
            ],
        )  # fmt: skip
        return {row.key: row.token + 1 for row in taken}

    def adopt(self, driver_id: str, key: str, token: int) -> bool:
        """Hands the running attempt `token` of a dead driver to this one; returns False if that is not possible.

        Raises LeaseLost if the driver itself is not alive.
        """

        def work(connection: sa.Connection) -> bool:
            alive = [driver.id for driver in live_drivers(self._db, connection)]
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

        return self._db.write(work)

    def running(self, cluster: str | None = None) -> list[Running]:
        """The running trials of all jobs, or of those on one cluster."""
        query = (
            sa.select(_trials.c.key, _trials.c.token, _trials.c.driver_id, _attempts.c.cluster)
            .join(_attempts, (_attempts.c.trial_id == _trials.c.id) & (_attempts.c.token == _trials.c.token))
            .where(_trials.c.state == TrialState.running)
            .order_by(_trials.c.id)
        )
        if cluster is not None:
            query = query.where(_attempts.c.cluster == cluster)

        def work(connection: sa.Connection) -> list[Running]:
            alive = {driver.id for driver in live_drivers(self._db, connection)}
            return [
                Running(row.key, row.token, row.driver_id, row.driver_id in alive, row.cluster)
                for row in connection.execute(query)
            ]

        return self._db.read(work)


_LIVE = sa.select(_drivers).where(_drivers.c.expires > sa.bindparam("now")).order_by(_drivers.c.id)


def live_drivers(db: Database, connection: sa.Connection) -> list[DriverRow]:
    """The drivers that are alive, by id, as the caller's transaction sees them."""
    rows = connection.execute(_LIVE, {"now": db.now(connection)})
    return [_driver(row) for row in rows if not _is_gone(row.host, row.pid, row.pid_started)]


def _driver(row: Row[Any]) -> DriverRow:
    return DriverRow(**{name: getattr(row, name) for name in DriverRow.__dataclass_fields__})


_CLOSE = (
    sa.update(_attempts)
    .where(
        _attempts.c.trial_id == sa.bindparam("of_trial"), _attempts.c.token == sa.bindparam("of_token"),
        _attempts.c.ended.is_(None),
    )
    .values(ended=sa.bindparam("now"), cause=sa.bindparam("why"), message=sa.bindparam("text"))
)  # fmt: skip


def close_attempt(connection: sa.Connection, trial_id: int, token: int, now: float, cause: str, message: str) -> None:
    """Ends an attempt in the caller's transaction; one that has ended already is left unchanged."""
    connection.execute(_CLOSE, {"of_trial": trial_id, "of_token": token, "now": now, "why": cause, "text": message})
