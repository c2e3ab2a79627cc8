"""What a report contains of a job's claims: plain data, in the unit of the figure, the same for every form.

What a claim means is in orchestrator.spec.claims; how it is judged, in orchestrator.report.judgement.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.records.rows import MetricRow

Verdict = Literal["held", "contradicted", "undecided", "not judged", "no verdict"]
"""Of a claim. `no verdict`: it compares with the paper's number."""


@dataclass(frozen=True)
class ClaimSide:
    """One side of a claim."""

    text: str
    """What is read: MIM on food101, top-1 accuracy."""
    value: float | None
    """Mean of `values`, or the number itself."""
    values: tuple[float, ...] = ()
    """One for each of `seeds`, of the trials that are done."""
    seeds: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()
    """The trials that it reads, by seed, those that are not done too."""


@dataclass(frozen=True)
class Sensitivity:
    """A claim's difference by another figure, judged alone at 95 %: it has no part in the verdict."""

    figure: MetricRow
    difference: float | None
    interval: tuple[float, float] | None
    n: int
    alone: Verdict
    reason: str = ""


@dataclass(frozen=True)
class ClaimReport:
    """A claim, and whether it came true."""

    name: str
    text: str
    relation: Literal["above", "below", "within"]
    margin: float
    over: Literal["seeds", "images"]
    left: ClaimSide
    right: ClaimSide
    figure: MetricRow
    """Of the differences."""
    verdict: Verdict
    reason: str
    """Why it is not held or contradicted; empty if it is."""
    scope: str
    """What the verdict is for, where it is less than whole chains of trials: for these weights; one checkpoint."""
    n: int
    """Pairs of runs, or of images."""
    differences: tuple[float, ...] = ()
    """left - right of each pair of runs; of images only their mean is kept."""
    difference: float | None = None
    interval: tuple[float, float] | None = None
    """95 %, not adjusted."""
    p: float | None = None
    """Not adjusted (see orchestrator.report.judgement)."""
    adjusted_p: float | None = None
    level: float | None = None
    """Of the interval by which the verdict is decided, by Holm over the job's claims."""
    resamples: int = 0
    resample_seed: int | None = None
    submitted: str = ""
    """When the claim was first submitted; empty: not recorded."""
    ended_before: int = 0
    """Of the trials that it reads, the number that had ended by then."""
    reads: int = 0
    """The trials that it reads."""
    sensitivity: tuple[Sensitivity, ...] = ()
    anchor: ClaimSide | None = None
