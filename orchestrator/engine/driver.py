"""The control loop of a job: starts the trials that the plan names next, and records what they report."""

from __future__ import annotations

import logging
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.engine.backend import Backend, RunSite, assignment_of, is_broken
from orchestrator.engine.commits import commit
from orchestrator.engine.inbox import Inbox
from orchestrator.engine.membership import Membership
from orchestrator.engine.plan_rows import choice_of, placement_of
from orchestrator.engine.supervision import Supervision
from orchestrator.engine.takeover import Takeover
from orchestrator.engine.tally import Tally
from orchestrator.engine.time_left import TimeLeft
from orchestrator.errors import ClusterLost, Conflict, LeaseLost, OrchestratorError
from orchestrator.plan.planner import Planner
from orchestrator.plan.state import RESULTS
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.states import SUBMISSION, JobState, TrialSnapshot, TrialState
from orchestrator.records.writes import Attempt, Failed, Finished, Reported, Write, gives_back
from orchestrator.search.searches import Searches, SearchStep
from orchestrator.spec.job import JobSpec, Resources
from orchestrator.store.store import Store
from workers.errors import ErrorClass
from workers.fault_injection import fault_point

STARTING_S = 120.0
"""Seconds for which a driver is registered while its cluster starts, before its first heartbeat."""
log = logging.getLogger(__name__)


class Driver:
    """Drives one job. `run` returns when the job is done, incomplete, interrupted or cancelled.

    Every event is committed to the store before the worker that sent it may drop it, so this process may die at any
    point and the next driver resumes. Errors of the store and the cluster propagate; trials keep running meanwhile.
    """

    def __init__(
        self,
        store: Store,
        job: JobSpec,
        job_id: str,
        planner: Planner,
        site: RunSite,
        watch: Callable[[Driver], None] = lambda driver: None,
    ) -> None:
        """`watch` is called in each round of the loop, to show progress."""
        self.store, self.job, self.job_id, self.planner, self.site = store, job, job_id, planner, site
        self.id = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.tally = Tally()
        self.stopping: str | None = None
        """Why running trials are asked to stop: "interrupted" or "cancelled"."""
        self.allowed = 0
        """Trials that may run at once: this driver's share of the cluster."""
        self._of_job = 0
        """Trials that all drivers of the job may run at once when it has so many."""
        self.searches = Searches(job, planner, lambda: store.search_log.events(job_id))
        self.planned_trials: dict[str, PlannedTrial] = {}
        self.no_room = False
        """True if trials are ready but none fits on the cluster now."""
        self.pinned: set[str] = set()
        self._time_left = TimeLeft(planner)
        self._watch = watch
        self._supervision = Supervision(site.storage, self.name)
        self._inbox = Inbox(store, self.searches, site.storage, self.name, self._supervision.storage)
        self._takeover = Takeover(store, site.cluster, self.id)
        self._membership = Membership(store, self.id, job_id, site.cluster, job.priority)
        self._unapplied: deque[tuple[str, TrialSnapshot, bool]] = deque()
        """(key, snapshot, replay) that `update` has yet to pass to searches and planner."""
        self._asked_to_stop: set[Attempt] = set()
        """Those that a search ended."""
        self._logged_pauses: set[str] = set()
        self._cluster_lost = False

    # The loop

    def prepare(self) -> bool:
        """Records the job's first trials and applies what the store knows of them; True if something is left to run.

        Raises Conflict if the job searches and another process drives it: both would decide for one search.
        """
        self._refuse_second_driver()
        self._apply(SearchStep(list(self.planner.placed), list(self.planner.decisions)))
        self.update(self.store.trials.snapshots(self.planner.outside()))
        snapshots = self.store.trials.snapshots(self.planned_trials).values()
        self.tally.already_done = sum(snapshot.state.ended for snapshot in snapshots)
        return not self.planner.finished()

    def register(self) -> None:
        """Registers the prepared driver while its cluster starts, so that a request to cancel the job finds it."""
        self._membership.register(slots=0, ttl_s=STARTING_S)

    def conclude(self) -> JobState:
        """Records and returns the state in which the job ends."""
        self.store.search_log.mark_stopped(self.searches.stopped_while_pending())
        state, message = self._verdict()
        self.store.jobs.set_state(self.job_id, state, message)
        return state

    def run(self, backend: Backend) -> JobState:
        """Drives the prepared job to its end. Errors such as BackendUnreachable leave the store intact."""
        self.backend = backend
        self._membership.register(self.slots())
        self.store.jobs.forget_seconds_left(self.job_id)
        self.store.jobs.set_state(self.job_id, JobState.running)
        try:
            self._take_over(tidy=True)
            self._beat(force=True)
            while not self._over():
                self._start_ready()
                self.apply_updates(self.backend.poll(0.5))
                self._end_overdue()
                self._beat()
                self._watch(self)
            return self.conclude()
        except ClusterLost as error:
            running, self._cluster_lost = self.backend.running(), True
            cause = str(ErrorClass.node_lost)
            self._commit([Failed(worker.key, worker.token, cause, str(error), retry=True) for worker in running])
            raise
        finally:
            self._release()

    def _beat(self, force: bool = False) -> None:
        """Extends the lease, takes this driver's share of the slots, and reviews what other drivers hold."""
        if not (force or self._membership.due):
            return
        running = len(self.backend.running())
        demand = max(1, running + self.planner.ready())  # a trial may become ready before the next beat
        beat = self._membership.beat(demand, running, self.slots())
        self.allowed, self._of_job, self.pinned = beat.allowed, beat.of_job, set(beat.pins)
        if beat.drivers_changed or self.no_room:
            self._take_over(tidy=True)  # a driver left or died, or an actor did not answer in time
        if not beat.alone:
            self.backend.close()  # idle actors hold resources that another job could use
        self._review_held_elsewhere()
        self.store.search_log.mark_stopped(self.searches.stopped_while_pending())
        if (left := self.seconds_left()) is not None:
            self.store.jobs.put_seconds_left(self.job_id, left)
        if self.stopping is None and beat.cancel_requested:
            self.stop("cancelled")

    def _take_over(self, tidy: bool = False) -> None:
        orphans = self._takeover.orphans(self.backend, tidy)
        self.tally.adopted += len(orphans)
        self.apply_updates(orphans)

    def _review_held_elsewhere(self) -> None:
        """Applies the ends of trials that other drivers ran, and plans those again that no driver holds any more."""
        if not self._takeover.held_elsewhere:
            return
        self._take_over()
        running = [worker.key for worker in self.backend.running()]
        ended, free = self._takeover.review(running, self.planned_trials)
        for key, snapshot in ended.items():
            self.update({key: snapshot}, replay=True)
        for key, snapshot in free.items():
            self._replay_reports(key, snapshot)
        for key in (ended.keys() | free.keys()) & self.planned_trials.keys():
            self.planner.give_back(key)  # also one that is done: if it was to run again for its weights, it has not
        self.update({})

    def stop(self, why: str) -> None:
        """Asks every running trial to write a checkpoint and stop; the loop ends when they have."""
        if self.stopping is None:
            self.stopping = why
            self._supervision.stopping()
            for worker in self.backend.running():
                self.backend.stop(worker)

    def _over(self) -> bool:
        if self.stopping:
            return not self.backend.running()
        return self.planner.finished() and not self.backend.running()

    def _verdict(self) -> tuple[JobState, str]:
        if self.stopping:
            return JobState(self.stopping), ""
        lines = self.planner.incomplete()
        return (JobState.incomplete, "\n".join(lines)) if lines else (JobState.done, "")

    def _refuse_second_driver(self) -> None:
        others = [driver for driver in self.store.leases.drivers() if driver.job_id == self.job_id]
        if self.searches and others:
            raise Conflict(
                f"{self.job_id} is driven by process {others[0].pid} on {others[0].host.partition('/')[0]} already; a "
                "job that searches has one driver: wait for it, or cancel it and submit again"
            )

    def _release(self) -> None:
        if not self._cluster_lost:
            self.backend.close()
        self.unregister()

    def unregister(self) -> None:
        """Gives back the lease: other drivers can claim at once what this one still holds."""
        try:
            self.store.leases.unregister(self.id)
        except OrchestratorError as error:  # the lease runs out by itself; what broke the loop is the error to show
            log.debug("could not give back the lease: %s", error)

    # Starting trials

    def _start_ready(self) -> None:
        self.no_room = False
        if self.stopping is None and not self._supervision.storage.may_start():
            return
        while self.stopping is None and len(self.backend.running()) < self.allowed:
            planned = self.planner.next(lambda trial: self._fitting(trial.resources) is not None)
            self.no_room = planned is None and self.planner.ready() > 0
            if planned is None:
                return
            if planned.key in self.pinned:
                planned = replace(planned, keep_weights=True)
            try:
                token = self.store.leases.claim(self.id, [planned.key], planned.keep_weights).get(planned.key)
            except LeaseLost:  # this process slept past its lease (a closed laptop): a beat registers it again
                self.planner.give_back(planned.key)
                self._beat(force=True)
                return
            if token is None:
                self._takeover.hold(planned.key)
                continue
            fault_point("after_claim")
            resources = self._fitting(planned.resources) or planned.resources
            parents = self.store.trials.snapshots(planned.needs) if planned.needs else {}
            self.backend.start(assignment_of(planned, token, resources, parents, self.site), resources)
            self._time_left.begin(planned)
            self.tally.started += 1

    def _fitting(self, resources: Resources) -> Resources | None:
        """The resources with the most workers for which there is room now; None if even the fewest do not fit."""
        return next((choice for choice in resources.fitting() if self.backend.has_room(choice)), None)

    # Updates of workers

    def apply_updates(self, answers: Sequence[Any]) -> None:
        """Commits the events of worker updates, acknowledges them, and passes them to searches and planner."""
        for answer in answers:
            self._supervision.heard(answer, self.planned_trials.get(answer.worker.key))
        writes = [write for answer in answers for write in self._inbox.writes(answer, self.stopping)]
        lost = self._commit(writes)
        recorded = [write for write in writes if write.attempt not in lost]
        self.tally.finished += sum(isinstance(write, Finished) for write in recorded)
        self.tally.progress += sum(isinstance(write, Finished | Reported) for write in recorded)
        self._inbox.say_deaths(recorded)
        for answer in answers:
            self._acknowledge(answer, lost)
        self._apply_writes(writes, lost)

    def _end_overdue(self) -> None:
        """Ends the trials whose time limit is over although they go on, or that did not stop when asked."""
        overdue = self._supervision.overdue(self.backend.running(), self.stopping)
        for worker, _ in overdue:
            self.backend.retire(worker)
        writes = [write for _, write in overdue]
        self._apply_writes(writes, self._commit(writes))

    def _apply_writes(self, writes: Sequence[Write], lost: set[Attempt]) -> None:
        """Passes what is recorded to searches and planner. `lost`: attempts that this driver does not hold any more."""
        for attempt in lost:
            self._takeover.hold(attempt.key)
        ended = [write for write in writes if not isinstance(write, Reported) and write.attempt not in lost]
        reported = [write for write in writes if isinstance(write, Reported) and write.attempt not in lost]
        self._time_left.heard(writes, self.planned_trials, lost)
        self._judge(reported, {write.key for write in ended})
        self._apply_ends(ended)

    def _commit(self, writes: Sequence[Write]) -> set[Attempt]:
        return commit(self.store, self.id, writes, self.name)

    def _acknowledge(self, answer: Any, lost: set[Attempt]) -> None:
        worker, update = answer.worker, answer.update
        if update is None:
            return
        if (update.key, update.token) in lost:
            self.backend.stop(worker)
            self.backend.retire(worker)
            return
        self.backend.acknowledge(update, worker)
        if is_broken(update):
            self.backend.retire(worker)
        elif self.stopping and not update.ended:
            self.backend.stop(worker)  # it may have started after the first call to stop

    def _judge(self, reports: Iterable[Reported], ended: set[str]) -> None:
        """Passes reports to the searches; stops the trials that they end, once that is recorded.

        `ended`: keys of the trials whose end came with these reports.
        """
        for report in reports:
            self._apply(self.searches.on_report(report.key, report.epoch, report.values, report.key in ended))
            self.update({})
        for worker in self.backend.running() if self.searches else ():
            attempt = Attempt(worker.key, worker.token)
            if self.searches.unwanted(attempt.key) and attempt not in self._asked_to_stop:
                self._asked_to_stop.add(attempt)
                self.backend.stop(worker)

    def _apply_ends(self, ends: Sequence[Write]) -> None:
        """Applies the recorded ends of attempts: of trials with a result, and of those that can run again, which
        another driver may have claimed since."""
        if not ends:
            return
        again = {end.key for end in ends if gives_back(end)}
        for key, snapshot in self.store.trials.snapshots(end.key for end in ends).items():
            if snapshot.state is TrialState.running:
                self._takeover.hold(key)
                continue
            self.update({key: snapshot})
            if key in again and key in self.planned_trials:
                self.planner.give_back(key)
        for line in self.planner.paused():
            if line not in self._logged_pauses:
                self._logged_pauses.add(line)
                log.info("%s", line)

    # Planning

    def update(self, snapshots: Mapping[str, TrialSnapshot], replay: bool = False) -> None:
        """Passes snapshots of trials to searches and planner, one by one, with everything that follows from each.

        `replay`: also passes the recorded reports, which another driver received.
        """
        self._unapplied.extend((key, snapshot, replay) for key, snapshot in snapshots.items())
        while self._unapplied:
            key, snapshot, replay = self._unapplied.popleft()
            if replay:
                self._replay_reports(key, snapshot)
            if snapshot.state is TrialState.pending:
                continue
            step = self.searches.on_result(key, snapshot)
            # The planner keeps a snapshot of every trial and reads this fact alone.
            facts = {name: value for name, value in snapshot.facts.items() if name == SUBMISSION}
            step.add(self.planner.update(key, replace(snapshot, facts=facts)))
            self._apply(step)

    def _replay_reports(self, key: str, snapshot: TrialSnapshot) -> None:
        """Passes the recorded reports of a trial to the searches, and how far it came to the estimate of the time."""
        self._time_left.reached(key, snapshot.epoch)
        if snapshot.epoch and self.searches.listens(key):
            for report in self.store.trials.reports(key):
                self._apply(self.searches.on_report(key, report.epoch, report.values, snapshot.state in RESULTS))

    def _apply(self, step: SearchStep) -> None:
        """Records decisions, new trials and search events, and those that the searches add because of them.

        What the store already knows of the new trials is queued for `update`.
        """
        more = self.searches.suggest()
        step.add((more.placed, more.decisions))
        step.events += more.events
        if not step:
            return
        for decision in step.decisions:
            fault_point("winner_selection")
            self.store.choices.record(self.job_id, choice_of(decision))
        self.planned_trials |= {planned.key: planned for planned in step.placed}
        placements = [placement_of(planned) for planned in step.placed]
        for key, snapshot in self.store.trials.place(self.job_id, placements, step.events).items():
            if snapshot.state is TrialState.running:
                self._takeover.hold(key)
            if snapshot.state is not TrialState.pending or snapshot.epoch:
                self._unapplied.append((key, snapshot, True))

    def seconds_left(self) -> float | None:
        """About how long the job will take (see `TimeLeft`); None while no trial has shown how fast it is."""
        return self._time_left.seconds(max(self._of_job, len(self.backend.running())))

    def slots(self) -> int:
        """How many trials the empty cluster holds, of the stage with the smallest ones."""
        return max(self.backend.slots(stage.resources or self.job.resources) for stage in self.job.stages)

    def name(self, key: str) -> str:
        """Display name of a trial of this job; the beginning of its key for any other."""
        return self.planned_trials[key].name if key in self.planned_trials else key[:12]
