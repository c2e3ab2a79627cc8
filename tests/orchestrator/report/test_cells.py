"""What a cell of the table says, from plain rows."""

from __future__ import annotations

import math
from typing import Any

import pytest

from orchestrator.records.rows import MetricRow, PlacedRow
from orchestrator.records.states import TrialState
from orchestrator.report.cells import CellSource, best_first, make_cell, mark_of, shown_trials

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
    cell = cell_of(row("a"), row("b"), row("c"), a=0.9, b=lacking, c=0.7)
    assert (cell.state, cell.value, cell.interval) == ("diverged", None, None)
    assert cell.reason == "the figure is not a finite number"
    assert cell_of(row("b"), b=lacking).value is None


def test_the_value_is_the_mean_of_all_seeds_in_the_unit_of_the_figure() -> None:
    cell = cell_of(row("a", seed=0), row("b", seed=1), row("c", seed=2), a=0.9, b=0.8, c=0.7)
    assert (cell.state, cell.reason, cell.seeds, cell.wanted) == ("done", "", (0, 1, 2), 3)
    assert cell.values == pytest.approx((90, 80, 70))
    assert cell.value == pytest.approx(80)
    assert cell.interval == pytest.approx(4.302653 * 10 / math.sqrt(3))  # t(0.975) with 2 degrees of freedom


def setting(lr: float, state: TrialState, value: float | None = None, seed: int = 0) -> PlacedRow:
    return row(f"{lr}-{seed}", value, state, settings={"optim.lr": lr, "seed": seed}, seed=seed)


@pytest.mark.parametrize("state", [TrialState.running, TrialState.pending, TrialState.failed, TrialState.cancelled])
def test_of_several_settings_none_stands_for_the_cell_before_all_have_ended(state: TrialState) -> None:
    one, other = setting(1e-3, TrialState.done, 0.9), setting(2e-3, state)
    assert shown_trials([one, other]) == ([one, other], 2)
    assert shown_trials([setting(2e-3, state), one])[1] == 2


@pytest.mark.parametrize("state", [TrialState.diverged, TrialState.stopped])
def test_the_best_setting_stands_for_the_cell_with_all_its_seeds(state: TrialState) -> None:
    best = [setting(1e-3, TrialState.done, 0.6, seed=1), setting(1e-3, TrialState.done, 0.9, seed=0)]
    others = [setting(2e-3, TrialState.done, 0.8), setting(3e-3, state)]
    assert shown_trials([others[0], *best, others[1]]) == ([best[1], best[0]], 3)


def test_where_no_setting_has_a_result_all_are_shown() -> None:
    trials = [setting(1e-3, TrialState.diverged), setting(2e-3, TrialState.diverged)]
    assert shown_trials(trials) == (trials, 2)
    assert shown_trials([]) == ([], 1)


def test_the_best_comes_first_by_the_direction_of_its_metric_and_equal_ones_by_key() -> None:
    for mode, expected in (("max", "cabd"), ("min", "abcd")):
        rows = [
            row("d", 0.0, TrialState.failed, mode=mode), row("b", 0.5, mode=mode), row("c", 0.7, mode=mode),
            row("a", 0.5, mode=mode), row("e", math.nan, mode=mode),
        ]  # fmt: skip
        assert "".join(each.key for each in best_first(rows)) == expected + "e"


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
