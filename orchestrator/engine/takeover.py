"""The only place that minds other drivers: leases, shares of the cluster, trials that outlived their driver."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from orchestrator.engine.backend import broken
from orchestrator.engine.fair_share import SlotDemand, allocate_slots
from orchestrator.errors import LeaseLost
from orchestrator.store.leases import driver_here

if TYPE_CHECKING:
    from orchestrator.engine.driver import Driver

BEAT_S = 3.0
"""Seconds between heartbeats; a lease lives ten times as long."""
FIRST_LOOK_S, LOOK_S = 10.0, 1.0
"""How long the actors of other drivers have to answer: before anything runs, and while our own trials wait for us."""


class Company:
    """What one driver knows of the others on its cluster, and of its job's trials in their hands."""

    def __init__(self, drive: Driver) -> None:
        self._drive = drive
        self.held_elsewhere: dict[str, float] = {}
        """Keys of the job's trials that another driver holds, or held when that was last looked at."""
        self._drivers: set[str] = set()
        self._beaten = 0.0

    def register(self) -> None:
        drive = self._drive
        drive.store.leases.register(
            driver_here(drive.id, drive.job_id, drive.site.cluster, drive.job.priority, drive.slots())
        )

    def take_over(self, tidy: bool = False) -> None:
        """Finds trials that outlived their driver, records what they have to say, and drives them on.

        Actors that a dead driver left without such a trial (what they said is recorded) are used again: they hold what
        trials need. `tidy`: looks for these even where no trial has lost its driver.
        """
        drive = self._drive
        runs = {run.key: run for run in drive.store.leases.running(drive.site.cluster)}
        if not tidy and all(run.alive for run in runs.values()):
            return
        others = drive.hands.foreign_actors(FIRST_LOOK_S if not self._beaten else LOOK_S)
        drivers = {driver.id for driver in drive.store.leases.drivers()}  # asked last: who has an actor is registered
        answers = []
        for answer in others:
            key, token, owner = answer.news.key, answer.news.token, answer.news.owner
            run = runs.get(key)
            if run is None or run.token != token:
                if owner not in drivers:
                    self._inherit(answer)
            elif not run.alive and drive.store.leases.adopt(drive.id, key, token):
                drive.hands.adopt(answer)
                self.held_elsewhere.pop(key, None)
                drive.tally.adopted += 1
                answers.append(answer)
        drive.apply_updates(answers)

    def _inherit(self, answer: Any) -> None:
        drive = self._drive
        news = answer.news
        known = drive.store.trials.snapshots([news.key]).get(news.key)
        recorded = not news.key or (known is not None and known.state.ended)  # else its checkpoints are still needed
        if news.ended and recorded and not broken(news):
            drive.hands.reuse_idle(answer)
        else:
            drive.hands.retire(answer.worker)

    def _look_elsewhere(self) -> None:
        """Trials of this job in other hands: learn their end, or take them when those hands are gone."""
        drive = self._drive
        if not self.held_elsewhere:
            return
        self.take_over()
        mine = {worker.key for worker in drive.hands.running()}
        for key, known in drive.store.trials.snapshots(sorted(set(self.held_elsewhere) - mine)).items():
            if known.state.ended:
                self.held_elsewhere.pop(key)
                drive.update({key: known}, unheard=True)
            elif key in drive.planned_trials:
                self.held_elsewhere.pop(key)
                drive.hear_recorded(key, known)
                drive.planner.give_back(key)  # claiming it again finds out whether its driver lives
        for key in mine & set(self.held_elsewhere):
            self.held_elsewhere.pop(key)
        drive.update({})

    def beat(self, force: bool = False) -> None:
        drive = self._drive
        now = time.monotonic()
        if not force and now - self._beaten < BEAT_S:
            return
        self._beaten = now
        busy = len(drive.hands.running())
        demand = max(1, busy + drive.planner.ready())  # a trial may become ready before the next beat
        try:
            alive = drive.store.leases.heartbeat(drive.id, demand, busy, ttl_s=10 * BEAT_S)
        except LeaseLost:  # we were silent for too long: what others took since is found out at the next write
            self.register()
            alive = drive.store.leases.heartbeat(drive.id, demand, busy, ttl_s=10 * BEAT_S)
        slots = drive.slots()
        wishes = [
            SlotDemand(
                d.id, d.priority, demand if d.id == drive.id else d.demand, slots if d.id == drive.id else d.slots
            )
            for d in alive
            if d.cluster == drive.site.cluster
        ]
        drive.allowed = allocate_slots(wishes).get(drive.id, slots)
        here = {wish.id for wish in wishes}
        if self._drivers - here or drive.no_room:
            self.take_over(tidy=True)  # one has left or died, or an actor did not answer when that was last looked at
        self._drivers = here
        if len(wishes) > 1:
            drive.hands.close()  # idle actors hold what another job could use
        self._look_elsewhere()
        drive.store.search_log.mark_stopped(drive.searches.left())
        drive.pinned = set(drive.store.weights.pins())
        if drive.stopping is None and drive.store.jobs.cancel_requested(drive.job_id):
            drive.stop("cancelled")
