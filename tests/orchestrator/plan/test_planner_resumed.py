"""A planner that is told what an earlier one knew."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from k12_job import (
    BASE,
    CANCELLED,
    DIVERGED,
    FINAL,
    PENDING,
    RAND,
    REFINE,
    done,
    failed,
    figures,
    grid,
    job,
    planner_of,
    run,
    take,
    tell,
)

from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.states import TrialSnapshot, TrialState


def say_something(each: PlannedTrial) -> TrialSnapshot:
    """Done, diverged, failed or not a number, by the trial's key: always the same for the same trial."""
    fate = int(each.key[:4], 16) % 40
    if each.stage == "pretrain" or fate > 3:
        return done(each)
    return (DIVERGED, failed(), CANCELLED, TrialSnapshot(TrialState.done, figures={each.spec.task.metric: math.nan}))[
        fate
    ]


def standing(planner: Planner) -> tuple[Any, ...]:
    """Everything a planner says, in an order of its own."""
    decisions = {(each.stage, each.group, each.key, each.value, tuple(each.edges)) for each in planner.decisions}
    places = {(each.stage, each.group, each.key, each.position, each.name, each.remaining) for each in planner.placed}
    return decisions, places, set(planner.incomplete()), planner.finished(), planner.ready()


def next_trials(planner: Planner) -> list[str]:
    found = []
    while planned := planner.next(lambda _: True):
        found.append(planned.key)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_a_new_planner_that_is_told_everything_stands_where_the_old_one_stood(seed: int) -> None:
    order = random.Random(seed)
    whole = job()
    first = Planner(whole, DurationModel())
    store: dict[str, TrialSnapshot] = {}
    running: list[PlannedTrial] = []
    for _ in range(order.randrange(5, 110)):
        while len(running) < 4 and (planned := first.next(lambda _: True)):
            running.append(planned)
        if not running:
            break
        ended = running.pop(order.randrange(len(running)))
        store[ended.key] = say_something(ended)
        first.update(ended.key, store[ended.key])
    for each in running:  # killed: nothing of these is recorded
        first.give_back(each.key)
    again = Planner(whole, DurationModel())
    assert len(store) >= 5
    tell(again, store, order)
    assert standing(again) == standing(first)
    assert {each.key for each in again.placed} >= store.keys() | {each.key for each in running}
    left = next_trials(again)
    assert left == next_trials(first)
    assert {each.key for each in running} <= set(left)
    assert not {key for key in left if store.get(key, PENDING).state in (TrialState.done, TrialState.diverged)}


@pytest.mark.parametrize("fates", [done, say_something])
def test_the_order_in_which_trials_end_changes_nothing(fates: Any) -> None:
    found = []
    for seed, slots in ((0, 1), (1, 3), (2, 16), (3, 200)):
        planner = planner_of()
        run(planner, fates, slots, seed)
        found.append(standing(planner))
    assert all(each == found[0] for each in found)
    decisions, places, incomplete, finished, ready = found[0]
    assert (finished, ready) == (True, 0)
    if fates is done:
        assert (len(places), len(decisions), incomplete) == (1 + 60 + 24 + 4, 4 + 4, set())
    else:
        assert 61 <= len(places) < 89
        assert len(decisions) < 8
        assert incomplete


def test_telling_the_same_again_changes_nothing() -> None:
    def say_twice(each: PlannedTrial) -> TrialSnapshot:
        planner.update(each.key, done(each))
        return done(each)

    planner = planner_of()
    handed = run(planner, say_twice)
    assert len(handed) == 89
    before = standing(planner)
    once = planner_of()
    run(once)
    assert before == standing(once)
    for each in handed:
        assert planner.update(each.key, done(each)) == ([], [])
    assert standing(planner) == before


def test_progress_counts_forecasts_and_names_the_best() -> None:
    planner = planner_of(grid(dataset=["digits"], init=[RAND]), REFINE, FINAL)
    (first,) = take(planner, 1)
    progress = {each.stage: each for each in planner.progress()}
    assert progress["grid"].states[TrialState.running] == 1
    assert progress["grid"].states[TrialState.pending] == 14
    assert progress["grid"].best is None
    assert (progress["refine"].expected, progress["final"].expected) == (6, 1)
    planner.update(first.key, done(first))
    progress = {each.stage: each for each in planner.progress()}
    assert progress["grid"].best == figures(first.spec)["top1"]


def test_three_thousand_trials_are_planned_and_run() -> None:
    lrs = [1e-5 * (1 + number / 10) for number in range(500)]
    planner = Planner(job(grid(lr=lrs, init=[RAND]), REFINE, FINAL, trial=BASE), DurationModel())
    assert planner.ready() == 3000
    assert len(run(planner, slots=64)) == 3000 + 12 + 2
    assert planner.incomplete() == []


def test_weights_of_pretraining_are_kept_unless_the_stage_says_otherwise() -> None:
    override = {"task": {"kind": "pretrain", "dataset": "digits-pretrain", "mask_patch": 16}}
    for said, kept in ((None, True), (False, False)):
        planner = planner_of({"name": "simmim", "override": override, "keep_weights": said})
        assert [each.keep_weights for each in planner.placed] == [kept]
