"""What may run when, who wins, what is incomplete and why, and that a resumed planner comes to the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from k12_job import (
    DECAYS,
    FINAL,
    LRS,
    RAND,
    REFINE,
    decision,
    done,
    figures,
    grid,
    placed,
    planner_of,
    run,
    take,
)
from pydantic import ValidationError

from orchestrator.errors import SpecError
from orchestrator.plan.planner import Planner
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.rows import Edge
from orchestrator.records.states import TrialSnapshot, TrialState
from workers.trial import TrialSpec

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
