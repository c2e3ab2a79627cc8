"""Verdicts on hand-made differences; scipy computes the same tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from orchestrator.report.judgement import ALPHA, OfImages, OfRuns, assess, difference, holm, seed_of
from orchestrator.report.statistics import student, student_factor, student_tail

HELD, CONTRADICTED = "held", "contradicted"
EQUAL = (5.9, 6.0, 6.1)
"""Mean 6, standard error 0.1 / sqrt(3) = 0.05774; 95 % interval 6 -+ 4.3027 x 0.05774 = [5.7516, 6.2484], 90 % interval
6 -+ 2.9200 x 0.05774 = [5.8314, 6.1686]."""


def test_the_interval_of_three_differences_by_hand() -> None:
    sample = OfRuns(EQUAL)
    assert sample.mean == pytest.approx(6.0)
    assert sample.interval(0.95) == pytest.approx((5.7516, 6.2484), abs=1e-4)
    assert sample.interval(0.90) == pytest.approx((5.8314, 6.1686), abs=1e-4)


@pytest.mark.parametrize(
    ("relation", "margin", "says", "decided"),
    [
        ("above", 5.75, HELD, True),  # the lower end, 5.7516, is above
        ("above", 5.76, HELD, False),
        ("above", 6.24, CONTRADICTED, False),
        ("above", 6.25, CONTRADICTED, True),  # the upper end, 6.2484, is below
        ("above", -1.0, HELD, True),
        ("below", 0.0, CONTRADICTED, True),  # 6 is not below 0
        ("below", -6.25, HELD, True),  # -d > -6.25
        ("below", -6.24, HELD, False),
        ("below", -5.75, CONTRADICTED, True),
        ("within", 6.17, HELD, True),  # the 90 % interval ends at 6.1686
        ("within", 6.16, HELD, False),
        ("within", 5.76, CONTRADICTED, False),
        ("within", 5.75, CONTRADICTED, True),  # the 95 % interval begins at 5.7516
    ],
)
def test_each_verdict_by_the_ends_of_the_interval(relation: str, margin: float, says: str, decided: bool) -> None:
    p, found = assess(OfRuns(EQUAL), relation, margin)
    assert (p < ALPHA) is decided
    if decided:
        assert found == says


@pytest.mark.parametrize("margin", [6.17, 6.16, 5.76, 5.75])
def test_within_is_mirrored_below_zero(margin: float) -> None:
    mirrored = OfRuns(tuple(-d for d in EQUAL))
    p, says = assess(mirrored, "within", margin)
    other, same = assess(OfRuns(EQUAL), "within", margin)
    assert (p, says) == (pytest.approx(other), same)


@pytest.mark.parametrize("seed", range(4))
def test_p_values_are_those_of_scipy(seed: int) -> None:
    drawn = np.random.RandomState(seed).normal(0.4, 1.0, size=3 + 2 * seed)
    sample = OfRuns(tuple(map(float, drawn)))
    for margin in (0.0, 0.3):
        p, says = assess(sample, "above", margin)
        tested = stats.ttest_1samp(drawn, margin)
        assert p == pytest.approx(tested.pvalue, abs=1e-9)
        assert says == (HELD if tested.statistic > 0 else CONTRADICTED)
        assert assess(sample, "below", -margin)[0] == pytest.approx(p)
        assert assess(sample, "below", -margin)[1] != says
    lower = stats.ttest_1samp(drawn, -1.5, alternative="greater").pvalue
    upper = stats.ttest_1samp(drawn, 1.5, alternative="less").pvalue
    p, says = assess(sample, "within", 1.5)
    assert (p, says) == (pytest.approx(max(lower, upper), abs=1e-9), HELD)
    wanted = stats.ttest_1samp(drawn, 0).confidence_interval(0.98)
    assert sample.interval(0.98) == pytest.approx((wanted.low, wanted.high), abs=1e-7)


@pytest.mark.parametrize("freedom", [1, 2, 3, 10, 41])
def test_students_distribution_is_scipys(freedom: int) -> None:
    for t in (-4.0, -0.3, 0.0, 0.3, 2.0, 30.0):
        assert student_tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), abs=1e-12)
    for level in (0.5, 0.9, 0.95, 0.999, 1 - ALPHA / 200):
        assert student_factor(freedom, level) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-7)
    assert student_factor(freedom, 0.95) == student(freedom + 1)
    assert (student_tail(math.inf, freedom), student_tail(-math.inf, freedom)) == (0.0, 1.0)


def test_an_interval_needs_two_values() -> None:
    with pytest.raises(ValueError, match="an interval needs two values"):
        student_factor(0, 0.95)


def test_equal_differences_have_no_spread() -> None:
    sample = OfRuns((1.0, 1.0, 1.0))
    assert assess(sample, "above", 0.5) == (0.0, HELD)
    assert assess(sample, "above", 1.5) == (0.0, CONTRADICTED)
    assert assess(sample, "above", 1.0)[0] == 1.0
    assert sample.interval(0.99) == (1.0, 1.0)


def test_holm_by_hand() -> None:
    """0.01 x 4, then 0.015 x 3, then 0.02 x 2 = 0.04 but not below the one before, then 0.06."""
    found = holm([0.02, 0.01, 0.06, 0.015])
    assert [each.p for each in found] == pytest.approx([0.045, 0.04, 0.06, 0.045])
    assert [each.level for each in found] == pytest.approx([1 - 0.05 / 2, 1 - 0.05 / 4, 0.95, 1 - 0.05 / 3])


def test_holm_stops_at_the_first_that_is_not_decided() -> None:
    found = holm([0.001, 0.03, 0.04])
    assert [each.p for each in found] == pytest.approx([0.003, 0.06, 0.06])
    assert [each.level for each in found] == pytest.approx([1 - 0.05 / 3, 1 - 0.05 / 2, 1 - 0.05 / 2])
    assert holm([0.03])[0].p == 0.03
    assert holm([0.9, 0.8])[0].p == 1.0
    assert holm([]) == []


def test_a_claim_is_decided_as_the_interval_of_its_level_says() -> None:
    """The adjusted p and the interval of Holm's level are one rule."""
    samples = [OfRuns((0.2, 0.3, 0.35)), OfRuns((0.1, 0.8, 1.5)), OfRuns((-0.4, -0.5, -0.42)), OfRuns((3.0, 3.1, 3.2))]
    found = holm([assess(sample, "above", 0.0)[0] for sample in samples])
    for sample, adjusted in zip(samples, found, strict=True):
        low, high = sample.interval(adjusted.level)
        assert (adjusted.p < ALPHA) == (low > 0 or high < 0)
    assert {each.p < ALPHA for each in found} == {True, False}


IMAGES = tuple(map(float, np.random.RandomState(3).normal(0.25, 1.0, size=120)))


def test_a_bootstrap_has_the_p_value_that_its_interval_says() -> None:
    sample = OfImages(IMAGES, seed_of("mim-ahead"))
    for a in (0.05, 0.025, 0.1, 0.01):
        low, high = sample.interval(1 - a)
        for bound in sample.means[::97]:
            assert (low > bound) == (2 * sample.above(bound) < a)
            assert (high < bound) == (2 * sample.below(bound) < a)


def test_a_bootstrap_is_near_the_t_interval_and_is_repeated_exactly() -> None:
    one, again, other = (OfImages(IMAGES, seed_of(name)) for name in ("a", "a", "b"))
    assert one.means == again.means
    assert one.means != other.means
    assert len(one.means) == 2000
    assert one.interval(0.95) == pytest.approx(OfRuns(IMAGES).interval(0.95), abs=0.03)
    assert one.means[0] == -0.1213381503  # numpy's frozen stream: the same draw with every version


def test_a_bootstrap_that_never_passes_the_margin_has_the_smallest_p() -> None:
    p, says = assess(OfImages((1.0, 1.1, 1.2), 0), "above", 0.5)
    assert (p, says) == (2 / 2001, HELD)
    assert assess(OfImages((1.0, 1.1, 1.2), 0), "within", 1.3) == (1 / 2001, HELD)


@pytest.mark.parametrize(
    ("left", "right", "found"), [(94.2, 93.2, 1.0), (0.1 + 0.2, 0.3, 0.0), (1e9, 1.0, 999999999.0), (0.0, 0.0, 0.0)]
)
def test_differences_have_twelve_digits(left: float, right: float, found: float) -> None:
    assert difference(left, right) == found
