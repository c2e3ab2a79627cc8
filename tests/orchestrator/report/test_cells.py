"""What a cell of the table says, from plain rows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.records.rows import MetricRow, PlacedRow
from orchestrator.records.states import TrialState
from orchestrator.report.cells import CellSource, make_cell, shown_trials
from orchestrator.report.marks import mark_of
from orchestrator.report.replicates import best_first, by_setting
from orchestrator.report.wording import cell_text

TOP1 = MetricRow("top1", "top-1 accuracy", "higher", "%", 100.0, 1)


def row(key: str, value: float | None = 0.5, state: TrialState = TrialState.done, **fields: Any) -> PlacedRow:
    given: dict[str, Any] = {
        "stage": "final", "group": "digits", "name": key, "position": 0, "metric": "top1", "mode": "max", "epoch": 3,
        "epochs": 9, "seed": 0, "started": None, "ended": None, "train_seconds": None, "error_class": None,
        "error": None, "group_values": {}, "settings": {},
    }  # fmt: skip
    return PlacedRow(key=key, value=value, state=state, **{**given, **fields})


def cell_of(*trials: PlacedRow, **values: float | None) -> Any:
    return make_cell(CellSource("SUP", "digits", trials), TOP1, values, None, {})


@pytest.mark.parametrize("lacking", [math.nan, math.inf, None])
def test_a_figure_that_is_no_number_is_no_part_of_a_mean_over_the_others(lacking: float | None) -> None:
    cell = cell_of(row("a", seed=4), row("b", seed=5), row("c", seed=6), a=0.9, b=lacking, c=0.7)
    assert (cell.state, cell.value, cell.interval) == ("diverged", None, None)
    assert (cell.values, cell.seeds) == (pytest.approx((90, 70)), (4, 6))
    assert cell.reason == "the figure is not a finite number; the others: 90.0 (seed 4), 70.0 (seed 6)"
    assert cell_text(cell) == "diverged in 1 of 3 seeds"
    alone = cell_of(row("b"), b=lacking)
    assert (alone.value, alone.reason, cell_text(alone)) == (None, "the figure is not a finite number", "diverged")


def test_the_value_is_the_mean_of_all_seeds_in_the_unit_of_the_figure() -> None:
    cell = cell_of(row("a", seed=0), row("b", seed=1), row("c", seed=2), a=0.9, b=0.8, c=0.7)
    assert (cell.state, cell.reason, cell.seeds, cell.wanted) == ("done", "", (0, 1, 2), 3)
    assert cell.values == pytest.approx((90, 80, 70))
    assert cell.value == pytest.approx(80)
    assert cell.interval == pytest.approx(4.302653 * 10 / math.sqrt(3))  # t(0.975) with 2 degrees of freedom


def test_two_seeds_are_both_shown_and_have_no_interval() -> None:
    cell = cell_of(row("a", seed=0), row("b", seed=1), a=0.9, b=0.8)
    assert (cell.value, cell.interval) == (pytest.approx(85), None)
    assert cell_text(cell) == cell_text(cell, with_n=True) == "90.0 / 80.0"
    one = cell_of(row("a", seed=0), a=0.9)
    assert (cell_text(one), cell_text(one, with_n=True)) == ("90.0", "90.0 (n = 1)")


def setting(lr: float, state: TrialState, value: float | None = None, seed: int = 0) -> PlacedRow:
    return row(f"{lr}-{seed}", value, state, settings={"optim.lr": lr, "seed": seed}, seed=seed)


@pytest.mark.parametrize("state", [TrialState.running, TrialState.pending, TrialState.failed, TrialState.cancelled])
def test_of_several_settings_none_stands_for_the_cell_before_all_have_ended(state: TrialState) -> None:
    one, other = setting(1e-3, TrialState.done, 0.9), setting(2e-3, state)
    assert shown_trials([one, other]) == ([one, other], 2)
    assert shown_trials([setting(2e-3, state), one])[1] == 2


@pytest.mark.parametrize("state", [TrialState.diverged, TrialState.stopped])
def test_the_setting_with_the_best_mean_stands_for_the_cell_with_all_its_seeds(state: TrialState) -> None:
    best = [setting(1e-3, TrialState.done, 0.8, seed=1), setting(1e-3, TrialState.done, 0.8, seed=0)]
    lucky = [setting(2e-3, TrialState.done, 0.9, seed=0), setting(2e-3, TrialState.done, 0.6, seed=1)]
    lost = [setting(3e-3, TrialState.done, 1.0, seed=0), setting(3e-3, state, seed=1)]
    assert shown_trials([lucky[0], *best, *lost, lucky[1]]) == ([best[1], best[0]], 3)


def test_where_no_setting_has_a_result_all_are_shown() -> None:
    trials = [setting(1e-3, TrialState.diverged), setting(2e-3, TrialState.diverged)]
    assert shown_trials(trials) == (trials, 2)
    assert shown_trials([]) == ([], 1)


def test_the_best_setting_comes_first_by_the_direction_of_its_metric_and_equal_ones_by_key() -> None:
    for mode, expected in (("max", "cabde"), ("min", "abcde")):
        ended = {"d": (0.0, TrialState.failed), "b": (0.5, TrialState.done), "c": (0.7, TrialState.done),
                 "a": (0.5, TrialState.done), "e": (math.nan, TrialState.done)}  # fmt: skip
        rows = [
            row(key, value, state, mode=mode, settings={"optim.lr": key}, seed=n)
            for n, (key, (value, state)) in enumerate(ended.items())
        ]
        assert "".join(each.trials[0].key for each in best_first(rows)) == expected
        alike = [replace(each, seed=0) for each in rows]
        assert "".join(each.trials[0].key for each in best_first(alike)) == expected


def test_where_no_value_is_better_no_setting_stands_for_the_cell_and_none_comes_first() -> None:
    metrics = (replace(TOP1, better="neither"),)
    trials = [replace(setting(lr, TrialState.done, value), metrics=metrics) for lr, value in ((1e-3, 0.5), (2e-3, 0.9))]
    assert shown_trials(trials) == (trials, 2)
    assert [each.trials[0].key for each in best_first(trials)] == ["0.001-0", "0.002-0"]
    directed = best_first(replace(trial, metrics=()) for trial in trials)
    assert [each.trials[0].key for each in directed] == ["0.002-0", "0.001-0"]


def test_trials_that_differ_in_their_seed_alone_are_one_setting() -> None:
    trials = [
        setting(1e-3, TrialState.done, 0.5, seed=2),
        setting(2e-3, TrialState.done, 0.9),
        setting(1e-3, TrialState.done, 0.7, seed=0),
        setting(1e-3, TrialState.diverged, None, seed=1),
    ]
    first, second = by_setting([*trials, trials[0]])
    assert [trial.seed for trial in first.trials] == [0, 1, 2]
    assert (first.state, first.value, first.values, first.seeds, first.diverged) == (
        "diverged", None, pytest.approx((0.7, 0.5)), (0, 2), 1,
    )  # fmt: skip
    assert (second.state, second.value, second.diverged) == ("done", 0.9, 0)
    running = by_setting([setting(1e-3, TrialState.done, 0.5), setting(1e-3, TrialState.running, seed=1)])[0]
    assert (running.state, running.value, running.diverged) == ("running", None, 0)


def test_the_mark_of_several_trials_is_the_one_that_most_needs_looking_at() -> None:
    order = ["failed", "cancelled", "running", "pending", "stopped", "diverged", "done"]
    for number, state in enumerate(order):
        assert mark_of(order[number:]) == state
    assert mark_of([]) == "missing"


def test_the_reason_counts_the_states_and_quotes_the_first_line_of_the_error() -> None:
    failed = row("b", None, TrialState.failed, error_class="data", error="no folder\nline 2")
    assert cell_of(row("a"), failed, a=0.9).reason == "1 done, 1 failed; data: no folder"
    running = row("b", None, TrialState.running)
    assert cell_of(running).reason == "1 running; epoch 3 of 9"
    assert cell_of(row("a", None, TrialState.pending)).reason == ""
    assert cell_of(row("a", None, TrialState.pending), row("b"), b=0.9).reason == "1 done, 1 pending"
