"""Ends running trials that exceed their time limit or do not stop, and starts none while the storage is away."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.engine.watch import STOP_S, TrialWatch
from orchestrator.errors import BackendUnreachable
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.writes import Failed, Released, Write
from workers.errors import ErrorClass
from workers.messages import Failure, Report

PATIENCE_S = 600.0
"""So long a driver waits for its storage, or its store, before it gives up."""
PROBE_S = 5.0
PROBE_BYTES = 1 << 20
STORAGE_FAILURES = 5
"""So many trials in a row may find the storage full, without one that ends well, before the driver gives up."""

log = logging.getLogger(__name__)


class Supervision:
    """What a driver knows of its running trials beside their results: since when they run, when they last reported."""

    def __init__(self, storage: Path, name: Callable[[str], str], clock: Callable[[], float] = time.monotonic) -> None:
        """`storage`: folder of the trials' files. `name`: display name of a trial by its key."""
        self._name, self._clock = name, clock
        self._trials = TrialWatch()
        self._stop_by: float | None = None
        self.storage = StorageWatch(storage, clock)

    def heard(self, answer: Any, planned: PlannedTrial | None) -> None:
        """Notes that a worker has answered. `planned`: its trial, if that is one of this driver's job."""
        update, worker = answer.update, answer.worker
        if update is None or update.ended:
            self._trials.ended(worker.key, worker.token)
            return
        hours = planned.resources.time_limit_hours if planned else None
        guess = planned.seconds / max(1.0, planned.spec.optim.epochs) if planned else 0.0
        rounds = [event.seconds for event in update.events if isinstance(event, Report)]
        limit = hours * 3600 if hours else None
        self._trials.heard(update.key, update.token, rounds, self._clock(), limit, guess)

    def stopping(self) -> None:
        """All running trials are asked to stop from now on."""
        self._stop_by = self._clock() + STOP_S

    def overdue(self, running: Sequence[Any], why_stopped: str | None) -> list[tuple[Any, Write]]:
        """The workers whose processes are to be ended now, each with the record of that."""
        workers = {(worker.key, worker.token): worker for worker in running}
        found: dict[tuple[str, int], Write] = {}
        for verdict in self._trials.verdicts(self._clock()):
            key, token = verdict.key, verdict.token
            if (key, token) not in workers:
                self._trials.ended(key, token)
                continue
            log.info("%s: %s", self._name(key), verdict.text)
            if verdict.end:
                found[key, token] = Failed(key, token, str(ErrorClass.timeout), verdict.text, retry=False)
        if self._stop_by is not None and self._clock() > self._stop_by:
            for key, token in workers.keys() - found.keys():
                log.info("%s did not stop within %.0f s: its process is ended", self._name(key), STOP_S)
                found[key, token] = Released(key, token, why_stopped or "stopped")
        for key, token in found:
            self._trials.ended(key, token)
        return [(workers[each], write) for each, write in found.items()]


class StorageWatch:
    """Tells failures of the storage, which every trial would meet, from failures of a trial."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._seen = False
        self._away_since: float | None = None
        self._probed = float("-inf")
        self._failures = 0
        self._why = ""

    def is_gone(self) -> bool:
        """True if the folder was there and no longer is."""
        if self._folder.is_dir():
            self._seen = True
            return False
        return self._seen

    def caused(self, failure: Failure) -> bool:
        """True if a trial failed because its storage is full, read-only or gone; no trial starts from then on."""
        gone = self.is_gone()
        if failure.error_class is not ErrorClass.storage and not gone:
            return False
        self._failures += 1
        self._pause(f"{self._folder} is gone" if gone else failure.message.splitlines()[0])
        return True

    def ended_well(self) -> None:
        """A trial has written its results."""
        self._failures = 0

    def may_start(self) -> bool:
        """False while the storage is away. Raises BackendUnreachable if that lasts, or comes again and again."""
        if self._away_since is None:
            if not self.is_gone():
                return True
            self._pause(f"{self._folder} is gone")
        assert self._away_since is not None
        now = self._clock()
        if self._failures >= STORAGE_FAILURES or now - self._away_since > PATIENCE_S:
            raise BackendUnreachable(
                f"the storage cannot be used: {self._why}\nMake room, or bring {self._folder} back; then submit again. "
                "Nothing recorded is lost, and no trial counts as failed."
            )
        if now - self._probed < PROBE_S:
            return False
        self._probed = now
        if not self._writable():
            return False
        log.info("the storage can be written again: going on")
        self._away_since = None
        return True

    def _pause(self, why: str) -> None:
        if self._away_since is None:
            self._away_since, self._why, self._probed = self._clock(), why, self._clock()
            log.info("paused: %s; no trial starts before that is mended (for %.0f min)", why, PATIENCE_S / 60)

    def _writable(self) -> bool:
        probe = self._folder / f".probe-{os.getpid()}"
        try:
            with open(probe, "wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
            return True
        except OSError:
            return False
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
