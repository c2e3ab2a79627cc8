"""The control loop of a job: starts what the plan says is next, and records what its trials report."""

from __future__ import annotations

import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.engine.backend import Backend, RunSite, is_broken
from orchestrator.engine.inbox import Inbox
from orchestrator.engine.membership import Membership
from orchestrator.engine.takeover import Takeover
from orchestrator.errors import Conflict, LeaseLost, OrchestratorError
from orchestrator.plan.planner import Planner
from orchestrator.plan.state import RESULTS
from orchestrator.plan.trials import PlannedTrial, metric_rows
from orchestrator.records.rows import ChoiceRow, Placement
from orchestrator.records.states import JobState, TrialSnapshot, TrialState
from orchestrator.records.trial_files import trial_folder
from orchestrator.records.writes import Finished, Reported, Write
from orchestrator.search.searches import Searches, SearchStep
from orchestrator.spec.job import JobSpec, Resources
from orchestrator.store.store import Store
from workers.fault_injection import fault_point
from workers.messages import Assignment, Weights


@dataclass
class Tally:
    """What a driver did, for its last lines and for tests."""

    started: int = 0
    finished: int = 0
    adopted: int = 0
    found: int = 0
    """Trials that were done already when the driver began."""
    estimated_s: float = 0.0
    took_s: float = 0.0
    begun: float = field(default_factory=time.monotonic)


class Driver:
    """One driver of one job. `run` returns when the job is done, Incomplete, stopped or cancelled.

    The store is the truth: every event is committed before the worker that said it is told to forget it, so this
    process may die anywhere and the next one goes on. Store and cluster errors propagate: trials go on meanwhile.
    """

    def __init__(
        self,
        store: Store,
        job: JobSpec,
        job_id: str,
        planner: Planner,
        site: RunSite,
        watch: Callable[[Driver], None] = lambda drive: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.store, self.job, self.job_id, self.planner, self.site = store, job, job_id, planner, site
        self.id = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.tally = Tally()
        self.stopping: str | None = None
        """Why running trials are asked to leave: "interrupted" or "cancelled"."""
        self.allowed = 0
        self.searches = Searches(job, planner, lambda: store.search_log.events(job_id), say)
        self._watch, self._say = watch, say
        self._news: deque[tuple[str, TrialSnapshot, bool]] = deque()
        self._asked_to_leave: set[tuple[str, int]] = set()
        self.planned_trials: dict[str, PlannedTrial] = {}
        self.no_room = False
        self.pinned: set[str] = set()
        self._inbox = Inbox(store, self.searches, site.storage, self.name, say)
        self._takeover = Takeover(store, site.cluster, self.id)
        self._membership = Membership(store, self.id, job_id, site.cluster, job.priority)
        self._said_paused: set[str] = set()

    # The loop

    def prepare(self) -> bool:
        """Records the job's first trials and learns what is known of them; whether anything is left to run.

        Raises Conflict when the job searches and another process drives it: two would decide for one search.
        """
        self._refuse_second_driver()
        self._apply(SearchStep(list(self.planner.placed), list(self.planner.decisions)))
        self.update(self.store.trials.snapshots(self.planner.outside()))
        self.tally.found = sum(state.state.ended for state in self.store.trials.snapshots(self.planned_trials).values())
        return not self.planner.finished()

    def conclude(self) -> JobState:
        """Records how the job stands, and says it."""
        self.store.search_log.mark_stopped(self.searches.left())
        state, message = self._verdict()
        self.store.jobs.set_state(self.job_id, state, message)
        return state

    def run(self, backend: Backend) -> JobState:
        """Drives the prepared job to its end. Raises BackendUnreachable and the like with the store intact."""
        self.backend = backend
        self._membership.register(self.slots())
        self.store.jobs.set_state(self.job_id, JobState.running)
        try:
            self._take_over(tidy=True)
            self._beat(force=True)
            while not self._over():
                self._start_ready()
                self.apply_updates(self.backend.poll(0.5))
                self._beat()
                self._watch(self)
            return self.conclude()
        finally:
            self._release()

    def _beat(self, force: bool = False) -> None:
        """Extends the lease, takes this driver's share of the slots, and looks after what other drivers hold."""
        if not (force or self._membership.due):
            return
        running = len(self.backend.running())
        demand = max(1, running + self.planner.ready())  # a trial may become ready before the next beat
        beat = self._membership.beat(demand, running, self.slots())
        self.allowed, self.pinned = beat.allowed, set(beat.pins)
        if beat.drivers_changed or self.no_room:
            self._take_over(tidy=True)  # a driver left or died, or an actor did not answer at the last look
        if not beat.alone:
            self.backend.close()  # idle actors hold resources that another job could use
        self._review_held_elsewhere()
        self.store.search_log.mark_stopped(self.searches.left())
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
            self.update({key: snapshot}, unheard=True)
        for key, snapshot in free.items():
            self.hear_recorded(key, snapshot)
            self.planner.give_back(key)
        self.update({})

    def stop(self, why: str) -> None:
        """Asks every running trial to write a checkpoint and leave; the loop ends when they have."""
        if self.stopping is None:
            self.stopping = why
            for worker in self.backend.running():
                self.backend.stop(worker)

    def _over(self) -> bool:
        if self.stopping:
            return not self.backend.running()
        return self.planner.finished() and not self.backend.running()

    def _verdict(self) -> tuple[JobState, str]:
        if self.stopping:
            return (JobState.cancelled if self.stopping == "cancelled" else JobState.interrupted), ""
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
        self.backend.close()
        try:
            self.store.leases.unregister(self.id)
        except OrchestratorError as error:  # the lease ends by itself; what broke the loop is the error to show
            self._say(f"could not give back the lease: {error}")

    # Handing out

    def _start_ready(self) -> None:
        self.no_room = False
        while self.stopping is None and len(self.backend.running()) < self.allowed:
            planned = self.planner.next(lambda trial: self._room(trial.resources) is not None)
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
            resources = self._room(planned.resources) or planned.resources
            self.backend.start(self._assignment(planned, token, resources), resources)
            self.tally.started += 1

    def _room(self, resources: Resources) -> Resources | None:
        """What a trial of these resources could start with now."""
        return next((some for some in resources.fitting() if self.backend.has_room(some)), None)

    def _assignment(self, planned: PlannedTrial, token: int, resources: Resources) -> Assignment:
        parents = self.store.trials.snapshots(planned.needs) if planned.needs else {}
        hours = resources.time_limit_hours
        return Assignment(
            trial=planned.spec,
            name=f"{planned.name} {planned.key[:8]}",
            token=token,
            folder=str(trial_folder(self.site.storage, planned.key)),
            data_root=str(self.site.data_root),
            parents={key: Weights(*known.weights) for key, known in parents.items() if known.weights},
            cpus=resources.cpus,
            gpus=resources.gpus,
            workers=resources.workers,
            keep_weights=planned.keep_weights,
            time_limit_s=hours * 3600 if hours else None,
        )

    # Hearing

    def apply_updates(self, answers: Sequence[Any]) -> None:
        """Commits what workers said, then lets them forget it, then tells the planner."""
        writes = [write for answer in answers for write in self._inbox.writes(answer, self.stopping)]
        self.tally.finished += sum(isinstance(write, Finished) for write in writes)
        lost = self._commit(writes)
        for answer in answers:
            self._acknowledge(answer, lost)
        for key in lost:
            self._takeover.hold(key)
        ended = [write.key for write in writes if not isinstance(write, Reported) and write.key not in lost]
        reported = [write for write in writes if isinstance(write, Reported) and write.key not in lost]
        self._hear(reported, set(ended))
        self._tell(list(dict.fromkeys(ended)))

    def _commit(self, writes: list[Write]) -> set[str]:
        """One transaction; keys whose lease another driver has taken are left out and returned."""
        if not writes:
            return set()
        ends = any(not isinstance(write, Reported) for write in writes)
        if ends:
            fault_point("before_result_commit")
        lost: set[str] = set()
        try:
            self.store.trials.commit(self.id, writes)
        except LeaseLost:
            for key in {write.key for write in writes}:
                try:
                    self.store.trials.commit(self.id, [write for write in writes if write.key == key])
                except LeaseLost as error:
                    self._say(str(error))
                    lost.add(key)
        fault_point("after_result_commit" if ends else "after_report")
        return lost

    def _acknowledge(self, answer: Any, lost: set[str]) -> None:
        worker, update = answer.worker, answer.update
        if update is None:
            return
        if update.key in lost:
            self.backend.stop(worker)
            self.backend.retire(worker)
            return
        self.backend.acknowledge(update, worker)
        if is_broken(update):
            self.backend.retire(worker)
        elif self.stopping and not update.ended:
            self.backend.stop(worker)  # it may have begun after the first call to stop

    # Planning

    def _hear(self, reports: Iterable[Reported], ended: set[str]) -> None:
        """Lets the searches judge reports; the trials that they end are asked to leave once that is recorded."""
        for report in reports:
            self._apply(self.searches.on_report(report.key, report.epoch, report.values, report.key in ended))
            self.update({})
        for worker in self.backend.running() if self.searches else ():
            if self.searches.unwanted(worker.key) and (worker.key, worker.token) not in self._asked_to_leave:
                self._asked_to_leave.add((worker.key, worker.token))
                self.backend.stop(worker)

    def _tell(self, keys: Sequence[str]) -> None:
        if not keys:
            return
        known = self.store.trials.snapshots(keys)
        for key in keys:
            planned = self.planned_trials.get(key)
            if known[key].state is TrialState.pending:
                if planned is not None:
                    self.planner.give_back(key)
                continue
            if planned is not None and known[key].train_seconds:
                self.tally.estimated_s += planned.seconds
                self.tally.took_s += known[key].train_seconds or 0.0
            self.update({key: known[key]})
        for line in self.planner.paused():
            if line not in self._said_paused:
                self._said_paused.add(line)
                self._say(line)

    def update(self, known: Mapping[str, TrialSnapshot], unheard: bool = False) -> None:
        """Tells searches and planner what is known of trials, one after the other, and follows what comes of each.
        `unheard`: their reports did not come to this driver."""
        self._news.extend((key, state, unheard) for key, state in known.items())
        while self._news:
            key, state, unheard = self._news.popleft()
            if unheard:
                self.hear_recorded(key, state)
            if state.state is TrialState.pending:
                continue
            step = self.searches.on_result(key, state)
            step.add(self.planner.update(key, replace(state, facts={})))  # kept for every trial; not looked at
            self._apply(step)

    def hear_recorded(self, key: str, known: TrialSnapshot) -> None:
        """Lets the searches judge the reports that are recorded of a trial."""
        if known.epoch and self.searches.listens(key):
            for report in self.store.trials.reports(key):
                self._apply(self.searches.on_report(key, report.epoch, report.values, known.state in RESULTS))

    def _apply(self, step: SearchStep) -> None:
        """Records what was decided and placed, and what the searches ask for by it; what the store knows of the new
        trials already is news for `update`."""
        more = self.searches.suggest()
        step.add((more.placed, more.decisions))
        step.events += more.events
        if not step:
            return
        for decision in step.decisions:
            fault_point("winner_selection")
            self.store.choices.record(
                self.job_id,
                ChoiceRow(
                    decision.stage, decision.group, decision.key, decision.value, decision.metric,
                    list(decision.edges), dict(decision.rule), decision.candidates, list(decision.sources),
                ),
            )  # fmt: skip
        self.planned_trials |= {planned.key: planned for planned in step.placed}
        known = self.store.trials.place(self.job_id, [_placement(planned) for planned in step.placed], step.events)
        for key, state in known.items():
            if state.state is TrialState.running:
                self._takeover.hold(key)
            if state.state is not TrialState.pending or state.epoch:
                self._news.append((key, state, True))

    def slots(self) -> int:
        """Trials that the empty cluster holds, of the stage with the smallest ones."""
        return max(self.backend.slots(stage.resources or self.job.resources) for stage in self.job.stages)

    def name(self, key: str) -> str:
        return self.planned_trials[key].name if key in self.planned_trials else key[:12]


def _placement(planned: PlannedTrial) -> Placement:
    task = planned.spec.task
    return Placement(
        stage=planned.stage,
        group=planned.group,
        group_values=planned.group_values,
        key=planned.key,
        spec=planned.spec.model_dump(mode="json"),
        settings=planned.settings,
        name=planned.name,
        position=planned.position,
        metric=task.metric,
        mode=task.mode,
        seed=planned.spec.seed,
        epochs=planned.spec.last_round,
        metrics=metric_rows(planned.spec),
        split=task.split,
    )
