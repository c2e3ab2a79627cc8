"""Whatever happens to drivers, trials, leases and files, in any order: the final table is that of the undisturbed run.

Hypothesis chooses the order of events: jobs are submitted, by several drivers at once; drivers go on for a few steps,
stop between any two writes, are killed, sleep past their leases, lose their database; trials report, end, fail, lose
their process; users cancel, interrupt, retry, pin, and remove files. Planner, driver, store, collector and actor are
the real ones; Ray, training and time are not. After each event `store_invariants.check` holds, and at the end, when
nobody disturbs any more, both jobs come to the table of the run that nobody has disturbed.

The same examples every time; FUZZ_EXAMPLES=1000 tries so many new ones, on each database.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from fuzzing import examples
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from stepped_processes import without_sync
from stepped_service import JOBS, Service, patched
from store_invariants import Group, Records, check, table

from orchestrator.errors import BackendUnreachable, LeaseLost
from orchestrator.records.states import JobState
from orchestrator.records.writes import Failed, Finished, Released, Reported
from orchestrator.spec.job import job_id
from orchestrator.store.database import Database, connect

WHICH = st.integers(0, 5)
"""Which of the drivers, trials, .. that there are."""
ENDS = st.sampled_from(["code", "data", "out_of_memory", "timeout", "node_lost"])


class AnyOrder(RuleBasedStateMachine):
    """Events in any order, over the service of tests/support/stepped_service.py."""

    database: ClassVar[Database]
    undisturbed: ClassVar[dict[str, Any]]
    sizes: ClassVar[dict[Group, int]]

    def __init__(self) -> None:
        super().__init__()
        self.service = Service(self.database)
        self.seen = Records()
        self.checked = True

    # Drivers

    @initialize(done=st.sampled_from([None, None, 0, 0, 1]), count=st.integers(0, 60))
    def begin(self, done: int | None, count: int) -> None:
        """One job may have ended already; another one has begun."""
        if done is not None:
            self.service.run_to_end(JOBS[done])
        self.service.submit(JOBS[1 if done == 0 else 0]).step(count)

    @rule(job=st.sampled_from([0, 0, 1]))
    def submit(self, job: int) -> None:
        if len(self.service.live) < 3:
            self.service.submit(JOBS[job])

    @rule(job=st.sampled_from([0, 0, 1]))
    def retry(self, job: int) -> None:
        if len(self.service.live) < 3 and self.service.recorded(JOBS[job]):
            self.service.store.jobs.retry(job_id(JOBS[job]))
            self.service.submit(JOBS[job])

    @precondition(lambda self: self.service.live)
    @rule(which=WHICH, count=st.integers(1, 25))
    def one_goes_on(self, which: int, count: int) -> None:
        self.service.pick(which).step(count)

    @precondition(lambda self: self.service.live)
    @rule(count=st.integers(5, 40), seconds=st.sampled_from([0, 4]))
    def all_go_on(self, count: int, seconds: int) -> None:
        self.service.clock.seconds += seconds
        for process in self.service.live:
            process.step(count)

    @precondition(lambda self: self.service.live)
    @rule(which=WHICH, news=st.booleans(), count=st.integers(0, 12), noticed=st.booleans())
    def kill(self, which: int, news: bool, count: int, noticed: bool) -> None:
        """At any of the next steps; `news`: there are reports to take."""
        for node in self.service.running if news else ():
            node.advance("report")
        process = self.service.pick(which)
        process.step(count)
        self.service.kill(process, noticed)

    @precondition(lambda self: self.service.live)
    @rule(which=WHICH)
    def lose_the_database(self, which: int) -> None:
        self.service.pick(which).fail(BackendUnreachable("made up by the test"))

    @precondition(lambda self: self.service.live)
    @rule(rounds=st.integers(1, 4))
    def nobody_disturbs_for_a_while(self, rounds: int) -> None:
        for _ in range(rounds):
            self.service.round(self.service.live)

    @precondition(lambda self: len(self.service.live) > 1)
    @rule(which=WHICH, rounds=st.integers(1, 3))
    def one_sleeps_past_its_lease(self, which: int, rounds: int) -> None:
        asleep = self.service.pick(which)
        self.service.clock.seconds += 31
        for _ in range(rounds):
            self.service.round([process for process in self.service.live if process is not asleep])

    @precondition(lambda self: self.service.live)
    @rule(seconds=st.sampled_from([4, 31]))
    def time_passes(self, seconds: int) -> None:
        self.service.clock.seconds += seconds

    # Trials

    @precondition(lambda self: self.service.running)
    @rule(which=WHICH, fate=st.sampled_from(["report", "finish", "finish"]))
    def a_trial_goes_on(self, which: int, fate: str) -> None:
        nodes = self.service.running
        nodes[which % len(nodes)].advance(fate)

    @precondition(lambda self: self.service.running)
    @rule(which=WHICH, error=ENDS)
    def a_trial_fails(self, which: int, error: str) -> None:
        nodes = self.service.running
        nodes[which % len(nodes)].advance(error)

    @precondition(lambda self: self.service.cluster.nodes)
    @rule(which=WHICH)
    def an_actor_dies(self, which: int) -> None:
        nodes = self.service.cluster.nodes
        self.service.cluster.remove(nodes[which % len(nodes)])

    @precondition(lambda self: self.service.cluster.nodes)
    @rule(which=WHICH)
    def an_actor_is_silent_or_answers_again(self, which: int) -> None:
        node = self.service.cluster.nodes[which % len(self.service.cluster.nodes)]
        node.silent = not node.silent

    # Users

    @rule(job=st.sampled_from([0, 1]))
    def cancel(self, job: int) -> None:
        if self.service.recorded(JOBS[job]):
            self.service.cancel(JOBS[job])

    @precondition(lambda self: self.service.drivers)
    @rule(which=WHICH)
    def interrupt(self, which: int) -> None:
        drivers = self.service.drivers
        drivers[which % len(drivers)].stop("interrupted")

    @rule(checkpoints=st.booleans(), count=st.sampled_from([3, 100, 100]))
    def remove_files(self, checkpoints: bool, count: int) -> None:
        """To the end, or other events come between."""
        self.service.remove_files(checkpoints).step(count)

    @precondition(lambda self: self.seen.trials)
    @rule(which=WHICH, keep=st.booleans())
    def pin_or_unpin(self, which: int, keep: bool) -> None:
        key = sorted(self.seen.trials)[which % len(self.seen.trials)]
        if keep:
            self.service.store.weights.pin(key)
        else:
            self.service.store.weights.unpin(key)

    @precondition(lambda self: self.seen.attempts)
    @rule(which=WHICH)
    def write_with_a_stale_token(self, which: int) -> None:
        """Of an attempt that was given up, by any driver; or of the present one, by a driver that does not hold it."""
        now = Records.of(self.service.store)
        stale = {
            (key, each.token, driver)
            for key, row in now.trials.items()
            for each in now.attempts[key]
            for driver in (each.driver_id, row.driver_id, "another driver")
            if each.token < row.token or (row.state == "running" and driver != row.driver_id)
        }
        for key, token, driver in sorted(stale)[which : which + 6]:
            for write in (
                Reported(key, token, 1, 1, {"train_loss": -1.0}, 1.0),
                Finished(key, token, {"top1": -1.0, "loss": -1.0}, {}, ("/nowhere", "0" * 64)),
                Failed(key, token, "code", "stale"),
                Failed(key, token, "node_lost", "stale", retry=True),
                Released(key, token, "stale"),
            ):
                with pytest.raises(LeaseLost, match=key[:12]):
                    self.service.store.trials.commit(driver, [write])
        assert Records.of(self.service.store) == now

    # What holds

    @invariant()
    def records_are_right(self) -> None:
        self.checked = False
        self.service.raise_errors()
        now = Records.of(self.service.store)
        check(now, self.seen, self.sizes, self.service.folder / "storage")
        self.service.check_actors(now)
        self.seen = now
        self.checked = True

    def teardown(self) -> None:
        try:
            if self.checked:
                self.come_to_the_same_table()
        finally:
            self.service.close()

    def come_to_the_same_table(self) -> None:
        self.service.settle()
        self.records_are_right()
        for job in JOBS:
            # A trial may have failed before the first retry, and its driver may have died before it recorded that.
            assert JobState.done in (self.service.run_to_end(job) for _ in range(3)), self.service.message(job)
            self.records_are_right()
            assert table(self.service.store, job_id(job)) == self.undisturbed[job.name]
        starts = self.service.starts.total()
        assert [self.service.run_to_end(job) for job in JOBS] == [JobState.done, JobState.done]
        assert self.service.starts.total() == starts, "the same again starts nothing"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = connect(database_url)
    without_sync(opened)
    yield opened
    opened.close()


@pytest.mark.timeout(0 if "FUZZ_EXAMPLES" in os.environ else 900)  # to make a failure small takes minutes
def test_any_order_of_events_leads_to_the_same_table(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with patched(monkeypatch):
        AnyOrder.database = database
        AnyOrder.undisturbed, AnyOrder.sizes = undisturbed(database)
        run_state_machine_as_test(
            AnyOrder,
            settings=settings(
                max_examples=examples(25),
                stateful_step_count=50,
                phases=[Phase.generate, Phase.shrink],
                derandomize="FUZZ_EXAMPLES" not in os.environ,
                database=None,
                deadline=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )


def undisturbed(database: Database) -> tuple[dict[str, Any], dict[Group, int]]:
    """The tables of both jobs when nobody disturbs them, and the number of trials in each group."""
    service = Service(database)
    assert [service.run_to_end(job) for job in JOBS] == [JobState.done, JobState.done]
    assert set(service.starts.values()) == {1}
    groups = Records.of(service.store).groups
    tables_of_jobs = {job.name: table(service.store, job_id(job)) for job in JOBS}
    service.close()
    return tables_of_jobs, {place: len(keys) for place, keys in groups.items()}
