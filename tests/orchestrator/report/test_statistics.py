"""Intervals against numbers worked out by hand, and against scipy."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from orchestrator.report.statistics import kendall, mean_interval, paired_interval, student, wilson


def test_student_quantiles() -> None:
    # the usual table: degrees of freedom 1, 2, 3, 4, 9, 30, 120
    table = {1: 12.7062, 2: 4.30265, 3: 3.18245, 4: 2.77645, 9: 2.26216, 30: 2.04227, 120: 1.97993}
    for freedom, value in table.items():
        assert student(freedom + 1) == pytest.approx(value, abs=1e-4)
        assert student(freedom + 1) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)
    with pytest.raises(ValueError, match="two values"):
        student(1)


def test_an_interval_needs_three_values() -> None:
    assert mean_interval([3.0]) == (3.0, None)
    assert mean_interval([3.0, 5.0]) == (4.0, None)
    assert mean_interval([1.0, 1.0, 1.0]) == (1.0, 0.0)
    mean, half = mean_interval([89.0, 89.2, 89.4])
    assert (mean, half) == (pytest.approx(89.2), pytest.approx(4.302653 * 0.2 / math.sqrt(3), rel=1e-6))


def test_a_paired_difference_is_narrower_than_the_spread_of_either() -> None:
    first, second = [90.0, 80.0, 70.0], [89.0, 78.0, 69.5]
    # differences 1, 2, 0.5: mean 3.5 / 3, sample deviation 0.763763
    mean, half = paired_interval(first, second)
    assert half is not None
    assert mean == pytest.approx(3.5 / 3)
    assert half == pytest.approx(4.302653 * 0.763763 / math.sqrt(3), rel=1e-5)
    scipy = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (mean - half, mean + half) == pytest.approx((scipy.low, scipy.high))
    assert paired_interval([1.0, 2.0], [0.0, 0.0]) == (1.5, None)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        paired_interval([1.0, 2.0, 3.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(8, 10, 0.490162, 0.943318), (0, 10, 0.0, 0.277533), (10, 10, 0.722467, 1.0), (1, 1, 0.206549, 1.0)],
)
def test_wilsons_interval(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right / n, n) == pytest.approx((low, high), abs=1e-6)


def test_wilsons_interval_is_scipys() -> None:
    for right, n in ((0, 3), (1, 3), (337, 360), (99, 100), (25_000, 25_250)):
        scipy = stats.binomtest(right, n).proportion_ci(method="wilson")
        assert wilson(right / n, n) == pytest.approx((scipy.low, scipy.high), abs=1e-12)
    with pytest.raises(ValueError, match=r"between 0 and 1 of at least one sample: 1\.5 of 10"):
        wilson(1.5, 10)


def test_kendalls_tau_counts_ties_as_scipy_does() -> None:
    first, second = [1.0, 2.0, 2.0, 4.0, 5.0], [2.0, 1.0, 3.0, 3.0, 5.0]
    assert kendall(first, second) == pytest.approx(stats.kendalltau(first, second).statistic)
    assert kendall([1.0, 1.0], [1.0, 2.0]) is None
