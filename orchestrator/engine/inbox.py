"""Turns the updates of workers into records for the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.records.rows import MeasurementRow
from orchestrator.records.trial_files import trial_folder
from orchestrator.records.writes import Failed, Finished, Released, Reported, StoppedEarly, Write
from orchestrator.search.searches import Searches
from orchestrator.store.store import Store
from workers.errors import ErrorClass
from workers.messages import Failure, Outcome, Report, StoppedAtCheckpoint, TrialUpdate

LIVES = 5
"""A trial whose process or node died is restarted this often without progress in between; then it has failed."""


class Inbox:
    """Remembers how often each trial lost its process, which decides whether it is restarted."""

    def __init__(
        self,
        store: Store,
        searches: Searches,
        storage: Path,
        name: Callable[[str], str],
        say: Callable[[str], None],
    ) -> None:
        """`name`: display name of a trial by its key; `say`: takes lines for the user."""
        self._store, self._searches, self._storage, self._name, self._say = store, searches, storage, name, say
        self._losses: dict[str, tuple[int, int]] = {}
        """Key -> (deaths without progress, epoch at the last one)."""

    def writes(self, answer: Any, stopping: str | None) -> list[Write]:
        """Records for the store from a worker update; `stopping`: why the driver stops its trials, if it does."""
        worker, update = answer.worker, answer.update
        if update is None:
            return [self._death(worker.key, worker.token, answer.reason, stopping)] if worker.key else []
        return [write for event in update.events if (write := self._write(update, event, stopping)) is not None]

    def _write(self, update: TrialUpdate, event: Any, stopping: str | None) -> Write | None:
        key, token = update.key, update.token
        if isinstance(event, Report):
            values, pictures = dict(event.values), tuple(event.pictures)
            return Reported(key, token, event.epoch, event.step, values, event.seconds, pictures)
        if isinstance(event, Outcome):
            weights = (event.weights.path, event.weights.sha256) if event.weights else None
            return Finished(key, token, dict(event.figures), dict(event.facts), weights, self._measurements(key, event))
        if isinstance(event, StoppedAtCheckpoint):
            return self._stopped(key, token, stopping or "stopped")
        if isinstance(event, Failure):
            if event.error_class is ErrorClass.node_lost:
                return self._death(key, token, event.message, stopping)
            return Failed(key, token, str(event.error_class), event.message, retry=False)
        return None

    def _measurements(self, key: str, outcome: Outcome) -> Sequence[MeasurementRow]:
        if not outcome.measurements:
            return ()
        return read_measurements(trial_folder(self._storage, key) / outcome.measurements)

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
        deaths, at = self._losses.get(key, (0, epoch))
        deaths = deaths + 1 if epoch <= at else 1
        self._losses[key] = (deaths, epoch)
        again = deaths < LIVES and stopping is None
        self._say(f"{self._name(key)}: its process is gone ({reason}); {'it begins again' if again else 'given up'}")
        if not again and stopping:
            return Released(key, token, str(ErrorClass.node_lost))
        return Failed(key, token, str(ErrorClass.node_lost), reason, retry=again)


def read_measurements(path: Path) -> list[MeasurementRow]:
    """The measurements that a trial wrote as JSON lines. Raises OSError and ValueError."""
    with open(path, encoding="utf-8") as lines:
        return [MeasurementRow(**json.loads(line)) for line in lines]
