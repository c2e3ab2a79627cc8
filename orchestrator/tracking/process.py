"""The process that mirrors a job into MLflow beside its driver: how it is started, and when it ends."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import processes
from orchestrator.settings import Settings
from orchestrator.tracking.mlflow_mirror import MIRRORED_ELSEWHERE, Figures, Mirror, Picture
from orchestrator.tracking.mlflow_runs import Synced

if TYPE_CHECKING:
    from orchestrator.store.store import Store


log = logging.getLogger(__name__)


class _StopCondition:
    """Calling it returns True once a process that works beside another should end: the other is gone, or has closed our
    standard input (if that is a pipe), or SIGTERM came."""

    def __init__(self, parent_pid: int, last_s: float) -> None:
        import psutil

        self._last_s = last_s
        self._asked = False
        self._until = float("inf")
        self._pipe = stat.S_ISFIFO(os.fstat(0).st_mode)
        self._parent = parent_pid
        self._began: float | None = None
        """When that process began; None if it is gone already."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._began = processes.began(parent_pid)
        signal.signal(signal.SIGTERM, self._ask)
        # Ctrl-C reaches every process of the terminal, but the driver decides when this one ends.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def __call__(self) -> bool:
        if not self._asked:
            gone = self._began is None or not processes.is_running(self._parent, self._began)
            closed = self._pipe and bool(select.select([0], [], [], 0)[0]) and not os.read(0, 1024)
            self._asked = gone or closed
        if self._asked and self._until == float("inf"):
            self._until = time.monotonic() + self._last_s
        return self._asked

    def late(self) -> bool:
        """True once the time for the last sync is over too."""
        return self() and time.monotonic() > self._until


def follow(
    store: Store, job_id: str, tracking_uri: str, folder: Path, parent_pid: int, picture: Picture | None = None,
    every_s: float = 5.0, last_s: float = 30.0, say: Callable[[str], None] | None = None, storage: Path | None = None,
    figures: Figures | None = None,
) -> Synced:  # fmt: skip
    """Syncs every `every_s` seconds until the driver `parent_pid` is gone or stops it (SIGTERM, or the end of our
    standard input if that is a pipe), then once more within `last_s` seconds. Returns the totals; `problem` is that of
    the last sync; it is none that the process of another driver mirrors the job. `say` is called with a line when a
    problem begins, and when it is over.

    Run it as a process of its own: it handles signals, and MLflow's Python needs 20 to 50 ms for each trial, during
    which a driver could not start the next one.
    """
    report = say or (lambda line: print(line, file=sys.stderr, flush=True))
    stop = _StopCondition(parent_pid, last_s)
    os.nice(5)  # the trials come first
    total, opened = Synced(), False
    with contextlib.closing(Mirror(store, job_id, tracking_uri, folder, picture, storage, figures)) as mirror:
        while True:
            last = stop()
            began = time.monotonic()
            done = mirror.sync(stop.late)
            if done.problem != total.problem:
                report(done.problem or "MLflow answers again")
            total += done
            elsewhere = MIRRORED_ELSEWHERE in (done.problem or "")
            if last and elsewhere and not stop.late():  # the mirror of another driver, which sees the same end
                time.sleep(0.2)
                continue
            if last:
                return replace(total, problem=None) if elsewhere else total
            # A large job costs more to compare: at most a quarter of a core, once MLflow is open.
            pause = max(every_s, 3 * (time.monotonic() - began)) if opened else every_s
            opened = True
            until = time.monotonic() + pause
            while time.monotonic() < until and not stop():
                time.sleep(0.2)


TRACKING_LAST_S = 60.0
"""Seconds that a finished job waits for its last curves to reach the tracking server."""
AGAIN_S = 20.0
"""Seconds between two starts of a mirror that ends before its driver."""
STARTS_AT_THE_END = 9
"""How often a mirror that was killed while the job ended is started again."""


def mirrored(store: Store, identity: str) -> bool:
    """True if MLflow has every trial and group of a job that has ended, each to its end."""
    tracked = store.tracked_runs.of(identity)
    rows = store.trials.placed(identity)
    places = {(row.stage, row.group, row.key) for row in rows} | {(row.stage, row.group, "") for row in rows}
    return all(place in tracked and tracked[place].closed for place in places)


class MirrorProcess:
    """The mirror of a job into MLflow, in a process of its own that ends when its input is closed."""

    def __init__(self, identity: str, where: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.problem: str | None = None
        """What MLflow lacks in the end, and how to fill it in; None if nothing."""
        self._identity, self._where, self._clock = identity, where, clock
        self._log = where.folder / "tracking.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    @contextlib.contextmanager
    def running(self, enabled: bool) -> Iterator[MirrorProcess]:
        """Mirrors while the block runs, if `enabled`, and to the job's end after it."""
        if not enabled:
            yield self
            return
        self._log.unlink(missing_ok=True)
        self._start()
        try:
            yield self
        finally:
            code = self._end()
            for _ in range(STARTS_AT_THE_END):
                if code is None or code >= 0:
                    break
                self._start()  # killed: what it has left open is closed by another
                code = self._end()
            self._process = None
            if code != 0:
                lines = self._log.read_text(errors="replace").strip().splitlines()
                reason = lines[-1] if lines else "its process wrote no reason"
                remedy = f"`track --sync {self._identity}` fills it in"
                self.problem = f"MLflow lacks a part of this job ({reason}); {remedy}"

    def keep(self) -> None:
        """Starts the mirror again if its process is gone, but not again and again. Called in each round of a driver."""
        if self._process is None or self._process.poll() is None or self._clock() - self._started < AGAIN_S:
            return
        log.info("the mirror into MLflow has ended (code %d): starting it again", self._process.returncode)
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "orchestrator", "track", "--follow", self._identity]
        addresses = {  # not on the command line, which every user of the machine can read
            "ORCHESTRATOR_RUNS": str(self._where.folder),
            "DATABASE_URL": self._where.database_url,
            "MLFLOW_TRACKING_URI": self._where.tracking_uri,
            "ORCHESTRATOR_STORAGE": str(self._where.storage),
        }
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._started = self._clock()
        with open(self._log, "a") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, env={**os.environ, **addresses}
            )

    def _end(self) -> int | None:
        """Closes the process's input and waits; its code, None if it took too long and was killed."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            return self._process.wait(TRACKING_LAST_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None
