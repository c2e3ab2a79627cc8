"""Confidence intervals over seeds and over images, Student quantiles and rank correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence

FEWEST = 3
"""Seeds that an interval over seeds needs: of two, its factor is 12.7, and the two values themselves say more."""

NORMAL = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


def student(n: int) -> float:
    """The 97.5 % quantile of Student's t with n - 1 degrees of freedom: the factor of a 95 % interval.

    The distribution function for whole degrees of freedom is a finite sum (Abramowitz and Stegun 26.7.3 and
    26.7.4), inverted by bisection; no statistics package, which would cost a second of start.
    """
    return student_factor(n - 1, 0.95)


def student_factor(freedom: int, level: float) -> float:
    """t with P(|T| <= t) = level for Student's t: the factor of an interval of this level.

    Accurate to about 1e-9 for levels up to 1 - 1e-6.
    """
    if freedom < 1:
        raise ValueError("an interval needs two values")
    low, high = 0.0, 13.0  # t(0.975, 1) = 12.706
    while _between(high, freedom) < level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _between(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def student_tail(t: float, freedom: int) -> float:
    """P(T >= t) for Student's t; differences from 0 or 1 below 1e-15 are lost."""
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    outside = max(0.0, 1 - _between(abs(t), freedom)) / 2
    return outside if t >= 0 else 1 - outside


def _between(t: float, freedom: int) -> float:
    """Probability that |T| <= t."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    term, total = (cosine, 0.0) if freedom % 2 else (1.0, 0.0)
    for i in range(1 + freedom % 2, freedom, 2):
        total += term
        term *= cosine * cosine * i / (i + 1)
    return 2 / math.pi * (angle + sine * total) if freedom % 2 else sine * total


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half the width of its 95 % confidence interval by Student's t; None for fewer than `FEWEST` values."""
    mean = math.fsum(values) / len(values)
    if len(values) < FEWEST:
        return mean, None
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return mean, student(len(values)) * deviation / math.sqrt(len(values))


def paired_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float | None]:
    """The mean of first[i] - second[i], and half the width of its 95 % confidence interval by Student's t; None for
    fewer than `FEWEST` pairs. ValueError for lists of different lengths."""
    return mean_interval([a - b for a, b in zip(first, second, strict=True)])


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share (0 to 1) of n independent samples: E. B. Wilson, "Probable inference, the law
    of succession, and statistical inference", JASA 22 (1927), 209-212; without correction for continuity."""
    if n < 1 or not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1 of at least one sample: {share} of {n}")
    square = NORMAL**2 / n
    centre = (share + square / 2) / (1 + square)
    half = NORMAL * math.sqrt((share * (1 - share) + square / 4) / n) / (1 + square)
    return max(0.0, centre - half), min(1.0, centre + half)


def kendall(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b (ties counted) of two lists of equal length; None if all values of a list are equal."""
    agree = disagree = tied_first = tied_second = 0
    for i in range(len(first)):
        for j in range(i):
            a, b = _sign(first[i], first[j]), _sign(second[i], second[j])
            agree += a * b > 0
            disagree += a * b < 0
            tied_first += a == 0
            tied_second += b == 0
    pairs = len(first) * (len(first) - 1) // 2
    scale = math.sqrt((pairs - tied_first) * (pairs - tied_second))
    return (agree - disagree) / scale if scale else None


def _sign(a: float, b: float) -> int:
    return (a > b) - (a < b)
