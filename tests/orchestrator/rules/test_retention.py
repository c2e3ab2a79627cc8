"""Which weights are kept, where the rules alone decide; tests/orchestrator/engine/test_collector.py has the rest."""

from __future__ import annotations

import math

import pytest

from orchestrator.records.states import TrialState
from orchestrator.rules.retention import Job, PlacedTrial, RetentionFacts, Trial, reasons, tied_for_first


def facts(
    *trials: Trial, stages: tuple[dict[str, object], ...] = ({"name": "only"},), pins: tuple[str, ...] = ()
) -> RetentionFacts:
    """A done job of these stages, whose trials are all in the stage that their name begins with."""
    places = [PlacedTrial("job", trial.name.partition("/")[0], "all", trial.key) for trial in trials]
    by_key = {trial.key: trial for trial in trials}
    return RetentionFacts(by_key, places, {"job": Job("job", True, {"stages": stages})}, [], dict.fromkeys(pins, ""))


def trial(
    key: str, state: TrialState = TrialState.done, stage: str = "only", *parents: str, kept: bool = True
) -> Trial:
    return Trial(key, f"{stage}/{key}", parents, state, f"/runs/{key}" if kept else None, 1, 1.0)


def kinds(of: RetentionFacts, key: str) -> list[str]:
    return [reason.kind for reason in reasons(of).get(key, [])]


@pytest.mark.parametrize(
    ("mode", "first"),
    [("max", ["b", "d"]), ("min", ["a", "c"])],
)
def test_those_that_are_tied_for_first_have_the_best_value(mode: str, first: list[str]) -> None:
    values = {"a": 1.0, "b": 3.0, "c": 1.0, "d": 3.0, "e": 2.0, "f": math.nan, "g": None, "h": math.inf}
    assert tied_for_first(values, mode) == first
    assert tied_for_first({"f": math.nan, "g": None}, mode) == []


def test_a_pinned_trial_without_weights_needs_its_parents_because_it_runs_once_more() -> None:
    stages = ({"name": "first", "sweep": {"grid": [{"optim.lr": [1, 2]}]}}, {"name": "only"})
    parent, child = trial("p", stage="first"), trial("c", TrialState.done, "only", "p", kept=False)
    assert kinds(facts(parent, child, stages=stages, pins=("c",)), "p") == ["needed"]
    assert kinds(facts(parent, child, stages=stages), "p") == []
    kept = trial("c", TrialState.done, "only", "p")
    assert kinds(facts(parent, kept, stages=stages, pins=("c",)), "p") == []
    diverged = trial("c", TrialState.diverged, "only", "p", kept=False)  # it never runs again
    assert kinds(facts(parent, diverged, stages=stages, pins=("c",)), "p") == []


@pytest.mark.parametrize("state", [state for state in TrialState if state is not TrialState.done])
def test_only_a_done_trial_is_the_end_of_its_job(state: TrialState) -> None:
    other = trial("b", state, kept=False)
    assert kinds(facts(trial("a"), other), "a") == ["last"]
    assert kinds(facts(trial("a"), other), "b") == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"from": ["first"]}),
        ({}, {"override": {"backbone.init": {"kind": "stage", "name": "X", "stage": "first"}}}),
    ],
)
def test_a_stage_that_another_builds_on_is_no_end(first: dict[str, object], second: dict[str, object]) -> None:
    stages = ({"name": "first", **first}, {"name": "second", **second})
    of = facts(trial("a", stage="first"), trial("b", stage="second"), stages=stages)
    assert kinds(of, "a") == []
    assert kinds(of, "b") == ["last"]
