"""Fields of a trial by dotted path, its group, and the values around one of its values."""

from __future__ import annotations

from typing import Any

import pytest
from k12_job import BASE, SUP

from orchestrator.records.recorded_spec import lookup
from orchestrator.spec.job import Near
from orchestrator.spec.trial_fields import group_of, nearby_values, settings_of
from workers.trial import TrialSpec


def trial(**backbone: Any) -> TrialSpec:
    return TrialSpec.model_validate({**BASE, "backbone": {**BASE["backbone"], **backbone}})


def test_a_path_that_leads_nowhere_is_told_from_one_that_leads_to_none() -> None:
    values = {"a": {"b": None}, "c": 1}
    assert lookup(values, "a.b", "missing") is None
    assert lookup(values, "a.x", "missing") == "missing"
    assert lookup(values, "c.x", "missing") == "missing"
    assert lookup(values, "x") is None


def test_initial_weights_go_by_their_name_and_numbers_stay_numbers() -> None:
    spec = trial(init=SUP)
    assert group_of(spec, ["task.dataset", "backbone.init", "optim.lr"]) == (
        "digits/SUP/0.001",
        {"task.dataset": "digits", "backbone.init": "SUP", "optim.lr": 1e-3},
    )
    assert group_of(spec, []) == ("all", {})
    assert settings_of(spec, ["optim.batch", "backbone.init", "task.no_such_field"]) == {
        "optim.batch": 64, "backbone.init": "SUP",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("near", "values"),
    [
        (Near(multiply=[0.5, 2], add=[1]), [(0.5, ""), (2.0, "")]),  # 2 comes twice
        (Near(add=[-0.1, 0.1], low=1, high=2), [(0.9, "below low 1"), (1.1, "")]),
        (Near(multiply=[1, 3], low=1, high=1), [(1.0, ""), (3.0, "above high 1")]),  # ends are inside
        (Near(multiply=[0.1 + 0.2]), [(0.3, "")]),  # 12 digits
    ],
)
def test_values_around_one(near: Near, values: list[tuple[float, str]]) -> None:
    assert nearby_values(1.0, near) == values


def test_the_bounds_of_a_neighbourhood_are_inside() -> None:
    near = Near(multiply=[0.5, 2.0], low=0.5, high=2.0)
    assert nearby_values(1.0, near) == [(0.5, ""), (2.0, "")]
    narrower = Near(multiply=[0.5, 2.0], low=0.6, high=1.9)
    assert nearby_values(1.0, narrower) == [(0.5, "below low 0.6"), (2.0, "above high 1.9")]
