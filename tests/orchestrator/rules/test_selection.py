"""Which trial of a group wins, how ties are broken, and when a winner lies on an edge."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from orchestrator.records.rows import Edge
from orchestrator.rules.selection import Candidate, axis_values, best, edges, read_tie

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
