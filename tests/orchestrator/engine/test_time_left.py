"""The driver's estimate of the time left: from the pace of its trials, by a clock that the test moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from in_process_backend import Machine, drive_to_end, prepared_driver
from k12_job import FINAL, PRETRAIN, RAND, SUP, done, figures, grid, job, planner_of, take
from stored_job import elsewhere

from orchestrator.engine.time_left import ESTIMATE_S, TimeLeft
from orchestrator.records.states import JobState
from orchestrator.records.writes import Failed, Finished, Released, Reported
from orchestrator.spec.job import job_id
from orchestrator.store.store import open_store
from workers.messages import Outcome, Report


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def made() -> tuple[TimeLeft, Clock, list, float]:  # type: ignore[type-arg]
    """The estimate, its clock, the two first trials of a grid of four, and what each was estimated to take."""
    clock = Clock()
    planner = planner_of(
        grid(dataset=["digits"], init=[RAND], lr=[1e-4, 2e-4, 3e-4, 4e-4], layer_decay=[0.85])
    )  # fmt: skip
    return TimeLeft(planner, clock), clock, [planner, *take(planner, 2)], planner.placed[0].seconds


def reported(trial, epoch: int, seconds: float = 1.0) -> Reported:  # type: ignore[no-untyped-def]
    return Reported(trial.key, 1, epoch, epoch, {}, seconds)


def test_reports_of_the_first_trials_give_the_pace() -> None:
    """Four epochs of a trial take as long as they took, whatever the estimate said; the start of a process is not
    counted off every trial to come."""
    time, clock, (planner, one, two), _ = made()
    trials = {each.key: each for each in planner.placed}
    time.begin(one)
    time.begin(two)
    assert time.seconds(2) is None, "nothing has reported"
    clock.now += 60  # Ray starts, torch is imported, and then an epoch of 10 s
    time.heard([reported(one, 1, 10), reported(two, 1, 10)], trials)
    assert time.seconds(2) == pytest.approx(30 + 40), "three rounds of two trials, then two whole ones, 10 s a round"
    clock.now += ESTIMATE_S / 2
    assert time.seconds(2) == pytest.approx(70 - ESTIMATE_S / 2), "it counts down between two estimates"


def test_later_trials_count_with_their_start() -> None:
    time, clock, (planner, one, two), estimated = made()
    trials = {each.key: each for each in planner.placed}
    time.begin(one)
    clock.now += 90
    time.heard([*(reported(one, n, 10) for n in (1, 2, 3, 4)), Finished(one.key, 1, {"top1": 0.5})], trials)
    planner.update(one.key, done(one))
    assert time.pace("grid") == pytest.approx(40 / estimated)
    assert time.pace("no such stage") == pytest.approx(40 / estimated), "as all stages"
    assert time.start_seconds(1) == 0, "the first one on a slot started its process too"
    assert time.seconds(1) == pytest.approx(3 * 40)
    time.begin(two)
    clock.now += 45
    time.heard([*(reported(two, n, 10) for n in (1, 2, 3, 4)), Finished(two.key, 1, {"top1": 0.5})], trials)
    planner.update(two.key, done(two))
    assert time.start_seconds(1) == pytest.approx(5)
    assert time.seconds(1) == pytest.approx(2 * 45)
    (three,) = take(planner, 1)
    time.begin(three)
    clock.now += ESTIMATE_S
    assert time.seconds(1) == pytest.approx(45 - ESTIMATE_S + 45)


def test_a_resumed_trial_counts_what_is_new() -> None:
    time, clock, (planner, one, _), estimated = made()
    trials = {each.key: each for each in planner.placed}
    time.reached(one.key, 2)
    time.begin(one)  # resumed after two of four epochs
    clock.now += 20
    time.heard([reported(one, 1, 99), reported(one, 2, 99)], trials)  # sent again after a resume: no news
    assert time.pace("grid") is None
    time.heard([reported(one, 3, 10)], trials)
    assert time.pace("grid") == pytest.approx(10 / (estimated / 4))


def test_a_trial_that_was_taken_over_counts_from_its_first_report_here() -> None:
    time, clock, (planner, one, _), estimated = made()
    trials = {each.key: each for each in planner.placed}
    time.heard([reported(one, 2, 99)], trials)
    assert time.seconds(2) is None, "no round was seen from its beginning to its end"
    clock.now += 7
    time.heard([reported(one, 3, 7)], trials)
    assert time.pace("grid") == pytest.approx(7 / (estimated / 4))
    time.heard([Failed(one.key, 1, "code", "boom"), reported(one, 4)], {})
    assert time.pace("grid") == pytest.approx(7 / (estimated / 4)), "trials of other jobs do not count"


def test_a_trial_that_begins_anew_goes_on_after_its_last_report() -> None:
    time, clock, (planner, one, _), estimated = made()
    trials = {each.key: each for each in planner.placed}
    time.begin(one)
    clock.now += 30
    died = Failed(one.key, 1, "node_lost", "", retry=True)
    time.heard([reported(one, 1, 10), reported(one, 2, 10), reported(one, 3, 10), died], trials)
    time.begin(one)
    clock.now += 10
    again = Reported(one.key, 2, 4, 4, {}, 10.0)
    time.heard([again, Finished(one.key, 2, {"top1": 0.5})], trials)
    assert time.pace("grid") == pytest.approx(40 / estimated)


def test_an_attempt_that_another_driver_has_taken_over_does_not_count() -> None:
    time, clock, (planner, one, two), estimated = made()
    trials = {each.key: each for each in planner.placed}
    time.begin(one)
    time.begin(two)
    clock.now += 10
    report = reported(one, 1, 99)
    time.heard([report, reported(two, 1, 10)], trials, {report.attempt})
    assert time.pace("grid") == pytest.approx(10 / (estimated / 4))


def test_each_stage_has_its_own_pace() -> None:
    clock = Clock()
    planner = planner_of(PRETRAIN, grid(dataset=["digits"], init=[SUP], lr=[1e-4], layer_decay=[0.85]),
                         FINAL | {"from": "grid"})  # fmt: skip
    time = TimeLeft(planner, clock)
    for seconds in (100, 3):
        (trial,) = take(planner, 1)
        time.begin(trial)
        clock.now += seconds
        time.heard([reported(trial, 4, seconds), Finished(trial.key, 1, {"top1": 0.5})], {trial.key: trial})
        planner.update(trial.key, done(trial))
    pretrain, fine = time.pace("pretrain"), time.pace("grid")
    assert pretrain is not None
    assert fine is not None
    assert pretrain > 5 * fine
    assert fine < (time.pace("final") or 0.0) < pretrain


def test_rounds_of_an_earlier_driver_do_not_count(tmp_path: Path) -> None:
    """It reported two rounds; this driver sees the third, and does not ask the store how many there were."""
    one = job(grid(dataset=["digits"], init=[RAND], lr=[6e-4], layer_decay=[0.85]))
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    planned = prepared_driver(store, one, tmp_path).planner.placed[0]
    store.leases.register(elsewhere("earlier", job_id(one)))
    store.leases.claim("earlier", [planned.key])
    reports = [Reported(planned.key, 1, epoch, epoch, {}, 99.0) for epoch in (1, 2)]
    store.trials.commit("earlier", [*reports, Released(planned.key, 1, "interrupted")])

    def goes_on(assignment: Any, emit: Any, stop: Any) -> Outcome:
        emit(Report(3, 3, {"train_loss": 1.0}, 7.0))
        return Outcome(figures(assignment.trial), {}, None)

    state, driver = drive_to_end(store, one, Machine(execute=goes_on), tmp_path)
    assert state is JobState.done
    assert driver._time_left.pace("grid") == pytest.approx(7 / (planned.seconds / planned.spec.rounds))
    store.close()
