"""The driver's estimate of the time left: from the pace of its trials, by a clock that the test moves."""

from __future__ import annotations

import pytest
from k12_job import FINAL, PRETRAIN, RAND, SUP, done, grid, planner_of, take

from orchestrator.engine.time_left import ESTIMATE_S, TimeLeft
from orchestrator.records.writes import Failed, Finished, Reported


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
    time.begin(one, 0)
    time.begin(two, 0)
    assert time.seconds(2) is None, "nothing has reported"
    clock.now += 60  # Ray starts, torch is imported, and then an epoch of 10 s
    time.heard([reported(one, 1, 10), reported(two, 1, 10)], trials)
    assert time.seconds(2) == pytest.approx(30 + 40), "three rounds of two trials, then two whole ones, 10 s a round"
    clock.now += ESTIMATE_S / 2
    assert time.seconds(2) == pytest.approx(70 - ESTIMATE_S / 2), "it counts down between two estimates"


def test_later_trials_count_with_their_start() -> None:
    time, clock, (planner, one, two), estimated = made()
    trials = {each.key: each for each in planner.placed}
    time.begin(one, 0)
    clock.now += 90
    time.heard([*(reported(one, n, 10) for n in (1, 2, 3, 4)), Finished(one.key, 1, {"top1": 0.5})], trials)
    planner.update(one.key, done(one))
    assert time.pace("grid") == pytest.approx(40 / estimated)
    assert time.pace("no such stage") == pytest.approx(40 / estimated), "as all stages"
    assert time.start_seconds(1) == 0, "the first one on a slot started its process too"
    assert time.seconds(1) == pytest.approx(3 * 40)
    time.begin(two, 0)
    clock.now += 45
    time.heard([*(reported(two, n, 10) for n in (1, 2, 3, 4)), Finished(two.key, 1, {"top1": 0.5})], trials)
    planner.update(two.key, done(two))
    assert time.start_seconds(1) == pytest.approx(5)
    assert time.seconds(1) == pytest.approx(2 * 45)
    (three,) = take(planner, 1)
    time.begin(three, 0)
    clock.now += ESTIMATE_S
    assert time.seconds(1) == pytest.approx(45 - ESTIMATE_S + 45)


def test_a_resumed_trial_counts_what_is_new() -> None:
    time, clock, (planner, one, _), estimated = made()
    trials = {each.key: each for each in planner.placed}
    time.begin(one, 2)  # resumed after two of four epochs
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


def test_each_stage_has_its_own_pace() -> None:
    clock = Clock()
    planner = planner_of(PRETRAIN, grid(dataset=["digits"], init=[SUP], lr=[1e-4], layer_decay=[0.85]),
                         FINAL | {"from": "grid"})  # fmt: skip
    time = TimeLeft(planner, clock)
    for seconds in (100, 3):
        (trial,) = take(planner, 1)
        time.begin(trial, 0)
        clock.now += seconds
        time.heard([reported(trial, 4, seconds), Finished(trial.key, 1, {"top1": 0.5})], {trial.key: trial})
        planner.update(trial.key, done(trial))
    pretrain, fine = time.pace("pretrain"), time.pace("grid")
    assert pretrain is not None
    assert fine is not None
    assert pretrain > 5 * fine
    assert fine < (time.pace("final") or 0.0) < pretrain
