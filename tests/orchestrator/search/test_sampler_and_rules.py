"""The direction of a search, and what Tune and Optuna are told of the trials that a search tries."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from orchestrator.records.rows import SearchEvent
from orchestrator.search.early_stopping import StoppingRule, stopping_rule
from orchestrator.search.point_search import PointSearch
from orchestrator.search.sampler import Sampler, _sampler
from orchestrator.spec.sweep import Search

EPOCHS = 20
RANGES = {"optim.lr": {"loguniform": [1e-4, 1e-2]}, "optim.batch": {"int": [8, 64], "log": True}}
ASHA = {"asha": {"grace_epochs": 2, "reduction_factor": 3}}
MEDIAN = {"median": {"grace_epochs": 4, "min_trials": 3}}


def a_search(**fields: Any) -> Search:
    return Search.model_validate({"search": RANGES, "trials": 14, "startup": 5, "at_once": 3, **fields})


def key_of(body: Mapping[str, Any]) -> str | None:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]


def whole(search: PointSearch, sign: float) -> list[SearchEvent]:
    """All events of a search whose trials have `sign` times a score that is best at lr 1e-3; one in five diverges."""
    events: list[SearchEvent] = []
    while search.can_suggest():
        event = search.suggest()
        events.append(event)
        if event.kind != "asked":
            break
        score = -(math.log(event.body["point"]["optim.lr"] / 1e-3) ** 2)
        for epoch in range(1, EPOCHS + 1):
            judged = search.on_report(event.key, epoch, sign * score * (1 + 1 / epoch))
            events += [judged] if judged else []
        result = search.on_result(event.key, None if int(event.key, 16) % 5 == 0 else sign * score)
        events += [result] if result else []
    return events


@pytest.mark.parametrize("stopping", ["none", ASHA, MEDIAN], ids=["none", "asha", "median"])
def test_the_lowest_loss_is_looked_for_as_the_highest_score_is(stopping: Any) -> None:
    search = a_search(stopping=stopping, trials=30)
    highest = whole(PointSearch(search, "top1", "max", EPOCHS, key_of), 1)
    lowest = whole(PointSearch(search, "loss", "min", EPOCHS, key_of), -1)
    assert [(event.kind, event.key) for event in lowest] == [(event.kind, event.key) for event in highest]
    lrs = [event.body["point"]["optim.lr"] for event in lowest if event.kind == "asked"]
    away = [abs(math.log(lr / 1e-3)) for lr in lrs]
    assert sum(away[-10:]) < sum(away[:10]), "later points lie nearer to the best one"
    if stopping != "none":
        assert any(event.kind == "stopped" for event in lowest)


def test_the_median_rule_counts_trials_that_ran_in_full() -> None:
    """Three trials of which each reported after epoch 4 alone and then ended: at epoch 8 a worse one is stopped."""
    search = PointSearch(a_search(stopping=MEDIAN, at_once=5), "top1", "max", EPOCHS, key_of)
    *full, judged = (search.suggest().key for _ in range(4))
    for key in full:
        search.on_report(key, 4, 0.9)
        search.on_result(key, 0.9)
    event = search.on_report(judged, 8, 0.1)
    assert event is not None
    assert event.kind == "stopped"


def test_a_diverged_trial_is_no_result_for_the_median_rule() -> None:
    search = PointSearch(a_search(stopping=MEDIAN, at_once=5), "top1", "max", EPOCHS, key_of)
    *full, judged = (search.suggest().key for _ in range(4))
    for key, value in zip(full, (0.9, 0.9, None), strict=True):
        search.on_report(key, 4, 0.9)
        search.on_result(key, value)
    event = search.on_report(judged, 8, 0.1)
    assert event is not None
    assert event.kind == "continued"


@pytest.mark.parametrize("brackets", [1, 3])
def test_a_search_draws_nothing_from_numpys_global_generator(brackets: int) -> None:
    np.random.seed(7)
    state = np.random.get_state()
    stopping = {"asha": {"grace_epochs": 1, "reduction_factor": 2, "brackets": brackets}}
    search = PointSearch(a_search(stopping=stopping), "top1", "max", EPOCHS, key_of)
    key = search.suggest().key
    search.on_report(key, 2, 0.5)
    search.on_result(key, 0.5)
    after = np.random.get_state()
    assert after[0] == state[0]
    assert np.array_equal(after[1], state[1])
    assert after[2:] == state[2:]


def states(sampler: Sampler) -> list[str]:
    """The states of Optuna's trials, in the order in which they were added."""
    return [trial.state.name for trial in sampler._optuna._ot_study.trials]


def test_a_point_of_elsewhere_counts_with_its_result_and_one_without_as_bad() -> None:
    """Contract with the pinned Tune and Optuna: without a value a point is pruned, which counts as bad."""
    sampler = Sampler(a_search(), "top1", "max", [])
    for number, value in enumerate((0.9, None)):
        sampler.add(f"own{number}", {"optim.lr": 1e-3, "optim.batch": 16 + number})
        sampler.report(f"own{number}", 1, 0.5)
        sampler.end(f"own{number}", value)
    assert states(sampler) == ["COMPLETE", "PRUNED"]
    good, bad = sampler._optuna._ot_study.trials
    assert (good.value, bad.value) == (0.9, None)
    assert good.params == {"optim.lr": 1e-3, "optim.batch": 16}


def test_a_point_that_is_not_tried_is_closed_in_optuna() -> None:
    """Of the points that the sampler drew, only those of running trials stay open: an open one counts as a bad result
    for those drawn beside it."""

    def even(body: Mapping[str, Any]) -> str | None:
        return key_of(body) if body["point"]["optim.batch"] % 2 == 0 else None

    search = PointSearch(a_search(at_once=10), "top1", "max", EPOCHS, even)
    asked = [search.suggest() for _ in range(10)]
    count = Counter(states(search._sampler))
    assert count["RUNNING"] == 10
    assert count["FAIL"] > 0, "some draws were odd"
    for event in asked:
        search.on_result(event.key, 0.5)
    count = Counter(states(search._sampler))
    assert (count["RUNNING"], count["COMPLETE"]) == (0, 10)


def test_points_that_are_suggested_together_keep_apart_by_optunas_constant_liar() -> None:
    """Contract with the pinned Optuna: without it, points asked for before any of them has a result lie together."""
    together = _sampler(a_search(at_once=2))
    assert together._constant_liar is True
    assert _sampler(a_search(at_once=1))._constant_liar is False
    assert together._n_startup_trials == 5


def test_one_seed_draws_one_list_of_points_from_every_sampler() -> None:
    for sampler in ("tpe", "random", "quasi_random"):
        lists = []
        for seed in (3, 3, 4):
            drawn = Sampler(a_search(sampler=sampler, seed=seed), "top1", "max", [])
            lists.append([drawn.suggest(str(number)) for number in range(4)])
        assert lists[0] == lists[1] != lists[2]


@pytest.mark.parametrize(("sampler", "learns"), [("tpe", True), ("random", False), ("quasi_random", False)])
def test_results_move_the_points_of_tpe_alone(sampler: str, learns: bool) -> None:
    """Random points that followed the results would be no baseline for TPE."""
    search = a_search(sampler=sampler, trials=20, at_once=1)
    high, low = (whole(PointSearch(search, "top1", "max", EPOCHS, key_of), sign) for sign in (1, -1))
    points = [[event.body["point"] for event in events if event.kind == "asked"] for events in (high, low)]
    assert len(points[0]) == 20
    assert points[0][:5] == points[1][:5]
    assert (points[0] != points[1]) is learns


def test_without_a_rule_no_report_matters_and_no_trial_stops() -> None:
    rule = stopping_rule(a_search(stopping="none"), "top1", "max", EPOCHS)
    assert type(rule) is StoppingRule
    rule.begin("a", 1)
    assert not any(rule.listens(epoch) or rule.stops("a", epoch, -1e9) for epoch in range(1, EPOCHS + 1))


def test_the_median_rule_listens_after_every_epoch_but_the_last() -> None:
    rule = stopping_rule(a_search(stopping=MEDIAN), "top1", "max", EPOCHS)
    assert [epoch for epoch in range(EPOCHS + 2) if rule.listens(epoch)] == list(range(1, EPOCHS))
