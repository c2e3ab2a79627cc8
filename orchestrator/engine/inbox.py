"""Turns the updates of workers into records for the store."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.engine.supervision import StorageWatch
from orchestrator.records.rows import MeasurementRow
from orchestrator.records.states import SUBMISSION
from orchestrator.records.trial_files import recorded_path, trial_folder
from orchestrator.records.writes import Failed, Finished, Released, Reported, StoppedEarly, Write
from orchestrator.search.searches import Searches
from orchestrator.store.store import Store
from workers.errors import ErrorClass
from workers.messages import Failure, Outcome, Report, StoppedAtCheckpoint, TrialUpdate

LIVES = 5
"""A trial fails when its process or node has died this often without progress in between."""

log = logging.getLogger(__name__)


class Inbox:
    """Remembers how often each trial lost its process, which decides whether it is restarted."""

    def __init__(
        self, store: Store, searches: Searches, storage: Path, name: Callable[[str], str], watch: StorageWatch
    ) -> None:
        """`storage`: folder of the trials' files, and its `watch`. `name`: display name of a trial by its key."""
        self._storage_watch = watch
        self._store, self._searches, self._storage, self._name = store, searches, storage, name
        self._losses: dict[str, tuple[int, int]] = {}
        """Key -> (deaths without progress, epoch at the last one)."""

    def writes(self, answer: Any, stopping: str | None) -> list[Write]:
        """Records for the store from a worker update. `stopping`: why the driver stops its trials, if it does."""
        worker, update = answer.worker, answer.update
        if update is None:
            return [self._death(worker.key, worker.token, answer.reason, stopping)] if worker.key else []
        return [write for event in update.events if (write := self._write(update, event, stopping)) is not None]

    def say_deaths(self, recorded: Sequence[Write]) -> None:
        """Tells of the processes that died, once that is recorded."""
        for write in recorded:
            if isinstance(write, Failed) and write.error_class == ErrorClass.node_lost:
                what = "restarting" if write.retry else "given up"
                log.info("%s: its process died (%s); %s", self._name(write.key), write.message, what)

    def _write(self, update: TrialUpdate, event: Any, stopping: str | None) -> Write | None:
        key, token = update.key, update.token
        if isinstance(event, Report):
            values, pictures = dict(event.values), tuple(event.pictures)
            return Reported(key, token, event.epoch, event.step, values, event.seconds, pictures)
        if isinstance(event, Outcome):
            self._storage_watch.ended_well()
            return self._finished(key, token, event)
        if isinstance(event, StoppedAtCheckpoint):
            return self._stopped(key, token, stopping or "stopped")
        if isinstance(event, Failure):
            if event.error_class is ErrorClass.node_lost:
                return self._death(key, token, event.message, stopping)
            if self._storage_watch.caused(event):  # every other trial would meet it too: this one has not failed
                log.info("%s: pending again: %s", self._name(key), event.message.splitlines()[0])
                return self._stopped(key, token, str(ErrorClass.storage))
            return Failed(key, token, str(event.error_class), event.message, retry=False)
        return None

    def _finished(self, key: str, token: int, outcome: Outcome) -> Write:
        """The figures count even if the file of measurements is lost or damaged; a note among the facts then says so.

        Figures decide the choices, and to repeat a training for the sake of this file would cost more than it is worth.
        """
        facts: Mapping[str, Any] = outcome.facts
        measurements: Sequence[MeasurementRow] = ()
        if outcome.measurements:
            try:
                path = trial_folder(self._storage, key) / outcome.measurements
                measurements = read_measurements(path, outcome.measurements_sha256)
            except (OSError, ValueError) as error:
                note = f"measurements are not recorded: {error}"
                facts = {**facts, "notes": [*facts.get("notes", ()), note]}
                log.info("%s: %s", self._name(key), note)
        kept = outcome.weights
        weights = (recorded_path(self._storage, kept.path), kept.sha256) if kept else None
        if isinstance(facts.get(SUBMISSION), str):
            facts = {**facts, SUBMISSION: recorded_path(self._storage, facts[SUBMISSION])}
        return Finished(key, token, dict(outcome.figures), dict(facts), weights, measurements)

    def _stopped(self, key: str, token: int, why: str) -> Write:
        """A trial that stopped at a checkpoint is pending again, unless a search has ended it."""
        if self._searches.unwanted(key):
            return StoppedEarly(key, token, self._searches.reason(key))
        return Released(key, token, why)

    def _death(self, key: str, token: int, reason: str, stopping: str | None) -> Write:
        """A trial whose process died is restarted, unless it died repeatedly without progress."""
        if self._searches.unwanted(key):
            return self._stopped(key, token, reason)
        epoch = self._store.trials.snapshots([key])[key].epoch
        deaths, epoch_before = self._losses.get(key, (0, epoch))
        deaths = deaths + 1 if epoch <= epoch_before else 1
        self._losses[key] = (deaths, epoch)
        restart = deaths < LIVES and stopping is None
        if not restart and stopping:
            return Released(key, token, str(ErrorClass.node_lost))
        return Failed(key, token, str(ErrorClass.node_lost), reason, retry=restart)


_ROW = TypeAdapter(MeasurementRow)


def read_measurements(path: Path, sha256: str | None) -> list[MeasurementRow]:
    """The measurements that a trial wrote as JSON lines; values that are not finite numbers become None.

    Raises OSError if the file cannot be read, ValueError if its content is another one or a line is damaged.
    """
    rows = []
    with open(path, "rb") as lines:
        if sha256 is not None and (digest := hashlib.file_digest(lines, "sha256").hexdigest()) != sha256:
            raise ValueError(f"{path} has SHA-256 {digest}, not {sha256}")
        lines.seek(0)
        for number, line in enumerate(lines, 1):
            try:
                row = _ROW.validate_json(line, strict=True)
            except ValidationError as error:
                problem = error.errors()[0]
                field = "".join(f"{name}: " for name in problem["loc"])
                raise ValueError(f"{path}, line {number}: {field}{problem['msg']}") from error
            rows.append(row if row.value is None or math.isfinite(row.value) else replace(row, value=None))
    return rows
