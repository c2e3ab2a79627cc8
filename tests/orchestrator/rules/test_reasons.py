"""Each reason to keep weights, in words, from made-up facts."""

from __future__ import annotations

import dataclasses
from typing import Any

from orchestrator.records.states import TrialState
from orchestrator.rules.retention import (
    GroupCandidates,
    Job,
    PlacedTrial,
    RetentionFacts,
    Trial,
    reasons,
)
from orchestrator.rules.selection import Candidate

SEARCH = {"search": {"optim.lr": {"loguniform": [1e-4, 1e-2]}}, "trials": 4}
SEVERAL = {"grid": [{"optim.lr": [1, 2]}]}
"""Of a stage that is no end of its job."""


def trial(key: str, state: TrialState = TrialState.done, parents: str = "", kept: bool = True) -> Trial:
    return Trial(key, f"name-{key}", tuple(parents), state, f"/w/{key}" if kept else None, 1, 1.0)


def facts(
    *trials: Trial, stages: list[dict[str, Any]] | None = None, done: bool = True, **other: Any
) -> RetentionFacts:
    """One job, `j`, that has all trials in its stage `grid`, group `digits`."""
    spec = {"stages": stages if stages is not None else [{"name": "grid", "sweep": SEVERAL}]}
    places = [PlacedTrial("j", "grid", "digits", each.key) for each in trials]
    return RetentionFacts({each.key: each for each in trials}, places, {"j": Job("j", done, spec)}, **other)


def texts(of: RetentionFacts) -> dict[str, list[str]]:
    return {key: [f"{reason.kind}: {reason.text}" for reason in found] for key, found in reasons(of).items()}


def test_without_a_reason_a_trial_is_left_out() -> None:
    assert texts(facts(trial("a"), trial("b"))) == {}


def test_a_pin_is_of_a_trial_or_of_all_trials_of_a_job() -> None:
    assert texts(facts(trial("a"), trial("b"), pins={"a": "table 1"})) == {"a": ["pinned: pinned: table 1"]}
    assert texts(facts(trial("a"), trial("b"), pins={"a": ""})) == {"a": ["pinned: pinned"]}
    of_job = texts(facts(trial("a"), trial("b"), pins={"j": "table 1", "gone": ""}))
    assert of_job == {key: ["pinned: job j is pinned: table 1"] for key in "ab"}


def test_the_parents_of_a_trial_that_may_run_are_needed_up_to_one_that_has_weights() -> None:
    """d runs, from c without weights, from b with; a is not needed."""
    chain = (trial("a"), trial("b", parents="a"), trial("c", parents="b", kept=False))
    for state in (TrialState.pending, TrialState.running, TrialState.failed, TrialState.stopped):
        found = texts(facts(*chain, trial("d", state, "c", kept=False)))
        text = f"needed: {state} name-d starts from it"
        assert found == {"c": [text], "b": [text]}
    for state in (TrialState.done, TrialState.diverged):
        assert texts(facts(*chain, trial("d", state, "c", kept=False))) == {}


def test_a_circle_or_a_parent_that_is_not_there_ends_the_search_for_parents() -> None:
    running = trial("c", TrialState.running, "bx", kept=False)
    found = texts(facts(trial("a", parents="b", kept=False), trial("b", parents="ax", kept=False), running))
    assert found.keys() == {"a", "b"}


def test_two_children_are_two_reasons_and_one_child_is_one() -> None:
    both = [trial("b", TrialState.running, "a", kept=False), trial("c", TrialState.pending, "aa", kept=False)]
    assert texts(facts(trial("a"), *both)) == {
        "a": ["needed: running name-b starts from it", "needed: pending name-c starts from it"]
    }


def weights(init: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "grid", "sweep": SEVERAL}, {"name": "next", "override": {"backbone.init": init}}]


def test_a_job_that_is_not_done_keeps_what_its_stages_start_from() -> None:
    stage = weights({"kind": "stage", "name": "X", "stage": "grid"})
    text = "unfinished: job j is not done and starts from its stage"
    assert texts(facts(trial("a"), trial("b"), stages=stage, done=False)) == {"a": [text], "b": [text]}
    assert texts(facts(trial("a"), stages=stage)) == {}
    other_stage = weights({"kind": "stage", "name": "X", "stage": "other"})
    assert texts(facts(trial("a"), stages=other_stage, done=False)) == {}
    other_job = weights({"kind": "stage", "name": "X", "stage": "grid", "job": "k"})
    assert texts(facts(trial("a"), stages=other_job, done=False)) == {}
    by_key = weights({"kind": "trial", "name": "X", "trial": "b"})
    found = texts(facts(trial("a"), trial("b"), stages=by_key, done=False))
    assert found == {"b": ["unfinished: job j is not done and starts from it"]}


def test_a_search_that_may_continue_keeps_all_its_trials() -> None:
    stages = [{"name": "grid", "sweep": SEARCH}]
    text = "unfinished: the search of job j may continue from it"
    assert texts(facts(trial("a"), trial("b"), stages=stages, done=False)) == {"a": [text], "b": [text]}
    assert texts(facts(trial("a"), stages=stages)) == {}


def test_a_done_job_does_not_hide_one_that_is_not() -> None:
    of = facts(trial("a"), stages=[{"name": "grid", "sweep": SEARCH}])
    other = Job("k", False, {"stages": [{"name": "grid", "sweep": SEARCH}]})
    place = PlacedTrial("k", "grid", "digits", "a")
    both = dataclasses.replace(of, jobs={**of.jobs, "k": other}, places=[*of.places, place])
    assert texts(both) == {"a": ["unfinished: the search of job k may continue from it"]}


def test_what_a_stage_chose_is_kept_with_the_place_of_the_choice() -> None:
    chosen = [PlacedTrial("j", "final", "digits", "a"), PlacedTrial("j", "final", "digits", "gone")]
    assert texts(facts(trial("a"), trial("b"), chosen=chosen)) == {"a": ["chosen: chosen by final for digits in job j"]}


def candidates(mode: str, ties: bool = False, **values: float) -> dict[str, Any]:
    found = [Candidate(key, {"top1": value, "loss": ord(key)}, {}) for key, value in values.items()]
    stages = [{"name": "grid", "sweep": SEVERAL, "ties": ["figure:loss:max"] if ties else []}]
    return {"candidates": {("j", "grid", "digits"): GroupCandidates("top1", mode, found)}, "stages": stages}


def test_the_best_of_a_group_is_kept_by_its_metric_and_tie_rule() -> None:
    trials = trial("a"), trial("b"), trial("c")
    for mode, best in (("max", "b"), ("min", "a")):
        found = texts(facts(*trials, **candidates(mode, a=1.0, b=3.0, c=2.0)))
        assert found == {best: ["best: best of grid digits in job j"]}
    two = texts(facts(*trials, **candidates("max", a=1.0, b=2.0)))
    assert two == {"b": ["best: best of grid digits in job j"]}
    assert texts(facts(*trials, **candidates("max", a=1.0))) == {"a": ["best: only one of grid digits in job j"]}
    assert texts(facts(*trials, **candidates("max", a=1.0, b=1.0))).keys() == {"a"}
    assert texts(facts(*trials, **candidates("max", ties=True, a=1.0, b=1.0))).keys() == {"b"}
    assert texts(facts(*trials, **candidates("max", a=float("nan")))) == {}
    of = facts(*trials, **candidates("max", ties=True, a=1.0, b=1.0))
    assert texts(dataclasses.replace(of, jobs={})).keys() == {"a"}, "a job that is gone has no tie rule"
    for spec in ({}, {"stages": [{"name": "another"}]}):
        renamed = {"j": Job("j", False, spec)}
        assert texts(dataclasses.replace(of, jobs=renamed)).keys() == {"a"}, "nor has a stage that is gone"


def test_all_replicates_of_the_best_setting_are_kept() -> None:
    """The best mean; and until all of its seeds have ended, what may still be the best."""
    values = {"a": (0.1, 0, 9.0), "b": (0.1, 1, 1.0), "c": (0.2, 0, 6.0), "d": (0.2, 1, 7.0), "e": (0.3, 0, 8.0)}
    trials = [trial(key) for key in values]
    for count in (2, {"n": 2, "first": 0}):
        for known, best in (("abcd", {"c", "d"}), ("abcde", {"c", "d", "e"})):
            found = [
                Candidate(key, {"top1": value}, {"optim.lr": lr, "seed": seed}, seed)
                for key, (lr, seed, value) in values.items()
                if key in known
            ]
            group = {("j", "grid", "digits"): GroupCandidates("top1", "max", found)}
            stages = [{"name": "grid", "sweep": SEVERAL, "replicates": count}]
            kept = texts(facts(*trials, candidates=group, stages=stages))
            assert kept == {key: ["best: best of grid digits in job j"] for key in sorted(best)}


def test_the_reasons_come_strongest_first() -> None:
    stages = [{"name": "grid"}]
    of = facts(
        trial("a"), trial("b", TrialState.running, "a"), stages=stages, pins={"a": ""}, done=False,
        chosen=[PlacedTrial("j", "final", "digits", "a")], candidates=candidates("max", a=1.0)["candidates"],
    )  # fmt: skip
    assert [text.partition(":")[0] for text in texts(of)["a"]] == ["pinned", "needed", "chosen", "best", "last"]
    assert texts(of)["a"][-1] == "last: the end of job j"
