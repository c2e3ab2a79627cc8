"""Where a neighbourhood lies, and that its stage reads no test data."""

from __future__ import annotations

import pytest
from k12_job import RAND, grid, job, placed, planner_of, run

from orchestrator.spec.access_to_test import why_refused
from orchestrator.spec.job import Near
from orchestrator.spec.trial_fields import nearby_values


@pytest.mark.parametrize("shape", ["star", "box"])
def test_a_neighbourhood_lies_around_the_winner_not_around_what_its_stage_overrides(shape: str) -> None:
    near = {"optim.lr": {"multiply": [0.5, 1, 2]}}
    refine = {
        "name": "refine", "from": "grid", "neighbourhood": {"shape": shape, "near": near},
        "override": {"optim.lr": 7e-3, "optim.weight_decay": 0.3},
    }  # fmt: skip
    planner = planner_of(grid(dataset=["digits"], init=[RAND], lr=[1e-3], layer_decay=[0.9]), refine)
    run(planner)
    specs = [each.spec for each in placed(planner, "refine")]
    assert sorted({spec.optim.lr for spec in specs}) == [5e-4, 1e-3, 2e-3]
    assert {spec.optim.weight_decay for spec in specs} == {0.3}


def test_a_stage_that_searches_a_neighbourhood_may_not_read_test() -> None:
    """To take the best neighbour on test would be a choice by test."""
    test = {"task.train": "trainval", "task.evaluate": "test"}
    near = {"optim.lr": {"multiply": [0.5, 2]}}
    last = {"name": "last", "from": "grid", "neighbourhood": {"near": near}, "override": test}
    own = grid(dataset=["digits"], init=[RAND])
    assert why_refused(job(own, last), 1) == "this stage searches a neighbourhood"
    assert why_refused(job(own, {"name": "last", "from": "grid", "override": test}), 1) is None
    planner = planner_of(own, {**last, "override": {}})
    assert not planner._state.stages.may_test(planner.job.stages[1])


def test_the_bounds_of_a_neighbourhood_are_inside() -> None:
    near = Near(multiply=[0.5, 2.0], low=0.5, high=2.0)
    assert nearby_values(1.0, near) == [(0.5, ""), (2.0, "")]
    beyond = Near(multiply=[0.5, 2.0], low=0.6, high=1.9)
    assert nearby_values(1.0, beyond) == [(0.5, "below low 0.6"), (2.0, "above high 1.9")]
