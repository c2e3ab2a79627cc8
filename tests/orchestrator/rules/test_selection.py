"""Which trial of a group wins, how ties are broken, and when a winner lies on an edge."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.records.rows import Edge, SearchEvent
from orchestrator.rules.selection import (
    Candidate,
    Setting,
    axis_values,
    barred_trials,
    best,
    compared,
    edges,
    mean_of,
    read_tie,
    search_ranges,
    seeds_of,
    trials_of,
)

TIES = ["figure:loss:min", "optim.lr:min", "optim.layer_decay:max"]


def candidate(key: str, top1: float | None = 1.0, loss: float | None = 1.0, **settings: Any) -> Candidate:
    given = {"top1": top1, "loss": loss}
    figures = {name: value for name, value in given.items() if value is not None}
    return Candidate(key, figures, {f"optim.{name}": value for name, value in settings.items()})


def winner(*candidates: Candidate, mode: str = "max") -> str | None:
    """The winner's key; checks that it does not depend on the order of the candidates."""
    winners = [best(order, "top1", mode, TIES) for order in itertools.permutations(candidates)]
    keys = {each.key if each else None for each in winners}
    assert len(keys) == 1
    return keys.pop()


def test_the_best_metric_wins_in_either_mode() -> None:
    assert winner(candidate("a", 1.0), candidate("b", 3.0), candidate("c", 2.0)) == "b"
    assert winner(candidate("a", 1.0), candidate("b", 3.0), candidate("c", 2.0), mode="min") == "a"


@pytest.mark.parametrize("worst", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_metric_that_is_no_finite_number_never_wins(worst: float | None, mode: str) -> None:
    assert winner(candidate("a", worst), candidate("b", -5.0), mode=mode) == "b"
    assert winner(candidate("a", worst), candidate("b", worst), mode=mode) is None


def test_nobody_wins_among_none() -> None:
    assert best([], "top1", "max") is None


def test_ties_are_broken_in_their_order_and_last_by_key() -> None:
    assert winner(candidate("a", loss=2.0, lr=0.1), candidate("b", loss=1.0, lr=0.2)) == "b"
    assert winner(candidate("a", lr=0.2), candidate("b", lr=0.1)) == "b"
    assert winner(candidate("a", lr=0.1, layer_decay=0.8), candidate("b", lr=0.1, layer_decay=0.9)) == "b"
    assert winner(candidate("b", lr=0.1), candidate("a", lr=0.1)) == "a"


@pytest.mark.parametrize("loss", [None, math.nan, math.inf])
def test_a_missing_or_non_finite_tie_counts_worst(loss: float | None) -> None:
    assert winner(candidate("a", loss=loss), candidate("b", loss=9.0)) == "b"


@pytest.mark.parametrize("value", [True, "0.05", None, [0.05]])
def test_a_setting_that_is_no_number_counts_worst(value: Any) -> None:
    assert winner(candidate("a", lr=value), candidate("b", lr=0.1)) == "b"


def test_ties_are_read() -> None:
    assert (read_tie("figure:loss:min").figure, read_tie("figure:loss:min").largest) == (True, False)
    assert (read_tie("optim.lr:max").name, read_tie("optim.lr:max").largest) == ("optim.lr", True)


@pytest.mark.parametrize("text", ["", "optim.lr", "optim.lr:most", "figure:min", "figure::min", ":min", "a:b:c:min"])
def test_a_tie_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        read_tie(text)


def test_a_mode_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="largest"):
        best([candidate("a")], "top1", "largest")


def seeds(lr: float, *values: float | None, stage: str = "grid") -> list[tuple[str, Candidate]]:
    """The replicates of a setting, with these values of top-1 (None: diverged) at the seeds 0, 1, .."""
    return [
        (stage, Candidate(
            f"{lr}-{stage}-{seed}", {} if value is None else {"top1": value, "loss": 1.0},
            {"optim.lr": lr, "seed": seed}, seed,
        ))
        for seed, value in enumerate(values)
    ]  # fmt: skip


def winner_over_seeds(*settings: list[tuple[str, Candidate]]) -> Candidate | None:
    """The winner; checks that it does not depend on the order of the trials."""
    trials = [trial for setting in settings for trial in setting]
    found = [best(compared(order, ["grid", "refine"]), "top1", "max", TIES) for order in (trials, trials[::-1])]
    assert found[0] == found[1]
    return found[0]


def test_settings_are_compared_by_their_means_over_the_seeds() -> None:
    taken = winner_over_seeds(seeds(0.1, 90.0, 10.0, 11.0), seeds(0.2, 39.0, 40.0, 44.0))
    assert isinstance(taken, Setting)
    assert (taken.key, taken.seed, taken.figures["top1"], taken.settings) == ("0.2-grid-0", 0, 41.0, {"optim.lr": 0.2})
    assert taken.of_each("top1") == [39.0, 40.0, 44.0]
    assert [trial.key for trial in trials_of(taken)] == ["0.2-grid-0", "0.2-grid-1", "0.2-grid-2"]
    assert seeds_of(taken, "top1") == {"seeds": [0, 1, 2], "values": [39.0, 40.0, 44.0]}


def test_equal_means_are_ordered_by_the_mean_of_the_ties_figure_then_by_settings_then_by_the_first_seeds_key() -> None:
    lower = [(stage, replace(trial, figures={**trial.figures, "loss": loss}))
             for (stage, trial), loss in zip(seeds(0.2, 1.0, 3.0), (0.1, 1.7), strict=True)]  # fmt: skip
    for means in (seeds(0.1, 2.0, 2.0), seeds(0.1, 3.0, 1.0)):
        taken = winner_over_seeds(means, lower)
        assert taken is not None
        assert (taken.key, taken.figures["loss"]) == ("0.2-grid-0", pytest.approx(0.9))
    by_settings = winner_over_seeds(seeds(0.2, 2.0, 2.0), seeds(0.1, 3.0, 1.0))
    by_key = winner_over_seeds(seeds(0.1, 2.0, 2.0, stage="refine"), seeds(0.1, 3.0, 1.0))
    assert by_settings is not None
    assert by_key is not None
    assert (by_settings.key, by_key.key) == ("0.1-grid-0", "0.1-grid-0")


def test_a_setting_with_a_diverged_seed_ranks_below_all_without() -> None:
    taken = winner_over_seeds(seeds(0.1, 90.0, None, 90.0), seeds(0.2, 1.0, 2.0, 3.0), seeds(0.3, math.inf, 9.0, 9.0))
    assert taken is not None
    assert taken.key == "0.2-grid-0"
    assert winner_over_seeds(seeds(0.1, 90.0, None), seeds(0.2, None, None), seeds(0.3, math.nan, 1.0)) is None


def test_a_figure_that_one_seed_lacks_has_no_mean() -> None:
    with_loss, without = seeds(0.1, 1.0, 3.0)
    setting = mean_of([with_loss[1], replace(without[1], figures={"top1": 3.0})])
    assert setting.figures == {"top1": 2.0}


def test_a_mean_does_not_depend_on_the_order_of_its_sum_and_of_one_value_is_that_value() -> None:
    trials = [trial for _, trial in seeds(0.1, 1e16, 1.0, -1e16, 2.0)]
    assert {mean_of(order).figures["top1"] for order in itertools.permutations(trials)} == {0.75}
    assert mean_of(trial for _, trial in seeds(0.1, 0.1)).figures["top1"] == 0.1


def test_trials_of_stages_without_replicates_are_compared_one_by_one() -> None:
    trials = [*seeds(0.1, 1.0, 9.0), *seeds(0.1, 2.0, 4.0, stage="refine"), *seeds(0.1, 7.0)]
    found = compared(trials, ["refine"])
    assert [(each.key, each.figures["top1"]) for each in found] == [
        ("0.1-grid-0", 1.0), ("0.1-grid-1", 9.0), ("0.1-refine-0", 3.0),
    ]  # fmt: skip
    assert seeds_of(found[0], "top1") == {}
    assert [each.key for each in trials_of(found[0])] == ["0.1-grid-0"]


def test_one_replicate_records_no_seeds() -> None:
    assert seeds_of(mean_of(trial for _, trial in seeds(0.1, 1.0)), "top1") == {}


def test_a_seed_has_no_edge() -> None:
    assert edges({"seed": 0}, {"seed": [0, 1, 2]}, {"seed": (0.0, 9.0, False)}) == []


AXES = {"optim.lr": [1e-4, 5e-4, 2.5e-3], "optim.layer_decay": [0.75, 0.95]}


@pytest.mark.parametrize(
    ("lr", "decay", "expected"),
    [
        (5e-4, 0.85, []),
        (1e-4, 0.85, [Edge("optim.lr", "low", False, 1e-4, 1e-4)]),
        (
            2.5e-3,
            0.95,
            [Edge("optim.lr", "high", False, 2.5e-3, 2.5e-3), Edge("optim.layer_decay", "high", False, 0.95, 0.95)],
        ),
        (7e-5, 0.85, [Edge("optim.lr", "low", True, 7e-5, 1e-4)]),
        (3.5e-3, 0.85, [Edge("optim.lr", "high", True, 3.5e-3, 2.5e-3)]),
    ],
)
def test_a_winner_on_or_beyond_an_end_of_the_grid_is_reported(lr: float, decay: float, expected: list[Edge]) -> None:
    assert edges({"optim.lr": lr, "optim.layer_decay": decay}, AXES) == expected


def test_only_numeric_axes_with_several_values_have_edges() -> None:
    winner = {"optim.lr": 1e-3, "optim.schedule": "cosine", "runtime.compile": True, "optim.clip": 5.0}
    axes = {
        "optim.lr": [1e-3],
        "optim.schedule": ["cosine", "step"],
        "runtime.compile": [True, False],
        "optim.layer_decay": [0.75, 0.95],
    }
    assert edges(winner, axes) == []


def test_the_values_of_axes_are_those_that_rows_have_each_once() -> None:
    rows = [{"a": 2, "b": [1]}, {"a": 1, "b": [1]}, {"a": 2}]
    assert axis_values(rows, ["a", "b", "c"]) == {"a": [2, 1], "b": ["[1]"], "c": []}


@pytest.mark.parametrize("log", [False, True], ids=["even", "logarithmic"])
@pytest.mark.parametrize(
    ("share", "side", "beyond"),
    [(-0.01, "low", True), (0.0, "low", False), (0.05, "low", False), (0.06, "", False), (0.5, "", False),
     (0.94, "", False), (0.95, "high", False), (1.0, "high", False), (1.01, "high", True)],
)  # fmt: skip
def test_a_value_within_a_twentieth_of_an_end_of_its_range_lies_at_it(
    share: float, side: str, beyond: bool, log: bool
) -> None:
    """Of the range or of its logarithm: from 2 to 32, in halves exact in binary where the share is 0.5."""
    low, high = 2.0, 32.0
    nudge = 1e-12 if share in (0.05, 0.06) else 0.0  # rounding must not decide
    share += -nudge if side == "low" else nudge
    value = low * (high / low) ** share if log else low + share * (high - low)
    found = edges({"x": value}, {}, {"x": (low, high, log)})
    assert found == ([Edge("x", side, beyond, value, low if side == "low" else high)] if side else [])  # type: ignore[arg-type]


def test_a_candidate_that_comes_twice_is_one() -> None:
    assert best([candidate("b"), candidate("a"), candidate("a")], "top1", "max") == candidate("a")


def test_the_twentieth_itself_counts_and_a_range_may_lie_below_one() -> None:
    assert edges({"x": 5.0}, {}, {"x": (0.0, 100.0, False)}) == [Edge("x", "low", False, 5.0, 0.0)]
    assert edges({"x": 95.0}, {}, {"x": (0.0, 100.0, False)}) == [Edge("x", "high", False, 95.0, 100.0)]
    assert edges({"x": 1e-4}, {}, {"x": (1e-4, 1e-2, True)}) == [Edge("x", "low", False, 1e-4, 1e-4)]


def test_a_range_in_the_logarithm_is_not_even() -> None:
    assert edges({"x": 2.5}, {}, {"x": (2.0, 32.0, True)}) == []
    assert edges({"x": 2.5}, {}, {"x": (2.0, 32.0, False)}) == [Edge("x", "low", False, 2.5, 2.0)]


@pytest.mark.parametrize("value", [None, "3", True, math.nan, math.inf, 0.0, -1.0])
def test_what_is_no_point_of_a_logarithmic_range_has_no_edge(value: Any) -> None:
    assert edges({"x": value}, {}, {"x": (2.0, 32.0, True)}) == []
    assert edges({}, {}, {"x": (2.0, 32.0, True)}) == []


def test_edges_of_axes_come_before_those_of_ranges_each_in_its_order() -> None:
    settings = {"a": 1, "b": 2, "c": 1.0, "d": 9.0}
    found = edges(settings, {"b": [1, 2], "a": [1, 2]}, {"d": (1.0, 9.0, False), "c": (1.0, 9.0, False)})
    assert [(edge.path, edge.side) for edge in found] == [("b", "high"), ("a", "low"), ("d", "high"), ("c", "low")]


def test_the_recorded_forms_of_ranges_and_choices_are_read() -> None:
    search = {
        "a": {"uniform": [1, 2]}, "b": {"loguniform": [1e-4, 1]}, "c": {"int": [8, 64], "log": True},
        "d": {"int": [1, 3]}, "e": {"choice": [1, [2], None]}, "f": {"int": [1, 9], "log": False},
    }  # fmt: skip
    ranges, choices = search_ranges(search)
    assert ranges == {
        "a": (1.0, 2.0, False), "b": (1e-4, 1.0, True), "c": (8.0, 64.0, True), "d": (1.0, 3.0, False),
        "f": (1.0, 9.0, False),
    }  # fmt: skip
    assert all(isinstance(end, float) for low, high, _ in ranges.values() for end in (low, high))
    assert choices == {"e": [1, "[2]", None]}


def test_what_a_search_stopped_or_passed_through_cannot_win() -> None:
    def event(kind: Any, key: str, **body: Any) -> SearchEvent:
        return SearchEvent(0, kind, key, body)

    events = {
        ("search", "digits"): [
            event("asked", "a"), event("asked", "b", passing=True), event("stopped", "c"), event("told", "d"),
            event("continued", "e", passing=False),
        ],
        ("search", "faces"): [event("stopped", "a")],
    }  # fmt: skip
    assert barred_trials(events) == {("search", "digits", "b"), ("search", "digits", "c"), ("search", "faces", "a")}
