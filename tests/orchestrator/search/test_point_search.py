"""A group's search by itself: its points, what it stops, and that it continues the same after a replay."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from orchestrator.records.rows import Edge, SearchEvent
from orchestrator.rules import selection
from orchestrator.search.point_search import PointSearch
from orchestrator.spec.search_space import AshaRule, Uniform, contains, middle, rounded, rungs, value_at
from orchestrator.spec.sweep import Search

RANGES = {
    "optim.lr": {"loguniform": [1e-4, 1e-2]},
    "optim.layer_decay": {"uniform": [0.6, 1]},
    "optim.batch": {"int": [8, 64], "log": True},
    "backbone.drop_path": {"choice": [0, 0.1, 0.2]},
}
EPOCHS = 20


def a_search(**fields: Any) -> Search:
    return Search.model_validate({"search": RANGES, "trials": 14, "startup": 5, "at_once": 3, **fields})


def key_of(body: Mapping[str, Any]) -> str | None:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]


def search_of(search: Search, key: Callable[[Mapping[str, Any]], str | None] = key_of) -> PointSearch:
    return PointSearch(search, "top1", "max", EPOCHS, key)


def made_up(point: Mapping[str, Any]) -> float:
    return -((math.log(point["optim.lr"] / 1e-3)) ** 2) - (point["optim.layer_decay"] - 0.8) ** 2


def finish(search: PointSearch, events: list[SearchEvent]) -> list[SearchEvent]:
    """Runs the search to its end, one trial after the other in the order of suggestion; returns all events."""
    events = list(events)
    ended = {e.key for e in events if e.kind in ("told", "stopped")}
    while True:
        while search.can_suggest():
            events.append(search.suggest())
        open_ = [e for e in events if e.kind == "asked" and e.key not in ended]
        if not open_:
            return events
        asked = open_[0]
        value = made_up(asked.body["point"])
        for epoch in range(1, EPOCHS + 1):
            judged = search.on_report(asked.key, epoch, value * (1 + 1 / epoch))
            if judged is not None:
                events.append(judged)
                if judged.kind == "stopped":
                    break
        else:
            result = search.on_result(asked.key, value if value > -3 else None)
            assert result is not None
            events.append(result)
        ended.add(asked.key)


ASHA = {"asha": {"grace_epochs": 2, "reduction_factor": 3}}
MEDIAN = {"median": {"grace_epochs": 4, "min_trials": 3}}


@pytest.mark.parametrize("sampler", ["tpe", "random", "quasi_random"])
def test_points_lie_in_their_ranges_and_the_seed_decides_them(sampler: str) -> None:
    search = a_search(sampler=sampler)
    events = finish(search_of(search), [])
    points = [e.body["point"] for e in events if e.kind == "asked"]
    assert len({json.dumps(point) for point in points}) == len(points) == 14
    for point in points:
        assert list(point) == list(RANGES)
        assert all(contains(search.search[path], value) for path, value in point.items())
        assert all(value == float(f"{value:.12g}") for value in point.values())
    assert finish(search_of(search), []) == events
    assert finish(search_of(a_search(sampler=sampler, seed=1)), []) != events


def test_tpe_learns_and_at_once_is_kept() -> None:
    search = a_search(trials=40, startup=10)
    events = finish(search_of(search), [])
    results = [e.body["value"] for e in events if e.kind == "told"]
    early, late = results[:10], results[-10:]
    assert sorted(v or -9 for v in late)[5] > sorted(v or -9 for v in early)[5]
    out = 0
    for event in events:
        out += {"asked": 1, "told": -1}[event.kind]
        assert out <= 3


@pytest.mark.parametrize(("stopping", "sampler"), [(ASHA, "tpe"), (MEDIAN, "tpe"), ("none", "quasi_random")])
def test_replayed_from_its_events_it_continues_the_same(stopping: Any, sampler: str) -> None:
    """At every event (of long ones at every ninth): the further points and decisions are those of the search that was
    never interrupted."""
    search = a_search(stopping=stopping, sampler=sampler)
    whole = finish(search_of(search), [])
    assert [event.number for event in whole] == list(range(len(whole)))
    for many in range(0, len(whole) + 1, 1 if len(whole) < 50 else 9):
        again = search_of(search)
        assert again.replay(whole[:many]) == []
        assert finish(again, whole[:many]) == whole


def test_rungs_after_a_restart_are_those_before() -> None:
    search = a_search(stopping=ASHA)
    before = search_of(search)
    events = finish(before, [])
    after = search_of(search)
    after.replay(events)
    rungs_after = after._rule.tune._brackets[0]._rungs  # type: ignore[attr-defined]
    assert rungs_after == before._rule.tune._brackets[0]._rungs  # type: ignore[attr-defined]
    assert sum(len(recorded) for _, recorded in rungs_after) > 14


def test_no_trial_is_stopped_for_want_of_forgotten_rivals_nor_spared() -> None:
    """Nine trials passed the first rung. The next is stopped if most were better, and goes on if it is the best; a
    scheduler that had forgotten them would let both go on."""
    search = a_search(stopping=ASHA, at_once=14)
    first = search_of(search)
    events = [first.suggest() for _ in range(14)]
    for number, event in enumerate(events[:9]):
        judged = first.on_report(event.key, 2, float(number))
        assert judged is not None
        events.append(judged)
    for value, kind in ((4.0, "stopped"), (8.5, "continued")):
        heirs = [search_of(search) for _ in range(2)]
        heirs[0].replay(events)
        judged = heirs[0].on_report(events[9].key, 2, value)
        assert judged is not None
        assert judged.kind == kind
        heirs[1].replay(events[:14])
        forgetful = heirs[1].on_report(events[9].key, 2, value)
        assert forgetful is not None
        assert forgetful.kind == "continued"


def test_a_trial_with_a_known_result_is_not_stopped_but_fills_its_rungs() -> None:
    search = search_of(a_search(stopping=ASHA, at_once=4))
    best, worse, third, fourth = (search.suggest() for _ in range(4))
    search.on_report(best.key, 2, 3.0)
    event = search.on_report(worse.key, 2, 1.0, ended=True)
    assert event is not None
    assert event.kind == "continued"
    assert search.on_result(worse.key, 1.0) is not None
    assert search.on_result(worse.key, 1.0) is None  # known already
    assert search.on_report(worse.key, 6, 1.0) is None
    between = search.on_report(third.key, 2, 2.5)  # above two thirds of 1 and 3
    assert between is not None
    assert between.kind == "continued"
    low = search.on_report(fourth.key, 2, 1.5)
    assert low is not None
    assert low.kind == "stopped"


def test_reports_that_decide_nothing_are_no_events() -> None:
    search = search_of(a_search(stopping=ASHA))
    asked = search.suggest()
    assert search.on_report(asked.key, 1, 0.5) is None
    assert search.on_report("another", 2, 0.5) is None
    assert search.on_report(asked.key, 2, None) is None
    assert search.on_report(asked.key, 2, math.nan) is None
    assert search.on_report(asked.key, 2, 0.5) is not None
    assert search.on_report(asked.key, 2, 0.5) is None  # repeated after a resume


def test_a_history_of_another_version_is_kept() -> None:
    """Points that this sampler would not draw (of an older optuna) count as history; the search continues."""
    search = a_search()
    whole = finish(search_of(search), [])
    odd = {**whole[1].body["point"], "optim.lr": 0.00123}
    key = str(key_of({"point": odd}))
    changed = [
        SearchEvent(e.number, e.kind, key if e.key == whole[1].key else e.key,
                    {"point": odd} if e.number == 1 else e.body)
        for e in whole[:20]
    ]  # fmt: skip
    again = search_of(search)
    (line,) = again.replay(changed)
    assert "optuna" in line
    rest = finish(again, changed)
    assert rest[:20] == changed
    asked = [e.key for e in rest if e.kind == "asked"]
    assert len(set(asked)) == len(asked) == 14


def test_no_point_is_asked_for_twice_and_a_small_space_ends() -> None:
    small = a_search(search={"backbone.drop_path": {"choice": [0, 0.1]}, "optim.batch": {"int": [1, 3]}}, trials=10)
    search = search_of(small)
    events = []
    while search.can_suggest():
        events.append(search.suggest())
        if events[-1].kind == "asked":
            search.on_result(events[-1].key, 1.0)
    assert [e.kind for e in events] == ["asked"] * 6 + ["exhausted"]
    assert len({e.key for e in events}) == 7
    assert "6 points" in events[-1].body["reason"]
    recorded = []
    again = search_of(small)
    for event in events:
        recorded.append(SearchEvent(len(recorded), event.kind, event.key, event.body))
        if event.kind == "asked":
            recorded.append(SearchEvent(len(recorded), "told", event.key, {"value": 1.0}))
    assert again.replay(recorded) == []
    assert again.finished()


def test_points_whose_values_do_not_go_together_are_passed_over() -> None:
    def even(body: Mapping[str, Any]) -> str | None:
        return key_of(body) if body["point"]["optim.batch"] % 2 == 0 else None

    search = a_search()
    events = finish(search_of(search, even), [])
    assert all(e.body["point"]["optim.batch"] % 2 == 0 for e in events if e.kind == "asked")
    again = search_of(search, even)
    assert again.replay(events) == []


def test_first_points_come_first() -> None:
    first = [{**middle(a_search().search), "optim.lr": lr, "backbone.drop_path": 0.2} for lr in (1e-3, 2e-3)]
    search = search_of(a_search(first=first))
    assert [search.suggest().body["point"] for _ in range(2)] == first


@pytest.mark.parametrize("rule", [(1, 3, 1), (2, 3, 2), (4, 2, 1), (5, 4, 1)])
def test_our_rungs_are_those_of_tune(rule: tuple[int, int, int]) -> None:
    """Contract with the pinned Ray: it decides after the epochs that `plan` and `validate` name."""
    from ray.tune.schedulers import AsyncHyperBandScheduler

    grace, factor, brackets = rule
    asha = AshaRule(grace_epochs=grace, reduction_factor=factor, brackets=brackets)
    tune = AsyncHyperBandScheduler(
        metric="m", mode="max", max_t=EPOCHS, grace_period=grace, reduction_factor=factor, brackets=brackets
    )
    for number, bracket in enumerate(tune._brackets):
        theirs = sorted(epoch for epoch, _ in bracket._rungs if epoch < EPOCHS)
        assert rungs(asha, EPOCHS, number) == theirs


def test_what_did_not_run_in_full_is_pruned_for_optuna() -> None:
    """Contract with the pinned Tune and Optuna: stopped and diverged trials count as bad, they are not ignored."""
    search = search_of(a_search(stopping=ASHA, at_once=5))
    good, stopped, diverged = search.suggest(), search.suggest(), search.suggest()
    search.on_report(good.key, 2, 3.0)
    search.on_report(stopped.key, 2, 1.0)
    search.on_result(good.key, 3.0)
    search.on_result(diverged.key, None)
    states = [trial.state.name for trial in search._sampler._optuna._ot_study.trials]
    assert states == ["COMPLETE", "PRUNED", "PRUNED"]


def test_median_stops_what_is_worse_than_half_of_the_others() -> None:
    search = search_of(a_search(stopping=MEDIAN, at_once=10))
    keys = [search.suggest().key for _ in range(5)]
    for value, key in enumerate(keys[:3]):
        for epoch in (4, 8):
            event = search.on_report(key, epoch, float(value))
            assert event is not None
            assert event.kind == "continued"
    for key, value, kind in ((keys[3], 0.5, "stopped"), (keys[4], 1.5, "continued")):
        event = search.on_report(key, 4, value)
        assert event is not None
        assert event.kind == kind


def test_a_trial_with_a_known_result_is_not_stopped_by_the_median_at_any_report() -> None:
    search = search_of(a_search(stopping=MEDIAN, at_once=10))
    keys = [search.suggest().key for _ in range(4)]
    for value, key in enumerate(keys[:3], 2):
        for epoch in (4, 8):
            search.on_report(key, epoch, float(value))
    events = [search.on_report(keys[3], epoch, 0.5, ended=True) for epoch in (4, 5, 6)]
    assert [event.kind for event in events if event] == ["continued"] * 3


def test_a_value_of_twelve_digits_stays_inside_its_range() -> None:
    values = Uniform(uniform=(1 / 3, 2 / 3))
    assert [contains(values, rounded(values, value)) for value in (1 / 3, 0.5, 2 / 3)] == [True] * 3


def test_a_range_ends_at_its_ends() -> None:
    ranges = a_search().search
    assert [value_at(ranges["optim.lr"], part) for part in (0, 0.5, 1)] == [1e-4, 1e-3, 1e-2]
    assert [value_at(ranges["optim.layer_decay"], part) for part in (0, 0.5, 1)] == [0.6, 0.8, 1]
    assert [value_at(ranges["optim.batch"], part) for part in (0, 1)] == [8, 64]
    assert [value_at(ranges["backbone.drop_path"], part) for part in (0, 0.5, 1)] == [0, 0.1, 0.2]
    assert not contains(ranges["optim.batch"], 8.5)
    assert not contains(ranges["optim.batch"], True)
    assert not contains(ranges["backbone.drop_path"], 0.3)


def test_a_winner_near_an_end_of_its_range_lies_on_an_edge() -> None:
    limits, choices = selection.search_ranges(a_search().model_dump(mode="json", by_alias=True)["search"])
    assert choices == {"backbone.drop_path": [0, 0.1, 0.2]}
    inside = {"optim.lr": 1e-3, "optim.layer_decay": 0.8, "optim.batch": 20}
    assert selection.edges(inside, {}, limits) == []
    outside = {"optim.lr": 9e-3, "optim.layer_decay": 0.6, "optim.batch": 80}
    assert selection.edges(outside, {}, limits) == [
        Edge("optim.lr", "high", False, 9e-3, 1e-2),
        Edge("optim.layer_decay", "low", False, 0.6, 0.6),
        Edge("optim.batch", "high", True, 80, 64),
    ]
