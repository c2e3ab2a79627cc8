"""The time that a plan still takes, played through on slots, against schedules worked out by hand."""

from __future__ import annotations

import pytest
from k12_job import DIVERGED, FINAL, PRETRAIN, RAND, REFINE, SUP, done, failed, grid, planner_of, run, take

from orchestrator.plan.planner import Planner


def left(planner: Planner, slots: int = 2, pace: float = 1.0, **begun: float) -> float:
    return planner.seconds_left(slots, lambda stage: pace, begun)


def plan(*lrs: float) -> Planner:
    """A grid of one group, then its winner once more."""
    return planner_of(grid(dataset=["digits"], init=[RAND], lr=list(lrs), layer_decay=[0.85]), FINAL | {"from": "grid"})


def test_a_group_waits_for_the_whole_group_before_it() -> None:
    planner = plan(1e-4, 2e-4, 4e-4)
    each = planner.placed[0].seconds
    final = left(planner, slots=1) - 3 * each
    assert final > 0
    assert left(planner, slots=2) == pytest.approx(2 * each + final), "the second slot is empty in the second round"
    assert left(planner, slots=3) == pytest.approx(each + final)
    assert left(planner, slots=300) == left(planner, slots=3), "the longest chain is the bound"
    assert left(planner, slots=2, pace=3.0) == pytest.approx(3 * (2 * each + final))


def test_what_runs_counts_with_what_is_left_of_it() -> None:
    planner = plan(1e-4, 2e-4, 4e-4)
    each, whole = planner.placed[0].seconds, left(planner)
    first, second = take(planner, 2)
    assert left(planner) == pytest.approx(whole), "nothing is known of them yet"
    assert left(planner, **{first.key: 0.0, second.key: 0.0}) == pytest.approx(whole - each)
    planner.update(first.key, done(first))
    assert left(planner, **{second.key: 0.25 * each}) == pytest.approx(whole - each)
    run(planner, slots=1)
    planner.update(second.key, done(second))
    for trial in take(planner, planner.ready()):
        planner.update(trial.key, done(trial))
    assert left(planner) == 0


def test_weights_come_before_what_starts_from_them() -> None:
    planner = planner_of(PRETRAIN, grid(dataset=["digits"], init=[SUP], lr=[1e-4], layer_decay=[0.85]))
    pretrain = planner.placed[0].seconds
    assert left(planner, slots=8) > pretrain, "both stages, one after the other, however many slots there are"


def test_failed_trials_and_what_waits_for_them_do_not_count() -> None:
    planner = planner_of(grid(dataset=["digits", "faces"], init=[RAND], lr=[1e-4], layer_decay=[0.85]), REFINE)
    one, other = take(planner, 2)
    whole = left(planner, **{one.key: 0.0, other.key: 0.0})
    planner.update(one.key, failed())
    planner.update(other.key, DIVERGED)
    assert whole > 0
    assert left(planner) == 0, "neither group has a winner"
