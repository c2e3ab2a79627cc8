"""Groups with trials that failed, diverged or were cancelled."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from k12_job import (
    CANCELLED,
    DIVERGED,
    FINAL,
    PENDING,
    RAND,
    REFINE,
    decision,
    done,
    failed,
    figures,
    grid,
    placed,
    planner_of,
    run,
    take,
)

from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.states import TrialSnapshot, TrialState


def test_a_failed_trial_makes_its_group_incomplete_and_no_other() -> None:
    bad = placed(planner_of(), "grid", "faces/RAND")[7]
    planner = planner_of()
    run(planner, lambda each: failed() if each.key == bad.key else done(each))
    assert planner.finished()
    assert {each.group for each in placed(planner, "final")} == {"digits/RAND", "digits/SUP", "faces/SUP"}
    assert not placed(planner, "refine", "faces/RAND")
    (line,) = planner.incomplete()
    assert line == f"grid faces/RAND: trial {bad.name} ({bad.key[:8]}) failed", "the error stands with the trial"
    planner.update(bad.key, PENDING)
    assert not planner.finished()
    assert planner.incomplete() == []
    again = run(planner)
    assert Counter(each.stage for each in again) == {"grid": 1, "refine": 6, "final": 1}
    assert planner.incomplete() == []


def test_a_cancelled_trial_makes_its_group_incomplete() -> None:
    planner = planner_of(grid(dataset=["digits"], init=[RAND]), {**FINAL, "from": "grid"})
    run(planner, lambda each: CANCELLED if each.position in (3, 4) else done(each))
    (line,) = planner.incomplete()
    assert line.endswith("was cancelled (and 1 more)")
    assert not planner.decisions


def test_a_failed_parent_blocks_its_childrens_groups() -> None:
    planner = planner_of()
    (pretrain,) = placed(planner, "pretrain")
    run(planner, lambda each: failed() if each.stage == "pretrain" else done(each))
    assert planner.finished()
    lines = planner.incomplete()
    assert [line.split(":")[0] for line in lines] == ["pretrain all", "grid digits/SUP", "grid faces/SUP"]
    assert f"is blocked: it starts from trial pretrain/all ({pretrain.key[:8]}), which failed" in lines[1]
    assert {each.group for each in placed(planner, "final")} == {"digits/RAND", "faces/RAND"}
    planner.update(pretrain.key, PENDING)
    run(planner)
    assert planner.incomplete() == []
    assert len(placed(planner, "final")) == 4


def test_a_diverged_parent_blocks_too() -> None:
    planner = planner_of()
    run(planner, lambda each: DIVERGED if each.stage == "pretrain" else done(each))
    assert "which diverged" in planner.incomplete()[1]
    assert planner.finished()


def test_a_diverged_trial_is_a_result_that_never_wins() -> None:
    best = max(placed(planner_of(), "grid", "digits/RAND"), key=lambda each: figures(each.spec)["top1"])
    planner = planner_of(grid(dataset=["digits"], init=[RAND]), {**FINAL, "from": "grid"})
    run(planner, lambda each: DIVERGED if each.key == best.key else done(each))
    assert planner.incomplete() == []
    chosen = decision(planner, "final", "digits/RAND")
    assert chosen.key != best.key
    assert chosen.candidates == 15


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_trial_that_ended_without_a_finite_metric_never_wins(value: float) -> None:
    def say(each: PlannedTrial) -> TrialSnapshot:
        return TrialSnapshot(TrialState.done, figures={"top1": value if each.position else 1.0})

    planner = planner_of(grid(dataset=["digits"], init=[RAND]), {**FINAL, "from": "grid"})
    run(planner, say)
    assert decision(planner, "final", "digits/RAND").key == placed(planner, "grid")[0].key


def test_a_group_of_which_all_trials_diverged_is_incomplete() -> None:
    planner = planner_of(grid(init=[RAND]), REFINE, FINAL)
    run(planner, lambda each: DIVERGED if each.group == "faces/RAND" else done(each))
    assert planner.finished()
    (line,) = planner.incomplete()
    assert line.startswith("grid faces/RAND: no trial ended with a finite metric")
    assert {each.group for each in placed(planner, "final")} == {"digits/RAND"}


def test_a_refinement_that_diverged_altogether_leaves_the_grids_winner() -> None:
    planner = planner_of(grid(dataset=["digits"], init=[RAND]), REFINE, FINAL)
    run(planner, lambda each: DIVERGED if each.stage == "refine" else done(each))
    assert planner.incomplete() == []
    assert decision(planner, "final", "digits/RAND").key == decision(planner, "refine", "digits/RAND").key


def test_a_final_trial_that_diverged_is_reported() -> None:
    planner = planner_of(grid(dataset=["digits"], init=[RAND]), {**FINAL, "from": "grid"})
    run(planner, lambda each: DIVERGED if each.stage == "final" else done(each))
    (line,) = planner.incomplete()
    assert line.startswith("final digits/RAND: no trial ended with a finite metric")


def test_the_same_code_error_in_three_trials_pauses_the_stage() -> None:
    other = {**grid(dataset=["faces"], init=[RAND]), "name": "other"}
    planner = planner_of(grid(dataset=["digits"], init=[RAND]), other)
    mine = [each for each in take(planner, 5) if each.stage == "grid"]
    assert len(mine) == 5
    planner.update(mine[0].key, failed("ValueError: one\n  in a"))
    planner.update(mine[1].key, failed("ValueError: one\n  in b"))
    planner.update(mine[2].key, failed("ValueError: two"))
    planner.update(mine[3].key, failed("ValueError: one", error_class="data"))
    assert planner.paused() == []
    planner.update(mine[1].key, failed("ValueError: one\n  in b"))  # told again: still two trials
    assert planner.paused() == []
    planner.update(mine[4].key, failed("ValueError: one"))
    (line,) = planner.paused()
    assert line.startswith("stage grid is paused: 3 of its trials failed with the same error: ValueError: one")
    assert "stage grid is paused: too many of its trials failed alike" in planner.incomplete()
    assert {each.stage for each in take(planner, 15)} == {"other"}
    assert planner.next(lambda _: True) is None
    assert not planner.finished()  # the other stage still runs
    for each in placed(planner, "other"):
        planner.update(each.key, done(each))
    assert planner.finished()
    planner.update(mine[0].key, PENDING)  # retry
    assert planner.paused() == []
    assert len(take(planner, 11)) == 11


def test_a_trial_given_back_while_its_stage_is_paused_stays() -> None:
    planner = planner_of(grid(dataset=["digits"], init=[RAND]))
    handed = take(planner, 4)
    for each in handed[:3]:
        planner.update(each.key, failed())
    planner.give_back(handed[3].key)
    assert planner.finished()
    assert planner.next(lambda _: True) is None
