"""Judges differences: intervals and p values of a claim, and Holm's levels over the claims of a job.

How a verdict comes about. Each claim yields one p value and what a small one says, `held` or `contradicted`:

* above (d > margin): p = 2 min(P(mean <= margin), P(mean >= margin)), the two-sided p of the test against the margin.
  So p < a exactly if the interval of level 1 - a excludes the margin: held if it lies above, contradicted if below.
* below: the same for -d.
* within: either p_in, the larger of the one-sided p values against -margin and against margin (two one-sided tests:
  p_in < a exactly if the interval of level 1 - 2a lies inside), which says `held`; or p_out, twice the one-sided p
  beyond the nearer bound (p_out < a exactly if the interval of level 1 - a lies outside), which says `contradicted`;
  the smaller of the two.

Holm (1979) over the m claims of a job that can have a verdict, a claim without data counting with p = 1: in the order
of their p values, claim k is decided if p_k < 0.05 / (m - k + 1) and all before it are; from the first that is not,
all are undecided. So its interval is read at level 1 - 0.05 / (m - k + 1): 95 % for a claim that is alone. The adjusted
p, max over j <= k of (m - j + 1) p_j, at most 1, is below 0.05 exactly for the decided ones. The chance that any
verdict of the job is wrong is then at most 5 %.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from orchestrator.report.statistics import student_factor, student_tail

ALPHA = 0.05
"""The chance of any wrong verdict among the claims of a job."""
MIN_RUNS = 3
"""Fewer runs (or images) than these are not judged."""
RESAMPLES = 2000
"""Of a bootstrap over images."""

Says = Literal["held", "contradicted"]


class Sample(Protocol):
    """Differences and what they say of their mean."""

    @property
    def mean(self) -> float: ...

    def above(self, bound: float) -> float:
        """One-sided p value of mean <= bound: small if the mean lies well above."""
        ...

    def below(self, bound: float) -> float:
        """One-sided p value of mean >= bound: small if the mean lies well below."""
        ...

    def interval(self, level: float) -> tuple[float, float]:
        """The two-sided interval of the mean."""
        ...


@dataclass(frozen=True)
class OfRuns:
    """Paired differences of at least two runs; Student's t with n - 1 degrees of freedom."""

    differences: Sequence[float]

    @cached_property
    def mean(self) -> float:
        return math.fsum(self.differences) / len(self.differences)

    @cached_property
    def error(self) -> float:
        """The standard error of the mean."""
        n = len(self.differences)
        return math.sqrt(math.fsum((d - self.mean) ** 2 for d in self.differences) / (n - 1) / n)

    def above(self, bound: float) -> float:
        return self._tail(self.mean - bound)

    def below(self, bound: float) -> float:
        return self._tail(bound - self.mean)

    def _tail(self, distance: float) -> float:
        if self.error == 0:  # all differences are equal
            return 0.5 if distance == 0 else float(distance < 0)
        return student_tail(distance / self.error, len(self.differences) - 1)

    def interval(self, level: float) -> tuple[float, float]:
        half = student_factor(len(self.differences) - 1, level) * self.error
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class OfImages:
    """Paired differences of images; means of `RESAMPLES` bootstrap resamples, drawn with a recorded seed.

    The interval of level 1 - a has at most a / 2 (resamples + 1) - 1 means beyond each end, so that p < a exactly if it
    excludes the bound; the smallest p is 2 / (resamples + 1), and no interval is wider than that level's. numpy's
    RandomState, whose stream is frozen. Means are rounded to 10 digits: sums of floats differ in the last ones between
    processors.
    """

    differences: Sequence[float]
    seed: int

    @cached_property
    def mean(self) -> float:
        return math.fsum(self.differences) / len(self.differences)

    @cached_property
    def means(self) -> list[float]:
        """Means of the resamples, the smallest first."""
        import numpy as np

        values = np.asarray(self.differences, dtype=np.float64)
        draws = np.random.RandomState(self.seed)
        found = [float(values[draws.randint(0, len(values), len(values))].mean()) for _ in range(RESAMPLES)]
        return sorted(float(f"{mean:.10g}") for mean in found)

    def above(self, bound: float) -> float:
        return (1 + sum(mean <= bound for mean in self.means)) / (RESAMPLES + 1)

    def below(self, bound: float) -> float:
        return (1 + sum(mean >= bound for mean in self.means)) / (RESAMPLES + 1)

    def interval(self, level: float) -> tuple[float, float]:
        beyond = max(0, math.ceil((1 - level) / 2 * (RESAMPLES + 1) - 1 - 1e-9) - 1)
        return self.means[beyond], self.means[-1 - beyond]


def seed_of(name: str) -> int:
    """The seed of a claim's resamples, fixed by its name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def assess(sample: Sample, relation: str, margin: float) -> tuple[float, Says]:
    """The p value of a claim, not adjusted, and what a small one says; see the module's words."""
    if relation == "within":
        inside = max(sample.above(-margin), sample.below(margin))
        outside = min(1.0, 2 * min(sample.above(margin), sample.below(-margin)))
        return (inside, "held") if inside <= outside else (outside, "contradicted")
    bound = margin if relation == "above" else -margin
    up, down = sample.above(bound), sample.below(bound)
    above = up < down
    return min(1.0, 2 * min(up, down)), "held" if above == (relation == "above") else "contradicted"


@dataclass(frozen=True)
class Adjusted:
    """A p value among those of all claims."""

    p: float
    """Holm's adjusted p value."""
    level: float
    """Of the interval by which the claim is decided: 1 - 0.05 / (m - k + 1); beyond the first claim that is not
    decided, the level of that one."""


def holm(values: Sequence[float], alpha: float = ALPHA) -> list[Adjusted]:
    """Adjusts p values, in their order; equal ones share their fate."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    adjusted: dict[int, Adjusted] = {}
    largest, level = 0.0, 1.0
    open_ = True
    for rank, i in enumerate(order):
        left = len(values) - rank
        largest = max(largest, min(1.0, left * values[i]))
        if open_:
            level = 1 - alpha / left
        open_ = open_ and largest < alpha
        adjusted[i] = Adjusted(largest, level)
    return [adjusted[i] for i in range(len(values))]


def difference(left: float, right: float) -> float:
    """left - right, to 12 digits of the larger one: 94.2 - 93.2 is 1, not 1.0000000000000142, which would lie above a
    margin of 1."""
    size = max(abs(left), abs(right))
    return round(left - right, 12 - math.ceil(math.log10(size))) if size else 0.0
