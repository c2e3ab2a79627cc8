"""What may run when, who wins, what is incomplete and why, and that a resumed planner comes to the same."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
from k12_job import (
    BASE,
    DECAYS,
    FINAL,
    LRS,
    PRETRAIN,
    RAND,
    REFINE,
    SUP,
    done,
    failed,
    figures,
    grid,
    job,
    names,
    planner_of,
    run,
    take,
    tell,
)
from pydantic import ValidationError

from orchestrator.errors import SpecError
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.plan.state import Decision
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.rows import Edge
from orchestrator.records.states import TrialSnapshot, TrialState
from workers.trial import TrialSpec

DIVERGED = TrialSnapshot(TrialState.diverged, error_class="diverged", error="loss is nan")
CANCELLED = TrialSnapshot(TrialState.cancelled, error_class="cancelled")
PENDING = TrialSnapshot(TrialState.pending)
RUNNING = TrialSnapshot(TrialState.running)


def decision(planner: Planner, stage: str, group: str) -> Decision:
    (found,) = [each for each in planner.decisions if (each.stage, each.group) == (stage, group)]
    return found


def placed(planner: Planner, stage: str, group: str | None = None) -> list[PlannedTrial]:
    return [each for each in planner.placed if each.stage == stage and group in (None, each.group)]


# The protocol


def test_the_whole_protocol_runs_to_its_end() -> None:
    planner = planner_of()
    handed = run(planner)
    assert planner.finished()
    assert planner.incomplete() == []
    assert len({each.key for each in handed}) == len(handed) == len(planner.placed)
    assert Counter(each.stage for each in handed) == {"pretrain": 1, "grid": 60, "refine": 24, "final": 4}
    for group in ("digits/RAND", "digits/SUP", "faces/RAND", "faces/SUP"):
        (final,) = placed(planner, "final", group)
        tried = [*placed(planner, "grid", group), *placed(planner, "refine", group)]
        best = max(tried, key=lambda each: figures(each.spec)[each.spec.task.metric])
        chosen = decision(planner, "final", group)
        assert chosen.key == best.key
        assert chosen.candidates == len(tried) == 21
        assert chosen.sources == ["grid", "refine"]
        assert chosen.value == pytest.approx(figures(best.spec)[chosen.metric])
        assert (final.spec.optim, final.spec.backbone) == (best.spec.optim, best.spec.backbone)


def test_only_the_final_stage_may_read_test() -> None:
    planner = planner_of()
    run(planner)
    for each in planner.placed:
        assert each.spec.may_test == each.spec.task.reads_test == (each.stage == "final")


def test_permission_to_test_changes_no_key_of_a_trial_that_does_not_ask() -> None:
    """A stage that takes winners and stays on val finds the winner's trial done."""
    planner = planner_of(grid(init=[RAND]), {"name": "again", "from": "grid"})
    handed = run(planner)
    assert {each.key for each in placed(planner, "again")} < {each.key for each in placed(planner, "grid")}
    assert len(handed) == len(placed(planner, "grid")) == 30


@pytest.mark.parametrize("override", [{"task.evaluate": "test"}, {"task.train": "trainval", "task.evaluate": "test"}])
@pytest.mark.parametrize("stage", ["grid", "refine"])
def test_a_stage_before_the_last_choice_is_refused_test_data(stage: str, override: dict[str, Any]) -> None:
    stages = [grid(init=[RAND]), REFINE, FINAL]
    changed = [{**each, "override": override} if each["name"] == stage else each for each in stages]
    with pytest.raises(ValidationError, match="test data before selection"):
        planner_of(*changed)


@pytest.mark.parametrize(
    "after",
    [
        {"name": "more", "from": "final", "override": {"optim.epochs": 8}},
        {"name": "more", "override": {"backbone.init": {"kind": "stage", "name": "BEST", "stage": "final"}}},
    ],
)
def test_nothing_may_start_from_a_stage_that_reads_test(after: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="stage final: asks for test data"):
        planner_of(grid(dataset=["digits"], init=[RAND]), REFINE, FINAL, after)


@pytest.mark.parametrize("axes", [{"optim.lr": [1e-3, 2e-3]}, {"seed": [0, 1], "backbone.drop_path": [0.0, 0.1]}])
def test_several_settings_may_not_be_tried_on_test(axes: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="stage final: asks for test data"):
        planner_of(grid(dataset=["digits"], init=[RAND]), {**FINAL, "from": "grid", "sweep": {"grid": axes}})


def test_a_trial_that_was_written_down_and_read_again_keeps_its_key() -> None:
    planner = planner_of()
    run(planner)
    for each in planner.placed:
        assert TrialSpec.model_validate_json(each.spec.model_dump_json()).key == each.key == each.spec.key


def test_initial_weights_are_the_trial_of_the_named_stage() -> None:
    planner = planner_of()
    (pretrain,) = placed(planner, "pretrain")
    for each in placed(planner, "grid"):
        parent = pretrain.key if each.settings["backbone.init"] == "SUP" else None
        assert each.spec.parent == parent
        assert each.needs == ((parent,) if parent else ())
        assert each.spec.backbone.init.name == each.settings["backbone.init"]


def test_children_wait_for_their_parents_weights() -> None:
    planner = planner_of()
    first = take(planner, 31)
    assert planner.next(lambda _: True) is None
    assert {each.spec.backbone.init.name for each in first} == {"RAND"}
    planner.update(first[0].key, done(first[0]))
    assert all(each.settings["backbone.init"] == "SUP" for each in take(planner, 30))


def test_weights_are_kept_where_they_are_needed_and_of_what_read_test() -> None:
    planner = planner_of()
    run(planner)
    assert {each.stage for each in planner.placed if each.keep_weights} == {"pretrain", "final"}
    kept = {"keep_weights": True}
    planner = planner_of({**grid(init=[RAND]), **kept}, REFINE, {**FINAL, "keep_weights": False})
    run(planner)
    assert {each.stage for each in planner.placed if each.keep_weights} == {"grid"}


def test_groups_names_and_settings() -> None:
    planner = planner_of()
    run(planner)
    one = placed(planner, "grid", "digits/SUP")[1]
    assert one.name == "grid/digits/SUP/lr=0.000125,layer_decay=0.85"
    assert one.group_values == {"task.dataset": "digits", "backbone.init": "SUP"}
    assert one.settings == {
        "task.dataset": "digits", "backbone.init": "SUP", "optim.lr": 1.25e-4, "optim.layer_decay": 0.85,
        "backbone.drop_path": 0.0,
    }  # fmt: skip
    assert [each.position for each in placed(planner, "grid", "digits/SUP")] == list(range(15))
    (pretrain,) = placed(planner, "pretrain")
    assert (pretrain.name, pretrain.group) == ("pretrain/all", "all")
    (final,) = placed(planner, "final", "digits/RAND")
    assert final.name == "final/digits/RAND/lr=0.000559,layer_decay=0.85,drop_path=0.1"
    assert final.settings == decision_settings(planner, "digits/RAND")


def test_all_candidates_of_a_choice_state_the_same_settings() -> None:
    """Also those that only a later stage moves, or only a tie reads."""
    stage = {**grid(dataset=["digits"], init=[RAND]), "ties": ["optim.clip:min"]}
    near = {**REFINE, "neighbourhood": {"near": {"optim.weight_decay": {"multiply": [2]}}}}
    planner = planner_of(stage, near, FINAL)
    run(planner)
    for each in [*placed(planner, "grid"), *placed(planner, "refine")]:
        assert each.settings["optim.clip"] == 5.0
        assert each.settings["optim.weight_decay"] == (0.1 if each.stage == "refine" else 0.05)
    assert placed(planner, "grid")[0].name.endswith("/lr=0.000125,layer_decay=0.75")


def decision_settings(planner: Planner, group: str) -> dict[str, Any]:
    key = decision(planner, "final", group).key
    return next(each.settings for each in planner.placed if each.key == key)


def test_a_decision_says_its_rule_and_its_edges() -> None:
    small = grid(dataset=["digits"], init=[RAND], lr=[1e-4, 5e-4], layer_decay=[0.75, 0.85])
    planner = planner_of(small, REFINE, FINAL)
    run(planner)
    first = decision(planner, "refine", "digits/RAND")
    assert first.edges == [
        Edge("optim.lr", "high", False, 5e-4, 5e-4),
        Edge("optim.layer_decay", "high", False, 0.85, 0.85),
    ]
    assert first.rule["metric"] == "top1"
    assert first.rule["mode"] == "max"
    assert first.rule["ties"][0] == "figure:loss:min"
    assert first.rule["last"] == "key"
    assert first.rule["neighbourhood"]["near"]["optim.lr"]["multiply"] == [0.7, 1.4]
    assert first.rule["left_out"] == []
    last = decision(planner, "final", "digits/RAND")
    assert last.edges == [
        Edge("optim.lr", "high", False, 5e-4, 5e-4),
        Edge("optim.layer_decay", "high", False, 0.85, 0.85),
    ]
    assert placed(planner, "final")[0].settings["backbone.drop_path"] == 0.1


def test_equal_figures_are_decided_by_the_sources_ties() -> None:
    def same(planned: PlannedTrial) -> TrialSnapshot:
        return TrialSnapshot(TrialState.done, figures={planned.spec.task.metric: 50.0, "loss": 1.0})

    stage = grid(dataset=["digits"], init=[RAND])
    other = {**stage, "ties": ["optim.lr:max", "optim.layer_decay:min"]}
    for source, lr, decay in ((stage, LRS[0], DECAYS[-1]), (other, LRS[-1], DECAYS[0])):
        planner = planner_of(source, {**FINAL, "from": "grid"})
        run(planner, same)
        (final,) = placed(planner, "final")
        assert (final.spec.optim.lr, final.spec.optim.layer_decay) == (lr, decay)


def test_a_winner_is_tried_at_every_point_of_a_later_sweep() -> None:
    seeds = {**FINAL, "sweep": {"grid": {"seed": [0, 1, 2]}}, "from": "grid"}
    planner = planner_of(grid(dataset=["digits"], init=[RAND]), seeds)
    run(planner)
    finals = placed(planner, "final")
    assert [each.spec.seed for each in finals] == [0, 1, 2]
    assert {each.spec.optim.lr for each in finals} == {LRS[2]}
    assert finals[1].name.endswith("seed=1")


# Neighbourhoods


def neighbourhood(**fields: Any) -> Planner:
    """A refine stage around lr 1e-3, decay 0.9, no drop path; run to its end."""
    refine = {"name": "refine", "from": "grid", "neighbourhood": fields}
    planner = planner_of(grid(dataset=["digits"], init=[RAND], lr=[1e-3], layer_decay=[0.9]), refine)
    run(planner)
    return planner


def points(planner: Planner) -> list[tuple[float, float, float]]:
    specs = [each.spec for each in placed(planner, "refine")]
    return [(each.optim.lr, each.optim.layer_decay, each.backbone.drop_path) for each in specs]


def test_a_star_moves_one_field_at_a_time() -> None:
    near = {"optim.lr": {"multiply": [0.5, 2]}, "optim.layer_decay": {"add": [-0.05, 0.05]}}
    expected = [(5e-4, 0.9, 0.0), (2e-3, 0.9, 0.0), (1e-3, 0.85, 0.0), (1e-3, 0.95, 0.0)]
    assert points(neighbourhood(shape="star", near=near)) == expected


def test_a_box_takes_every_combination_without_the_centre() -> None:
    near = {"optim.lr": {"multiply": [0.5, 2]}, "optim.layer_decay": {"add": [-0.05, 0.05]}}
    found = points(neighbourhood(shape="box", near=near))
    assert set(found) == {(lr, d, 0.0) for lr in (5e-4, 1e-3, 2e-3) for d in (0.85, 0.9, 0.95)} - {(1e-3, 0.9, 0.0)}
    assert len(found) == 8


@pytest.mark.parametrize("shape", ["star", "box"])
def test_the_centre_is_tried_again_where_it_is_listed_and_runs_once(shape: str) -> None:
    planner = neighbourhood(shape=shape, near={"optim.lr": {"multiply": [0.5, 1, 2]}})
    assert {lr for lr, _, _ in points(planner)} == {5e-4, 1e-3, 2e-3}
    assert len({each.key for each in planner.placed}) == 3
    assert len(planner.placed) == 4


def test_values_that_are_out_of_bounds_or_refused_are_left_out_with_a_line() -> None:
    near = {
        "optim.lr": {"multiply": [0.5, 2, 4], "low": 6e-4, "high": 3e-3},
        "optim.layer_decay": {"add": [0.05, 0.2]},
        "backbone.drop_path": {"add": [-0.1, 0.1]},
    }
    planner = neighbourhood(near=near)
    assert points(planner) == [(2e-3, 0.9, 0.0), (1e-3, 0.95, 0.0), (1e-3, 0.9, 0.1)]
    assert decision(planner, "refine", "digits/RAND").rule["left_out"] == [
        "optim.lr 0.0005 left out: below low 0.0006",
        "optim.lr 0.004 left out: above high 0.003",
        "optim.layer_decay 1.1 left out: Input should be less than or equal to 1",
        "backbone.drop_path -0.1 left out: Input should be greater than or equal to 0",
    ]


def test_a_neighbourhood_without_an_allowed_value_leaves_the_grids_winner() -> None:
    nothing = {**REFINE, "neighbourhood": {"near": {"backbone.drop_path": {"add": [-0.1]}}}}
    planner = planner_of(grid(dataset=["digits"], init=[RAND]), nothing, FINAL)
    run(planner)
    assert len(placed(planner, "final")) == 1
    assert planner.incomplete() == []
    planner = planner_of(grid(dataset=["digits"], init=[RAND]), nothing)
    run(planner)
    assert planner.incomplete() == ["refine digits/RAND: no setting around the winner is allowed, so there is no trial"]


def test_a_neighbour_that_the_grid_has_tried_runs_once_for_both() -> None:
    on_grid = {**REFINE, "neighbourhood": {"near": {"optim.lr": {"multiply": [0.5, 3]}}}}
    planner = planner_of(grid(dataset=["digits"], init=[RAND], lr=[3e-4, 6e-4], layer_decay=[0.9]), on_grid, FINAL)
    handed = run(planner)
    shared = {each.key for each in placed(planner, "grid")} & {each.key for each in placed(planner, "refine")}
    assert len(shared) == 1
    assert len(handed) == 2 + 1 + 1
    assert decision(planner, "final", "digits/RAND").candidates == 3


# Order


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


# Failures


def test_a_failed_trial_makes_its_group_incomplete_and_no_other() -> None:
    bad = placed(planner_of(), "grid", "faces/RAND")[7]
    planner = planner_of()
    run(planner, lambda each: failed() if each.key == bad.key else done(each))
    assert planner.finished()
    assert {each.group for each in placed(planner, "final")} == {"digits/RAND", "digits/SUP", "faces/SUP"}
    assert not placed(planner, "refine", "faces/RAND")
    (line,) = planner.incomplete()
    assert line == (
        f"grid faces/RAND: trial {bad.name} ({bad.key[:8]}) failed: RuntimeError: boom; "
        "to run it again: python -m orchestrator retry k12"
    )
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
    assert "was cancelled (and 1 more); to run it again: python -m orchestrator retry k12" in line
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
    assert line in planner.incomplete()
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


# Weights


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


# Resuming


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
    tell(again, store, order)
    assert standing(again) == standing(first)
    assert next_trials(again) == next_trials(first)


@pytest.mark.parametrize("fates", [done, say_something])
def test_the_order_in_which_trials_end_changes_nothing(fates: Any) -> None:
    found = []
    for seed, slots in ((0, 1), (1, 3), (2, 16), (3, 200)):
        planner = planner_of()
        run(planner, fates, slots, seed)
        found.append(standing(planner))
    assert all(each == found[0] for each in found)
    assert (found[0][2] == set()) == (fates is done)


def test_telling_the_same_again_changes_nothing() -> None:
    def say_twice(each: PlannedTrial) -> TrialSnapshot:
        planner.update(each.key, done(each))
        return done(each)

    planner = planner_of()
    handed = run(planner, say_twice)
    before = standing(planner)
    once = planner_of()
    run(once)
    assert before == standing(once)
    for each in handed:
        assert planner.update(each.key, done(each)) == ([], [])
    assert standing(planner) == before


def test_progress_counts_forecasts_and_says_the_best() -> None:
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
    assert progress["grid"].seconds_left == pytest.approx(14 * first.seconds)
    assert progress["refine"].seconds_left == pytest.approx(6 * first.seconds)
    run(planner)
    assert all(each.seconds_left == 0 for each in planner.progress())


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
