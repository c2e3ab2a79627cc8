"""Processes that run one at a time, up to their next step, and that can be killed between any two steps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from orchestrator.store.database import Database

T = TypeVar("T")


class Killed(BaseException):
    """Ends a process as SIGKILL does: whatever it tries on its way out is refused too."""


class Process:
    """A piece of work in a thread of its own that waits at every `pause` until the test lets it go on."""

    def __init__(self, name: str, work: Callable[[Process], Any]) -> None:
        self.name = name
        self.where = "not begun"
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = False
        self.driver: Any = None
        """The driver that it runs, if any."""
        self._work = work
        self._raised: BaseException | None = None
        """Raised at the next pause."""
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True, name=name).start()

    @property
    def dead(self) -> bool:
        return isinstance(self._raised, Killed)

    def step(self, count: int = 1) -> None:
        """Lets the process run to its next pause, `count` times or until it ends."""
        for _ in range(count):
            if self.ended:
                return
            self._turn.release()
            self._back.acquire()

    def kill(self) -> None:
        """Ends the process where it waits."""
        self._raised = Killed()
        while not self.ended:
            self.step()

    def fail(self, error: Exception) -> None:
        """Raises this error where the process waits, as a database that does not answer would."""
        self._raised = error

    def pause(self, where: str) -> None:
        """Waits for the next step; called by the process itself."""
        if not self.dead:  # a killed process does not wait again
            self.where = where
            self._back.release()
            self._turn.acquire()
        if self._raised is not None:
            error = self._raised
            if not self.dead:
                self._raised = None
            raise error

    def _run(self) -> None:
        self._turn.acquire()
        try:
            if not self.dead:
                self.result = self._work(self)
        except BaseException as error:
            self.error = error
        self.ended = True
        self._back.release()


class Clock:
    """The time of the database and of all processes: the test moves it. No two readings are equal."""

    def __init__(self) -> None:
        self.seconds = 1.7e9

    def monotonic(self) -> float:
        self.seconds += 1e-3
        return self.seconds


def without_sync(database: Database) -> None:
    """From now on SQLite does not wait for the disk: nothing here loses power."""
    if database.sqlite:
        sa.event.listen(
            database._engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF")
        )
        database._engine.dispose()  # the next connection is a new one


class SteppedDatabase:
    """A database as one process uses it: by the test's clock, with a pause before and after each transaction that
    writes."""

    def __init__(self, database: Database, clock: Clock, process: Process | None = None) -> None:
        self._database, self._clock, self._process = database, clock, process
        self.sqlite, self.where = database.sqlite, database.where

    def now(self, connection: sa.Connection) -> float:
        return self._clock.monotonic()

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        if self._process is not None and self._process.dead:
            raise Killed
        return self._database.read(work)

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        if self._process is None:
            return self._database.write(work)
        self._process.pause("before a write")
        result = self._database.write(work)
        self._process.pause("after a write")
        return result

    def insert(self, table: sa.Table) -> Any:
        return self._database.insert(table)

    def close(self) -> None:
        """Its owner closes the database."""
