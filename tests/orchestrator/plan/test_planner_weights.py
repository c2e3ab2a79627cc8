"""Weights that later trials need."""

from __future__ import annotations

from collections import Counter

import pytest
from k12_job import (
    FINAL,
    PRETRAIN,
    RAND,
    REFINE,
    RUNNING,
    SUP,
    decision,
    done,
    failed,
    figures,
    grid,
    names,
    placed,
    planner_of,
    run,
    take,
)

from orchestrator.errors import SpecError
from orchestrator.records.states import TrialSnapshot, TrialState


def test_weights_that_were_not_kept_are_made_again_when_a_child_needs_them() -> None:
    planner = planner_of(PRETRAIN, grid(dataset=["digits"], init=[SUP]))
    (parent,) = placed(planner, "pretrain")
    planner.update(parent.key, TrialSnapshot(TrialState.done, figures=figures(parent.spec)))
    assert names(take(planner, 1)) == [parent.name]
    assert planner.next(lambda _: True) is None
    planner.update(parent.key, done(parent))
    assert len(take(planner, 15)) == 15


def test_weights_are_made_again_for_a_child_that_another_driver_gave_up() -> None:
    planner = planner_of(PRETRAIN, grid(dataset=["digits"], init=[SUP], lr=[1e-3], layer_decay=[0.9]))
    parent, child = planner.placed
    planner.update(child.key, RUNNING)
    planner.update(parent.key, TrialSnapshot(TrialState.done, figures=figures(parent.spec)))
    assert planner.ready() == 0
    planner.give_back(child.key)
    assert names(take(planner, 1)) == [parent.name]


def test_weights_of_a_winner_that_were_not_kept_are_made_again() -> None:
    sweep = {**PRETRAIN, "sweep": {"grid": {"optim.lr": [1e-4, 6e-4]}}}
    planner = planner_of(sweep, grid(dataset=["digits"], init=[SUP]))
    for each in placed(planner, "pretrain"):
        planner.update(each.key, TrialSnapshot(TrialState.done, figures=figures(each.spec)))
    (again,) = take(planner, 1)
    assert (again.stage, again.spec.optim.lr) == ("pretrain", 6e-4)
    assert planner.next(lambda _: True) is None


def test_weights_that_no_child_needs_any_more_are_not_made_again() -> None:
    planner = planner_of(PRETRAIN, grid(dataset=["digits"], init=[SUP]))
    (parent,) = placed(planner, "pretrain")
    planner.update(parent.key, TrialSnapshot(TrialState.done, figures=figures(parent.spec)))
    assert planner.ready() == 1
    for each in placed(planner, "grid"):
        planner.update(each.key, done(each))
    assert planner.finished()


def test_a_trial_that_again_ends_without_its_weights_is_not_run_for_ever() -> None:
    planner = planner_of(PRETRAIN, grid(dataset=["digits"], init=[SUP]))
    (parent,) = take(planner, 1)
    planner.update(parent.key, TrialSnapshot(TrialState.done, figures=figures(parent.spec)))
    assert planner.finished()
    (line,) = planner.incomplete()
    assert "which ended without the weights it was to keep" in line


def test_weights_of_a_stage_with_several_trials_are_its_winners() -> None:
    sweep = {**PRETRAIN, "sweep": {"grid": {"optim.lr": [1e-4, 6e-4, 2e-3]}}}
    planner = planner_of(sweep, grid(dataset=["digits"], init=[RAND, SUP]), REFINE, FINAL)
    assert [each.expected for each in planner.progress() if each.stage == "grid"] == [15, 15]
    assert {each.group for each in placed(planner, "grid")} == {"digits/RAND"}
    assert all(each.keep_weights for each in placed(planner, "pretrain"))
    run(planner)
    best = next(each for each in placed(planner, "pretrain") if each.spec.optim.lr == 6e-4)
    assert {each.needs for each in placed(planner, "grid", "digits/SUP")} == {(best.key,)}
    assert decision(planner, "grid: weights of pretrain", "all").key == best.key
    assert planner.incomplete() == []
    assert len(placed(planner, "final")) == 2


def test_weights_may_come_from_each_group_of_a_stage() -> None:
    sweep = {**PRETRAIN, "per": "optim.lr", "sweep": {"grid": {"optim.lr": [1e-4, 6e-4], "seed": [0, 1]}}}
    inits = [{**SUP, "name": name, "group": name} for name in ("0.0001", "0.0006")]
    planner = planner_of(sweep, grid(dataset=["digits"], init=inits), FINAL | {"from": "grid"})
    assert [each.expected for each in planner.progress() if each.stage == "grid"] == [15, 15]
    run(planner)
    for name in ("0.0001", "0.0006"):
        (parent,) = {each.needs[0] for each in placed(planner, "grid", f"digits/{name}")}
        candidates = placed(planner, "pretrain", name)
        assert len(candidates) == 2
        assert parent in {each.key for each in candidates}
        assert decision(planner, f"grid: weights of pretrain {name}", name).key == parent
    assert planner.incomplete() == []
    for group, why in ((None, "it has 2 groups; name one"), ("0.3", "it has no group '0.3'; it has: 0.0001, 0.0006")):
        with pytest.raises(SpecError, match=why):
            planner_of(sweep, grid(dataset=["digits"], init=[{**SUP, "group": group}]))


def test_a_chosen_setting_is_applied_to_other_data_sets_which_nothing_touches_before_the_choice() -> None:
    """The protocol of the Concept Generalization benchmark: search on L1, apply to L1 to L5, read test there."""
    apply = FINAL | {"from": "grid", "sweep": {"grid": {"task.dataset": ["digits", "faces"], "seed": [0, 1]}}}
    search = {**grid(dataset=["digits"], init=[RAND, SUP]), "per": ["backbone.init"]}
    planner = planner_of(PRETRAIN, search, apply)
    handed: list[str] = []
    while planned := planner.next(lambda each: True):
        if planned.spec.task.reads_test or planned.spec.task.dataset == "faces":  # type: ignore[union-attr]
            group = planned.group
            chosen = decision(planner, "final", group)
            assert all(key in handed for key in (each.key for each in placed(planner, "grid", group)))
            assert planned.spec.optim == next(e for e in planner.placed if e.key == chosen.key).spec.optim
        planner.update(planned.key, done(planned))
        handed.append(planned.key)
    assert Counter(each.spec.task.dataset for each in placed(planner, "final")) == {"digits": 4, "faces": 4}  # type: ignore[union-attr]
    assert all(each.spec.may_test for each in placed(planner, "final"))


def test_without_a_winner_there_are_no_weights() -> None:
    sweep = {**PRETRAIN, "sweep": {"grid": {"optim.lr": [1e-4, 6e-4]}}}
    planner = planner_of(sweep, grid(dataset=["digits"], init=[SUP]), FINAL | {"from": "grid"})
    run(planner, lambda each: failed() if each.position else done(each))
    assert planner.finished()
    assert planner.incomplete()[1] == (
        "grid digits/SUP: blocked: it starts from the weights of stage pretrain, which is incomplete"
    )


def test_weights_come_from_one_trial_of_an_earlier_stage() -> None:
    with pytest.raises(SpecError, match="no such stage before"):
        planner_of(grid(init=[SUP]), PRETRAIN)
    late = {"name": "late", "override": {"backbone.init": {**SUP, "stage": "grid"}}}
    with pytest.raises(SpecError, match="it has 2 groups"):
        planner_of(grid(init=[RAND]), late)


def test_a_trial_of_another_job_may_give_weights() -> None:
    init = {"kind": "trial", "name": "OLD", "trial": "f" * 64}
    planner = planner_of({"name": "only", "override": {"backbone.init": init}})
    assert planner.outside() == ["f" * 64]
    assert planner.finished()
    assert "it starts from trial ffffffff, which is not of this job and has no weights" in planner.incomplete()[0]
    planner.update("f" * 64, TrialSnapshot(TrialState.done, weights=("/runs/f", "0" * 64)))
    assert planner.incomplete() == []
    assert len(take(planner, 1)) == 1
