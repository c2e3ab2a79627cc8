"""The only place for the process that mirrors a job into MLflow beside its driver, and knows when to end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.settings import Settings
from orchestrator.tracking.mlflow_mirror import Mirror, Picture, Synced

if TYPE_CHECKING:
    import psutil

    from orchestrator.store.store import Store


class _StopCondition:
    """Whether a process that works beside another one should end: the other is gone, has closed our standard input
    (if that is a pipe), or SIGTERM came."""

    def __init__(self, parent_pid: int, last_s: float) -> None:
        import psutil

        self._last_s = last_s
        self._asked = False
        self._until = float("inf")
        self._pipe = stat.S_ISFIFO(os.fstat(0).st_mode)
        try:
            self._parent: psutil.Process | None = psutil.Process(parent_pid)
        except psutil.NoSuchProcess:
            self._parent = None
        signal.signal(signal.SIGTERM, self._ask)
        # Ctrl-C reaches the whole terminal; when to end is the driver's to say.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def __call__(self) -> bool:
        if not self._asked:
            import psutil

            gone = self._parent is None or not self._parent.is_running()
            zombie = not gone and self._parent is not None and self._parent.status() == psutil.STATUS_ZOMBIE
            closed = self._pipe and bool(select.select([0], [], [], 0)[0]) and not os.read(0, 1024)
            self._asked = gone or zombie or closed
        if self._asked and self._until == float("inf"):
            self._until = time.monotonic() + self._last_s
        return self._asked

    def late(self) -> bool:
        """Whether the time for the last sync is over too."""
        return self() and time.monotonic() > self._until


def follow(
    store: Store, job_id: str, tracking_uri: str, folder: Path, parent_pid: int, picture: Picture | None = None,
    every_s: float = 5.0, last_s: float = 30.0, say: Callable[[str], None] | None = None, storage: Path | None = None,
) -> Synced:  # fmt: skip
    """Syncs every `every_s` seconds until the driver `parent_pid` is gone or says stop (SIGTERM, or the end of our
    standard input where that is a pipe), then once more within `last_s` seconds. Returns what was written in all;
    `problem` is the last sync's. `say` gets a line when a problem begins, and when it is over.

    To be run as a process of its own: it takes signals over, and MLflow's Python takes 20 to 50 ms for a trial, which
    a driver would spend instead of handing out the next one.
    """
    tell = say or (lambda line: print(line, file=sys.stderr, flush=True))
    stop = _StopCondition(parent_pid, last_s)
    os.nice(5)  # the trials come first
    total, opened = Synced(), False
    with contextlib.closing(Mirror(store, job_id, tracking_uri, folder, picture, storage)) as one:
        while True:
            last = stop()
            began = time.monotonic()
            done = one.sync(stop.late)
            if done.problem != total.problem:
                tell(done.problem or "MLflow takes the mirror again")
            total += done
            if last:
                return total
            # A large job costs more to look at: never more than a quarter of a core, once MLflow is open.
            pause = max(every_s, 3 * (time.monotonic() - began)) if opened else every_s
            opened = True
            until = time.monotonic() + pause
            while time.monotonic() < until and not stop():
                time.sleep(0.2)


TRACKING_LAST_S = 60.0
"""How long a finished job waits for its last curves to reach the tracking server."""


def _mirrored(store: Store, identity: str) -> bool:
    """Whether MLflow has every trial and group of a job that has ended, to the end."""
    tracked = store.tracked_runs.of(identity)
    rows = store.trials.placed(identity)
    places = {(row.stage, row.group, row.key) for row in rows} | {(row.stage, row.group, "") for row in rows}
    return all(place in tracked and tracked[place].closed for place in places)


@dataclass
class _Tracking:
    problem: str | None = None


@contextlib.contextmanager
def tracked(identity: str, where: Settings, enabled: bool) -> Iterator[_Tracking]:
    """Mirrors the job into MLflow beside the block, in a process of its own; it ends when its input is closed."""
    result = _Tracking()
    if not enabled:
        yield result
        return
    command = [sys.executable, "-m", "orchestrator", "track", "--follow", identity]
    addresses = {  # not on the command line, which everybody on the machine can read
        "ORCHESTRATOR_RUNS": str(where.folder),
        "DATABASE_URL": where.database_url,
        "MLFLOW_TRACKING_URI": where.tracking_uri,
        "ORCHESTRATOR_STORAGE": str(where.storage),
    }
    log = where.folder / "tracking.log"
    with open(log, "w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, env={**os.environ, **addresses}
        )
    try:
        yield result
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            code = process.wait(TRACKING_LAST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = -1
        if code != 0:
            lines = log.read_text(errors="replace").strip().splitlines()
            said = lines[-1] if lines else "no word from it"
            result.problem = f"MLflow lacks a part of this job ({said}); `track --sync {identity}` fills it in"
