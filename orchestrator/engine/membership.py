"""A driver's membership in its cluster: registration, heartbeats, and its share of the slots."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.engine.fair_share import SlotDemand, allocate_slots
from orchestrator.errors import LeaseLost
from orchestrator.store.leases import LEASE_SECONDS, driver_here
from orchestrator.store.store import Store

BEAT_S = 3.0
"""Seconds between heartbeats. A lease lasts ten times as long."""


@dataclass(frozen=True)
class Beat:
    """The state of the cluster's drivers, and of this driver's job, at a heartbeat."""

    allowed: int
    """Trials that this driver may run at once."""
    of_job: int
    """Trials that all drivers of its job in the cluster may run at once, as soon as they have so many: the share of
    the next stages, however few trials are ready now."""
    drivers_changed: bool
    """True if a driver has left or died since the last beat."""
    alone: bool
    """True if no other driver uses the cluster."""
    cancel_requested: bool
    pins: Mapping[str, str]
    """Key of a trial, or id of a job -> why its weights are pinned."""


class Membership:
    """One driver among those of a cluster."""

    def __init__(self, store: Store, driver_id: str, job_id: str, cluster: str, priority: int) -> None:
        self._store, self._id, self._job_id, self._cluster, self._priority = store, driver_id, job_id, cluster, priority
        self._others: frozenset[str] = frozenset()
        self._last_beat = float("-inf")

    def register(self, slots: int, ttl_s: float = LEASE_SECONDS) -> None:
        """Records the driver, for `ttl_s` seconds. `slots`: how many of its trials the empty cluster holds."""
        driver = driver_here(self._id, self._job_id, self._cluster, self._priority, slots)
        self._store.leases.register(driver, ttl_s)

    @property
    def due(self) -> bool:
        """True if the next heartbeat is due."""
        return time.monotonic() - self._last_beat >= BEAT_S

    def beat(self, demand: int, running: int, slots: int) -> Beat:
        """Extends the lease and divides the cluster's slots among its drivers; arguments: numbers of trials."""
        self._last_beat = time.monotonic()
        try:
            alive = self._store.leases.heartbeat(self._id, demand, running, ttl_s=10 * BEAT_S)
        except LeaseLost:  # no heartbeat for too long; the next write shows which trials others took over
            self.register(slots)
            alive = self._store.leases.heartbeat(self._id, demand, running, ttl_s=10 * BEAT_S)
        demands = [
            SlotDemand(driver.id, driver.priority, demand, slots)
            if driver.id == self._id  # the cluster may have grown since it registered
            else SlotDemand(driver.id, driver.priority, driver.demand, driver.slots)
            for driver in alive
            if driver.cluster == self._cluster
        ]
        drivers = frozenset(each.id for each in demands)
        gone, self._others = self._others - drivers, drivers
        of_job = {self._id, *(driver.id for driver in alive if driver.job_id == self._job_id)}
        later = [replace(each, demand=max(each.demand, each.slots)) if each.id in of_job else each for each in demands]
        return Beat(
            allowed=allocate_slots(demands).get(self._id, slots),
            of_job=sum(share for driver, share in allocate_slots(later).items() if driver in of_job),
            drivers_changed=bool(gone),
            alone=len(demands) <= 1,
            cancel_requested=self._store.jobs.cancel_requested(self._job_id),
            pins=self._store.weights.pins(),
        )
