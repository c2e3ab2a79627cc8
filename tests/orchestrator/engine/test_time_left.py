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


def reported(trial, epoch: int) -> Reported:  # type: ignore[no-untyped-def]
    return Reported(trial.key, 1, epoch, epoch, {}, 1.0)


def test_reports_of_the_first_trials_give_the_pace() -> None:
    """Four epochs of a trial take as long as they took, whatever the estimate said."""
    time, clock, (planner, one, two), _ = made()
    trials = {each.key: each for each in planner.placed}
    time.begin(one, 0)
    time.begin(two, 0)
    assert time.seconds(2) is None, "nothing has reported"
    clock.now += 10
    time.heard([reported(one, 1), reported(two, 1)], trials)
    assert time.seconds(2) == pytest.approx(30 + 40), "three rounds of two trials, then two whole ones, 10 s a round"
    clock.now += ESTIMATE_S / 2
    assert time.seconds(2) == pytest.approx(70 - ESTIMATE_S / 2), "it counts down between two estimates"


def test_a_finished_trial_counts_with_its_start() -> None:
    time, clock, (planner, one, two), estimated = made()
    trials = {each.key: each for each in planner.placed}
    time.begin(one, 0)
    clock.now += 50
    time.heard([reported(one, 4), Finished(one.key, 1, {"top1": 0.5})], trials)
    planner.update(one.key, done(one))
    assert time.pace("grid") == pytest.approx(50 / estimated)
    assert time.pace("no such stage") == pytest.approx(50 / estimated), "as all stages"
    assert time.seconds(1) == pytest.approx(150)
    time.begin(two, 2)  # resumed after two of four epochs
    clock.now += 100
    time.heard([reported(two, 1), reported(two, 2)], trials)  # sent again after a resume: no news
    assert time.pace("grid") == pytest.approx(50 / estimated)
    time.heard([reported(two, 4), Finished(two.key, 1, {"top1": 0.5})], trials)
    assert time.pace("grid") == pytest.approx(150 / (1.5 * estimated))


def test_a_trial_that_was_taken_over_counts_from_its_first_report_here() -> None:
    time, clock, (planner, one, _), estimated = made()
    trials = {each.key: each for each in planner.placed}
    time.heard([reported(one, 2)], trials)
    assert time.seconds(2) is None, "no round was seen from its beginning to its end"
    clock.now += 7
    time.heard([reported(one, 3)], trials)
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
        time.heard([Finished(trial.key, 1, {"top1": 0.5})], {trial.key: trial})
        planner.update(trial.key, done(trial))
    pretrain, fine = time.pace("pretrain"), time.pace("grid")
    assert pretrain is not None
    assert fine is not None
    assert pretrain > 5 * fine
    assert fine < (time.pace("final") or 0.0) < pretrain
