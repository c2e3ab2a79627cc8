"""Replicates: which seeds a stage runs with, who wins by the mean over them, and which weights each starts from."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from k12_job import DIVERGED, FINAL, PRETRAIN, RAND, SUP, decision, done, failed, grid, placed, planner_of, run, tell

from orchestrator.errors import SpecError
from orchestrator.plan.planner import Planner
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.spec.job import Stage
from orchestrator.spec.replicates import Replicates

REFINE = {"name": "refine", "from": "grid", "neighbourhood": {"near": {"optim.lr": {"multiply": [1.4]}}}}
SMALL = grid(dataset=["digits"], init=[RAND, SUP], lr=[1e-4, 6e-4], layer_decay=[0.85])


def with_seeds(stage: dict[str, Any], replicates: Any) -> dict[str, Any]:
    return {**stage, "replicates": replicates}


def seeds(planner: Planner, stage: str) -> list[int]:
    return [each.spec.seed for each in placed(planner, stage)]


def test_seeds_begin_at_the_base_trials_and_go_on_after_those_that_chose() -> None:
    planner = planner_of(PRETRAIN, with_seeds(SMALL, 2), with_seeds(REFINE, 2), with_seeds(FINAL, 3))
    run(planner)
    assert planner.incomplete() == []
    assert seeds(planner, "grid") == [0, 1] * 4
    assert seeds(planner, "refine") == [0, 1] * 2
    assert seeds(planner, "final") == [2, 3, 4] * 2
    assert [each.expected for each in planner.progress()] == [1, 4, 4, 2, 2, 3, 3]


def test_a_first_seed_may_be_given() -> None:
    planner = planner_of(PRETRAIN, with_seeds(SMALL, {"n": 2, "first": 7}), with_seeds(FINAL | {"from": "grid"}, 2))
    run(planner)
    assert (seeds(planner, "grid")[:2], seeds(planner, "final")[:2]) == ([7, 8], [9, 10])


def test_n_alone_and_a_mapping_of_n_alone_are_the_same() -> None:
    assert Stage.model_validate({"name": "a", "replicates": {"n": 3}}).replicates == 3
    assert Stage.model_validate({"name": "a", "replicates": {"n": 3, "first": 1}}).replicates == Replicates(
        n=3, first=1
    )


def test_replicates_of_a_setting_differ_by_their_seed_alone() -> None:
    planner = planner_of(with_seeds(PRETRAIN, 2), with_seeds(SMALL, 2), with_seeds(FINAL | {"from": "grid"}, 2))
    run(planner)
    for stage in ("pretrain", "grid", "final"):
        trials = placed(planner, stage)
        for one, two in zip(trials[::2], trials[1::2], strict=True):
            assert one.key != two.key
            assert {**one.settings, "seed": two.spec.seed} == two.settings
            assert (two.settings["seed"], two.name) == (
                two.spec.seed,
                one.name.replace(f"seed={one.spec.seed}", f"seed={two.spec.seed}"),
            )


def test_a_stage_without_replicates_is_planned_as_before() -> None:
    plain, more = planner_of(PRETRAIN, SMALL, REFINE, FINAL), planner_of(PRETRAIN, SMALL, REFINE, with_seeds(FINAL, 2))
    run(plain)
    run(more)
    for stage in ("pretrain", "grid", "refine"):
        assert [(each.key, each.name) for each in placed(plain, stage)] == [
            (each.key, each.name) for each in placed(more, stage)
        ]
    assert decision(plain, "refine", "digits/RAND") == decision(more, "refine", "digits/RAND")


def test_more_replicates_keep_the_trials_that_there_are() -> None:
    three, five = planner_of(with_seeds(PRETRAIN, 3)), planner_of(with_seeds(PRETRAIN, 5))
    assert [each.key for each in placed(five, "pretrain")][:3] == [each.key for each in placed(three, "pretrain")]


def by_seed(table: dict[tuple[float, int], TrialSnapshot | float]) -> Any:
    """Outcomes of trials by their learning rate and seed: a snapshot, or top-1 (loss 1)."""

    def outcome(planned: PlannedTrial) -> TrialSnapshot:
        given = table.get((planned.spec.optim.lr, planned.spec.seed), 50.0)
        if isinstance(given, TrialSnapshot):
            return given
        weights = (f"/runs/{planned.key}", "0" * 64) if planned.keep_weights else None
        return TrialSnapshot(TrialState.done, {planned.spec.task.metric: given, "loss": 1.0}, weights=weights)

    return outcome


ONE = with_seeds(grid(dataset=["digits"], init=[RAND], lr=[1e-4, 6e-4], layer_decay=[0.85]), 3)
AFTER = with_seeds(FINAL | {"from": "grid"}, 2)


def test_the_best_mean_wins_not_the_luckiest_seed() -> None:
    planner = planner_of(ONE, AFTER)
    lucky = {(1e-4, 0): 90.0, (1e-4, 1): 10.0, (1e-4, 2): 11.0, (6e-4, 0): 39.0, (6e-4, 1): 40.0, (6e-4, 2): 44.0}
    run(planner, by_seed(lucky))
    taken = decision(planner, "final", "digits/RAND")
    first = next(each for each in placed(planner, "grid") if (each.spec.optim.lr, each.spec.seed) == (6e-4, 0))
    assert (taken.key, taken.value, taken.candidates) == (first.key, 41.0, 2)
    assert (taken.rule["seeds"], taken.rule["values"]) == ([0, 1, 2], [39.0, 40.0, 44.0])
    assert [edge.path for edge in taken.edges] == ["optim.lr"]
    assert {each.spec.optim.lr for each in placed(planner, "final")} == {6e-4}


def test_one_seed_records_nothing_more() -> None:
    planner = planner_of(with_seeds(ONE, 1), AFTER)
    run(planner)
    assert set(decision(planner, "final", "digits/RAND").rule) == {"metric", "mode", "ties", "last"}


def test_a_setting_with_a_diverged_seed_ranks_below_all_without() -> None:
    planner = planner_of(ONE, AFTER)
    run(planner, by_seed({(6e-4, 0): 90.0, (6e-4, 1): DIVERGED, (6e-4, 2): 90.0}))
    assert {each.spec.optim.lr for each in placed(planner, "final")} == {1e-4}
    assert planner.incomplete() == []


def test_where_every_setting_has_a_diverged_seed_nobody_wins() -> None:
    planner = planner_of(ONE, AFTER)
    run(planner, by_seed({(6e-4, 1): DIVERGED, (1e-4, 2): DIVERGED}))
    (line,) = planner.incomplete()
    assert line.startswith("grid digits/RAND: no setting has a finite metric with each of its seeds")


def test_a_diverged_seed_of_a_last_stage_is_a_result() -> None:
    planner = planner_of(ONE, AFTER)
    run(planner, by_seed({(1e-4, 3): DIVERGED, (1e-4, 0): 90.0}))
    assert planner.finished()
    assert planner.incomplete() == []


def test_a_missing_seed_leaves_the_group_incomplete() -> None:
    planner = planner_of(ONE, AFTER)
    run(planner, by_seed({(1e-4, 2): failed()}))
    assert placed(planner, "final") == []
    assert "grid/digits/RAND/lr=0.0001,layer_decay=0.85,seed=2" in planner.incomplete()[0]


def test_the_best_so_far_is_of_settings_with_all_their_seeds() -> None:
    planner = planner_of(ONE)
    trials = placed(planner, "grid")
    outcome = by_seed({(1e-4, 0): 99.0, (6e-4, 0): 10.0, (6e-4, 1): 20.0, (6e-4, 2): 33.0})
    for each in [trials[0], *trials[3:]]:
        planner.update(each.key, outcome(each))
    assert [each.best for each in planner.progress()] == [21.0]


@pytest.mark.parametrize(("images", "best"), [([0, 1], None), ([0], 30.0)], ids=["two settings", "one"])
def test_of_several_settings_of_an_analysis_none_is_the_best_so_far(images: list[int], best: float | None) -> None:
    task = {"kind": "analysis", "dataset": "digits", "images": 16}
    sweep = {"grid": {"task.image_seed": images}}
    planner = planner_of({"name": "analyse", "override": {"task": task}, "sweep": sweep})
    for number, each in enumerate(placed(planner, "analyse")):
        figures = {"attention_distance": 30.0 + number}
        planner.update(each.key, TrialSnapshot(TrialState.done, figures=figures))
    assert [each.best for each in planner.progress()] == [best]


def parents(planner: Planner, stage: str, init: str = "SUP") -> list[str | None]:
    return [each.spec.parent for each in placed(planner, stage) if each.spec.backbone.init.name == init]


def test_replicates_start_from_replicates_by_their_number_also_through_winners() -> None:
    """Five pre-trainings, a grid and a neighbourhood with one seed, five replicates of the winner."""
    planner = planner_of(with_seeds(PRETRAIN, 5), SMALL, REFINE, with_seeds(FINAL, 5))
    run(planner)
    pretrained = [each.key for each in placed(planner, "pretrain")]
    assert [each.spec.seed for each in placed(planner, "pretrain")] == [0, 1, 2, 3, 4]
    assert parents(planner, "grid") == [pretrained[0]] * 2
    assert parents(planner, "refine") == [pretrained[0]]
    assert parents(planner, "final") == pretrained
    assert parents(planner, "final", "RAND") == [None] * 5
    assert all(each.keep_weights for each in placed(planner, "pretrain"))
    assert planner.incomplete() == []
    finals = [each for each in placed(planner, "final") if each.spec.parent]
    assert len({str({**each.settings, "seed": 0}) for each in finals}) == 1
    assert finals[0].settings["backbone.init"] == "SUP"


def test_replicates_of_a_grid_start_from_replicates() -> None:
    planner = planner_of(with_seeds(PRETRAIN, 3), with_seeds(SMALL, 3), with_seeds(REFINE, 3), with_seeds(FINAL, 3))
    run(planner)
    pretrained = [each.key for each in placed(planner, "pretrain")]
    for stage in ("grid", "refine", "final"):
        of_stage = parents(planner, stage)
        assert of_stage == pretrained * (len(of_stage) // 3)


def test_replicates_of_one_checkpoint_all_start_from_it() -> None:
    planner = planner_of(PRETRAIN, SMALL, with_seeds(FINAL | {"from": "grid"}, 3))
    run(planner)
    assert parents(planner, "final") == [placed(planner, "pretrain")[0].key] * 3


def test_weights_of_a_choice_with_replicates_are_those_of_the_winners_seeds() -> None:
    pretrain = {**PRETRAIN, "sweep": {"grid": {"optim.lr": [1e-4, 6e-4]}}, "replicates": 2}
    planner = planner_of(pretrain, with_seeds(SMALL, 2))
    assert parents(planner, "grid") == []
    run(planner)
    best = [each.key for each in placed(planner, "pretrain") if each.spec.optim.lr == 6e-4]
    assert parents(planner, "grid") == best * 2
    assert decision(planner, "grid: weights of pretrain", "all").key == best[0]


TWO_SEEDS = {**SMALL, "sweep": {"grid": {"backbone.init": [SUP], "seed": [0, 1]}}}


@pytest.mark.parametrize("other", [with_seeds(SMALL, 3), TWO_SEEDS], ids=["replicates", "axis"])
def test_another_number_of_replicates_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"stage grid: runs [23] seeds, but starts from stage pretrain, which has 2"):
        planner_of(with_seeds(PRETRAIN, 2), other)
    with pytest.raises(SpecError, match="stage final: runs 3 seeds, but starts from stage pretrain, which has 2"):
        planner_of(with_seeds(PRETRAIN, 2), SMALL, with_seeds(FINAL | {"from": "grid"}, 3))


def test_an_override_of_the_weights_needs_no_replicates() -> None:
    scratch = {"task.train": "trainval", "task.evaluate": "test", "backbone.init": {"kind": "none", "name": "NEW"}}
    planner = planner_of(
        with_seeds(PRETRAIN, 2), SMALL, {**FINAL, "from": "grid", "override": scratch, "replicates": 3}
    )
    run(planner)
    assert parents(planner, "final", "NEW") == [None] * 6


@pytest.mark.parametrize("order", range(4))
def test_a_planner_that_is_told_everything_stands_where_the_first_one_stood(order: int) -> None:
    stages = (with_seeds(PRETRAIN, 3), with_seeds(SMALL, 3), with_seeds(REFINE, 3), with_seeds(FINAL, 3))
    first, again = planner_of(*stages), planner_of(*stages)
    run(first, seed=order)
    tell(again, {each.key: done(each) for each in first.placed})
    assert again.finished()

    def content(planner: Planner) -> Any:
        decisions = sorted((dataclasses.asdict(each) for each in planner.decisions), key=str)
        return {(each.stage, each.key, each.name, each.position) for each in planner.placed}, decisions

    assert content(again) == content(first)
    assert math.isfinite(first.decisions[0].value)
