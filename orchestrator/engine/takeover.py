"""Takes over trials whose driver died, and follows the job's trials that another driver runs."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from orchestrator.engine.backend import Backend, is_broken
from orchestrator.errors import LeaseLost
from orchestrator.records.states import TrialSnapshot
from orchestrator.store.store import Store

FIRST_LOOK_S, LOOK_S = 10.0, 1.0
"""Seconds that actors of other drivers have to answer: before anything runs, and while this driver's trials wait."""


class Takeover:
    """The trials of a driver's job that other drivers run or ran."""

    def __init__(self, store: Store, cluster: str, driver_id: str) -> None:
        self._store, self._cluster, self._driver_id = store, cluster, driver_id
        self.held_elsewhere: set[str] = set()
        """Keys of the job's trials that another driver holds, or held at the last review."""
        self._looked = False

    def orphans(self, backend: Backend, tidy: bool = False) -> list[Any]:
        """Adopts the trials of any job whose driver died; returns their unacknowledged updates.

        An idle actor of a dead driver is reused if everything it reported is recorded, because it holds resources that
        trials need. `tidy`: looks for such actors even if no trial has lost its driver.
        """
        runs = {run.key: run for run in self._store.leases.running(self._cluster)}
        if not tidy and all(run.alive for run in runs.values()):
            return []
        answers = backend.foreign_actors(LOOK_S if self._looked else FIRST_LOOK_S)
        self._looked = True
        # Read after the actors: a driver registers before it makes any.
        drivers = {driver.id for driver in self._store.leases.drivers()}
        adopted = []
        for answer in answers:
            key, token, owner = answer.update.key, answer.update.token, answer.update.owner
            run = runs.get(key)
            if run is None or run.token != token:
                if owner not in drivers:
                    self._reuse_or_retire(backend, answer)
            elif not run.alive and self._adopt(key, token):
                backend.adopt(answer)
                self.held_elsewhere.discard(key)
                adopted.append(answer)
        return adopted

    def _adopt(self, key: str, token: int) -> bool:
        """False also if this driver's own lease ran out during the look: the next beat renews it, and looks again."""
        try:
            return self._store.leases.adopt(self._driver_id, key, token)
        except LeaseLost:
            return False

    def _reuse_or_retire(self, backend: Backend, answer: Any) -> None:
        update = answer.update
        snapshot = self._store.trials.snapshots([update.key]).get(update.key)
        # Until its end is recorded, the trial's checkpoints are still needed.
        recorded = not update.key or (snapshot is not None and snapshot.state.ended)
        if update.ended and recorded and not is_broken(update):
            backend.reuse_idle(answer)
        else:
            backend.retire(answer.worker)

    def hold(self, key: str) -> None:
        """Notes that another driver holds this trial."""
        self.held_elsewhere.add(key)

    def review(
        self, running: Iterable[str], planned: Container[str]
    ) -> tuple[dict[str, TrialSnapshot], dict[str, TrialSnapshot]]:
        """(ended, free again): which of the trials held elsewhere ended there, and which may be claimed.

        `running`: keys of the trials that this driver runs itself. Claiming a trial shows whether its driver is alive.
        A trial that is not in `planned` stays noted.
        """
        self.held_elsewhere.difference_update(running)
        ended: dict[str, TrialSnapshot] = {}
        free: dict[str, TrialSnapshot] = {}
        for key, snapshot in self._store.trials.snapshots(sorted(self.held_elsewhere)).items():
            if snapshot.state.ended:
                ended[key] = snapshot
            elif key in planned:
                free[key] = snapshot
        self.held_elsewhere.difference_update(ended, free)
        return ended, free
