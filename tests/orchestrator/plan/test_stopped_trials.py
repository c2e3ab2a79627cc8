"""Trials that a search stopped early, members of a population, and pinned trials, in the counts and the queue of the
planner."""

from __future__ import annotations

import itertools

import pytest
from k12_job import RAND, decision, done, figures, grid, placed, planner_of, take
from search_job import FROM_SEARCH, search

from orchestrator.plan.planner import Planner
from orchestrator.records.states import TrialSnapshot, TrialState
from tasks.backbones.spec import FromTrial
from workers.trial import Span


def searched(*lrs: float) -> tuple[Planner, list[str]]:
    """A planner whose open search has proposed a trial for each of these learning rates; the trials' keys."""
    planner = planner_of(search(), FROM_SEARCH)
    (group,) = planner.searches.groups()
    for lr in lrs:
        planner.searches.propose(group, {"point": {"optim.lr": lr, "optim.layer_decay": 0.85}})
    return planner, [each.key for each in placed(planner, "search")]


@pytest.mark.parametrize("order", itertools.permutations(["stop", "end", "close"]))
def test_a_stopped_trial_that_ends_with_a_result_all_the_same_counts_once(order: tuple[str, ...]) -> None:
    """Its end was on the way when the search stopped it. Counted twice, it would complete the group, and a winner would
    be chosen while the third trial still runs."""
    planner, (best, second, third) = searched(6e-4, 7e-4, 3e-3)
    (group,) = planner.searches.groups()
    by_key = {each.key: each for each in placed(planner, "search")}
    planner.update(second, done(by_key[second]))
    for event in order:
        if event == "stop":
            planner.searches.stop_early(group, best)
        elif event == "end":
            planner.update(best, done(by_key[best]))
        else:
            planner.searches.close(group)
        assert planner.decisions == []
    planner.update(third, done(by_key[third]))
    chosen = decision(planner, "final", group[1])
    assert (chosen.key, chosen.candidates) == (second, 2)  # the stopped one cannot win
    assert chosen.value == figures(by_key[second].spec)[chosen.metric]


def test_a_stopped_trial_that_is_stopped_again_counts_once() -> None:
    planner, (first, second, third) = searched(6e-4, 7e-4, 3e-3)
    (group,) = planner.searches.groups()
    planner.searches.stop_early(group, first)
    assert planner.searches.stop_early(group, first) == ([], [])
    planner.searches.close(group)
    by_key = {each.key: each for each in placed(planner, "search")}
    planner.update(second, done(by_key[second]))
    assert planner.decisions == []
    planner.update(third, done(by_key[third]))
    assert decision(planner, "final", group[1]).key == second


def test_a_pinned_trial_that_ends_without_its_weights_is_not_run_for_ever() -> None:
    """It was started with the order to keep them (the driver adds that to what is pinned), so to run it once more would
    end in the same way."""
    planner = planner_of(grid(dataset=["digits"], init=[RAND], lr=[1e-3], layer_decay=[0.9]))
    (only,) = placed(planner, "grid")
    planner.update(only.key, TrialSnapshot(TrialState.pending, pinned=True))
    (started,) = take(planner, 1)
    assert not started.keep_weights
    planner.update(only.key, TrialSnapshot(TrialState.done, figures=figures(only.spec), pinned=True))
    assert (planner.ready(), planner.finished()) == (0, True)


def test_a_trial_that_was_pinned_after_its_end_runs_once_more_for_its_weights() -> None:
    planner = planner_of(grid(dataset=["digits"], init=[RAND], lr=[1e-3], layer_decay=[0.9]))
    (only,) = take(planner, 1)
    planner.update(only.key, TrialSnapshot(TrialState.done, figures=figures(only.spec)))
    assert planner.finished()
    planner.update(only.key, TrialSnapshot(TrialState.done, figures=figures(only.spec), pinned=True))
    assert [each.key for each in take(planner, 1)] == [only.key]


def test_a_member_starts_from_the_weights_of_the_member_that_it_follows() -> None:
    """It waits until those are there. A part that ends before the schedule does cannot win."""
    planner = planner_of(search(), FROM_SEARCH)
    (group,) = planner.searches.groups()
    point = {"optim.lr": 6e-4, "optim.layer_decay": 0.85}
    first_body = {"point": point, "span": [0, 2], "parent": None}
    ((first,), _) = planner.searches.propose(group, first_body)
    assert (first.key, first.needs) == (planner.searches.key_at(group, first_body), ())
    body = {"point": point, "span": [2, 4], "parent": first.key}
    ((second,), _) = planner.searches.propose(group, body)
    assert second.key == planner.searches.key_at(group, body)
    assert (second.spec.span, second.needs) == (Span(first_epoch=2, last_epoch=4), (first.key,))
    assert second.spec.backbone.init == FromTrial(name="RAND", trial=first.key)
    assert take(planner, 1) == [first]
    assert planner.ready() == 0
    planner.update(first.key, TrialSnapshot(TrialState.done, figures(first.spec), weights=("/runs/1", "0" * 64)))
    assert take(planner, 1) == [second]
    planner.searches.close(group)
    planner.update(second.key, done(second))
    chosen = decision(planner, "final", group[1])
    assert (chosen.key, chosen.candidates) == (second.key, 1)


def test_a_trial_of_another_job_from_which_nothing_starts_changes_nothing() -> None:
    planner = planner_of(grid(dataset=["digits"], init=[RAND], lr=[1e-3], layer_decay=[0.9]))
    assert planner.update("f" * 64, TrialSnapshot(TrialState.done)) == ([], [])
    assert (planner.ready(), planner.outside()) == (1, [])
