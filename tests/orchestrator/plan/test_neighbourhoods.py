"""The trials around a winner."""

from __future__ import annotations

from typing import Any

import pytest
from k12_job import FINAL, RAND, REFINE, decision, grid, placed, planner_of, run

from orchestrator.plan.planner import Planner


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


def test_neighbours_lie_around_the_winners_value_also_where_the_stage_overrides_it() -> None:
    refine = {
        "name": "refine", "from": "grid", "override": {"optim.lr": 8e-3, "optim.layer_decay": 0.7},
        "neighbourhood": {"near": {"optim.lr": {"multiply": [0.5, 2]}}},
    }  # fmt: skip
    planner = planner_of(grid(dataset=["digits"], init=[RAND], lr=[1e-3], layer_decay=[0.9]), refine)
    run(planner)
    assert points(planner) == [(5e-4, 0.7, 0.0), (2e-3, 0.7, 0.0)]
