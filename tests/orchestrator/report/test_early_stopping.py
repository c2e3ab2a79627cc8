"""What early stopping saved and could have cost, from plain rows."""

from __future__ import annotations

import math
import random

import pytest
from scipy.stats import kendalltau

from orchestrator.records.rows import PlacedRow, ReportRow, SearchEvent
from orchestrator.records.states import TrialState
from orchestrator.report.early_stopping import agreement, lines, saved
from orchestrator.report.statistics import kendall

PLACE = ("search", "digits")


def row(
    key: str, value: float | None = None, state: TrialState = TrialState.done, epoch: int = 9, mode: str = "max"
) -> PlacedRow:
    return PlacedRow(
        "search", "digits", key, key, 0, state, "top1", mode, value, epoch, 9, 0, None, None, None, None, None, {}, {}
    )  # fmt: skip


def curve(**values: float | None) -> list[ReportRow]:
    return [ReportRow(int(name[1:]), 1, {"top1": value, "train_loss": 0.0}, 1.0) for name, value in values.items()]


def stop(key: str, epoch: int) -> SearchEvent:
    return SearchEvent(0, "stopped", key, {"epoch": epoch, "value": 0.1})


def test_epochs_that_were_saved() -> None:
    """Of four trials one was stopped after 1 (and heard of it after 2), one after 3 (and run in full by another job
    later), one runs still."""
    rows = [
        row("a", 0.9), row("b", state=TrialState.stopped, epoch=2), row("c", 0.95),
        row("d", state=TrialState.running, epoch=4),
    ]  # fmt: skip
    (one,) = saved({PLACE: rows}, {PLACE: [stop("b", 1), stop("c", 3)]})
    assert (one.trials, one.stopped, one.epochs_asked, one.epochs_run) == (4, 2, 36, 9 + 2 + 3 + 4)
    said = lines([one], [])
    assert said[0].endswith("stopped 2 of 4 trials early, ran 18 of 36 epochs (50 %)")
    assert "cost of early stopping is unknown" in said[1]
    assert lines(saved({PLACE: rows}, {}), []) == []


def test_a_population_saves_no_epochs() -> None:
    asked = SearchEvent(0, "asked", "a", {"point": {}, "span": [0, 3], "member": 0, "parent": None, "how": "new"})
    assert saved({PLACE: [row("a", 0.9), row("b", 0.8)]}, {PLACE: [asked]}) == ()


def test_order_on_the_way_against_the_end() -> None:
    rows = [row(key, value) for key, value in zip("abcdef", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), strict=True)]
    ends = {each.key: each.value or 0.0 for each in rows}
    reports = {key: curve(e1=-value, e3=value if key != "f" else 0.45, e9=value) for key, value in ends.items()}
    first, second = agreement({PLACE: rows}, {}, reports)
    assert (first.epoch, first.tau, first.best_is_best, first.best_is_kept) == (1, -1.0, False, False)
    assert (second.epoch, second.best_is_best, second.best_is_kept) == (3, False, True)
    assert second.tau == pytest.approx((14 - 1) / 15)
    said = lines([], [first, second])
    assert "ranking at epoch 3 vs. epoch 9, 1 group run in full: tau 0.87" in said[1]
    assert "same winner in 0 of 1 group, final winner in the first 1/3 in 1" in said[1]


def test_of_many_epochs_three_are_told() -> None:
    rows = [row(key, value) for key, value in zip("abcdef", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), strict=True)]
    reports = {each.key: curve(**{f"e{epoch}": each.value for epoch in range(1, 10)}) for each in rows}
    compared = agreement({PLACE: rows}, {}, reports)
    assert [each.epoch for each in compared] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line.split()[3] for line in lines([], compared)] == ["1", "3", "6"]
    assert [line.split()[3] for line in lines([], compared[:4])] == ["1", "2", "3", "4"]


def test_of_an_error_the_smallest_is_the_best() -> None:
    """The trial with the smallest error at the end leads at epoch 1, where the two worst change places, and is last at
    epoch 3."""
    rows = [row(key, value, mode="min") for key, value in zip("abcdef", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), strict=True)]
    early = {**{each.key: each.value for each in rows}, "e": 0.6, "f": 0.5}
    reports = {each.key: curve(e1=early[each.key], e3=-(each.value or 0.0), e9=each.value) for each in rows}
    first, second = agreement({PLACE: rows}, {}, reports)
    assert (first.epoch, first.best_is_best, first.best_is_kept) == (1, True, True)
    assert first.tau == pytest.approx((14 - 1) / 15)
    assert (second.epoch, second.tau, second.best_is_best, second.best_is_kept) == (3, -1.0, False, False)


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("lacking", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_number_on_the_way_is_worse_than_all_others(lacking: float | None, mode: str) -> None:
    rows = [row(key, value, mode=mode) for key, value in zip("abcd", (0.1, 0.2, 0.3, 0.4), strict=True)]
    best, worst = ("d", "a") if mode == "max" else ("a", "d")
    reports = {each.key: curve(e1=lacking if each.key == worst else each.value) for each in rows}
    assert agreement({PLACE: rows}, {}, reports)[0].tau == 1
    reports[best] = curve(e1=lacking)
    assert not agreement({PLACE: rows}, {}, reports)[0].best_is_kept


@pytest.mark.parametrize(("ahead", "kept"), [(0, True), (1, True), (2, False), (3, False)])
def test_the_first_rung_keeps_a_third_and_no_trial_more(ahead: int, kept: bool) -> None:
    """Of six trials two go on: the best at the end is one of them if at most one was ahead of it."""
    rows = [row(key, value) for key, value in zip("abcdef", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), strict=True)]
    leading = dict.fromkeys("abcde"[:ahead], 1.0)
    reports = {each.key: curve(e3=leading.get(each.key, 0.5 if each.key == "f" else 0.0)) for each in rows}
    (found,) = agreement({PLACE: rows}, {}, reports)
    assert (found.best_is_best, found.best_is_kept) == (ahead == 0, kept)


def test_of_successive_halving_the_rungs_are_looked_at() -> None:
    rows = [row(key, value) for key, value in zip("abcd", (0.1, 0.2, 0.3, 0.4), strict=True)]
    reports = {one.key: curve(e1=one.value, e2=one.value, e3=one.value, e4=-(one.value or 0)) for one in rows}
    found = agreement({PLACE: rows}, {}, reports, {"grace_epochs": 2, "reduction_factor": 2})
    assert [(one.epoch, one.tau, one.best_is_kept, one.factor) for one in found] == [(2, 1, True, 2), (4, -1, False, 2)]


def test_only_groups_that_ran_in_full_are_judged() -> None:
    rows = [row(key, 0.5) for key in "abcd"]
    reports = {key: curve(e3=0.5, e9=0.5) for key in "abcd"}
    assert len(agreement({PLACE: rows}, {}, reports)) == 1
    assert agreement({PLACE: rows}, {}, reports)[0].tau is None
    assert agreement({PLACE: rows}, {PLACE: [stop("a", 3)]}, reports) == ()
    assert agreement({PLACE: rows[:3]}, {}, reports) == ()
    assert agreement({PLACE: [*rows, row("e", state=TrialState.failed)]}, {}, reports) == ()
    assert len(agreement({PLACE: [*rows, row("e", state=TrialState.diverged)]}, {}, reports)) == 1


def test_kendall_is_that_of_scipy() -> None:
    dice = random.Random(0)
    for _ in range(50):
        one, other = ([dice.randrange(4) for _ in range(12)] for _ in range(2))
        ours, theirs = kendall(one, other), kendalltau(one, other).statistic
        assert (math.isnan(theirs) and ours is None) or ours == pytest.approx(theirs)
