"""Which trial runs next."""

from __future__ import annotations

import pytest
from k12_job import FINAL, LRS, PENDING, RAND, REFINE, RUNNING, done, grid, names, placed, planner_of, run, take
from search_job import FROM_SEARCH, search

from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.states import TrialState


def test_no_group_waits_for_another() -> None:
    planner = planner_of(grid(init=[RAND]), REFINE, FINAL)
    handed = take(planner, 30)
    for each in handed:
        if each.group == "faces/RAND":
            planner.update(each.key, done(each))
    assert {each.group for each in placed(planner, "refine")} == {"faces/RAND"}
    for each in take(planner, 6):
        planner.update(each.key, done(each))
    assert [each.group for each in take(planner, 1)] == ["faces/RAND"]
    assert placed(planner, "final", "faces/RAND")
    assert not placed(planner, "refine", "digits/RAND")


def test_the_longest_remaining_chain_goes_first() -> None:
    planner = planner_of()
    handed = run(planner, slots=1)
    assert handed[0].stage == "pretrain"
    remaining = {each.key: each.remaining for each in planner.placed}
    (pretrain,) = placed(planner, "pretrain")
    following = placed(planner, "grid", "digits/SUP")[0]
    assert remaining[pretrain.key] == pytest.approx(pretrain.seconds + following.remaining)
    refine, final = placed(planner, "refine", "digits/SUP")[0], placed(planner, "final", "digits/SUP")[0]
    assert following.remaining == pytest.approx(following.seconds + refine.seconds + final.seconds)
    assert final.remaining == final.seconds
    # digits have more images than faces: their whole grid goes first
    first = [each.group for each in take(planner_of(grid(init=[RAND], dataset=["faces", "digits"]), REFINE, FINAL), 30)]
    assert first == ["digits/RAND"] * 15 + ["faces/RAND"] * 15


def test_a_trial_that_does_not_fit_lets_others_pass() -> None:
    big = {**grid(dataset=["digits"], init=[RAND]), "resources": {"gpus": 2}}
    small = {**grid(dataset=["faces"], init=[RAND]), "name": "small"}
    planner = planner_of(big, small)
    asked: list[str] = []

    def fits(planned: PlannedTrial) -> bool:
        asked.append(planned.stage)
        return planned.resources.gpus == 0

    found = planner.next(fits)
    assert found is not None
    assert found.stage == "small"
    assert asked == ["grid", "small"]
    assert [each.stage for each in take(planner, 15)] == ["grid"] * 15
    assert planner.next(lambda _: False) is None
    assert planner.ready() == 14


def test_what_was_given_back_comes_again() -> None:
    planner = planner_of(grid(dataset=["digits"], init=[RAND]))
    first, second = take(planner, 2)
    planner.update(first.key, PENDING)  # a look at the store before the claim is no reason to run it twice
    assert first.key not in {each.key for each in take(planner, 13)}
    assert planner.next(lambda _: True) is None
    planner.give_back(second.key)
    planner.update(first.key, RUNNING)
    planner.give_back(first.key)
    assert names(take(planner, 2)) == names([first, second])
    assert not planner.finished()


def test_a_trial_that_another_driver_runs_is_waited_for() -> None:
    planner = planner_of(grid(dataset=["digits"], init=[RAND], lr=[1e-3], layer_decay=[0.9]), {**FINAL, "from": "grid"})
    (only,) = placed(planner, "grid")
    planner.update(only.key, RUNNING)
    assert planner.next(lambda _: True) is None
    assert not planner.finished()
    planner.update(only.key, PENDING)
    assert names(take(planner, 1)) == [only.name]
    planner.update(only.key, RUNNING)
    planner.update(only.key, done(only))
    assert [each.stage for each in take(planner, 1)] == ["final"]


def test_a_trial_of_two_stages_is_handed_out_once() -> None:
    other = {**grid(init=[RAND], lr=LRS[:2]), "name": "other", "keep_weights": True}
    planner = planner_of(grid(init=[RAND]), other)
    handed = run(planner)
    assert len(handed) == 30
    assert len(planner.placed) == 30 + 12
    kept = {each.key for each in handed if each.keep_weights}
    assert kept == {each.key for each in placed(planner, "other")}
    assert all(each.states[TrialState.done] == each.expected for each in planner.progress())


def test_a_searchs_first_trials_have_all_of_its_rounds_before_them() -> None:
    """Seven trials, two at once: four rounds, and the stage that takes the winner."""
    planner = planner_of(search(trials=7, at_once=2), FROM_SEARCH)
    (group,) = planner.searches.groups()
    for number in range(7):
        planner.searches.propose(group, {"point": {"optim.lr": 1e-3 + number * 1e-4, "optim.layer_decay": 0.85}})
    trials = placed(planner, "search")
    last = trials[-1]
    assert last.remaining > last.seconds > 0
    after = [(each.remaining - last.remaining) / last.seconds for each in trials]
    assert after == pytest.approx([3, 2, 2, 1, 1, 0, 0])
