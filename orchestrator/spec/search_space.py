"""The models of a search: ranges of fields, rules that stop trials early, populations."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
)

from orchestrator.spec.model import SpecModel
from workers.trial import plain_number

Point = dict[str, Any]
"""Path -> value."""


MAX_NUMBER = 1e12
"""Of what a spec may try: far beyond every field, and far from where floating point ends."""
Number = Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
PositiveNumber = Annotated[float, Field(gt=0, le=MAX_NUMBER)]
Whole = Annotated[int, Field(ge=-(10**12), le=10**12)]
Factor = Annotated[float, Field(gt=0, le=1000)]
MAX_ROUNDS = 10_000_000
"""Of a trial, whatever its length is counted in."""


class Uniform(SpecModel):
    """`{uniform: [low, high]}`: any number in between, ends included."""

    uniform: tuple[Number, Number] = Field(strict=False)

    @field_validator("uniform")
    @classmethod
    def _ordered(cls, ends: tuple[float, float]) -> tuple[float, float]:
        return _low_high(ends)


class LogUniform(SpecModel):
    """`{loguniform: [low, high]}`: any number in between, uniform in the logarithm."""

    loguniform: tuple[PositiveNumber, PositiveNumber] = Field(strict=False)

    @field_validator("loguniform")
    @classmethod
    def _ordered(cls, ends: tuple[float, float]) -> tuple[float, float]:
        check_ratio(*ends)
        return _low_high(ends)


class IntRange(SpecModel):
    """`{int: [low, high]}`: any whole number in between, ends included; with `log: true` uniform in the logarithm."""

    between: tuple[Whole, Whole] = Field(alias="int", strict=False)
    log: bool = False

    @field_validator("between", mode="before")
    @classmethod
    def _whole(cls, ends: Any) -> Any:
        if isinstance(ends, list | tuple) and any(isinstance(end, bool) or not isinstance(end, int) for end in ends):
            raise ValueError("needs two whole numbers: [low, high]")
        return ends

    @field_validator("between")
    @classmethod
    def _ordered(cls, ends: tuple[int, int]) -> tuple[int, int]:
        low, high = _low_high(ends)
        return int(low), int(high)

    @field_validator("log")
    @classmethod
    def _positive(cls, log: bool, info: Any) -> bool:
        if log and info.data.get("between", (1, 1))[0] < 1:
            raise ValueError("a logarithmic range must begin at 1 or above")
        return log


class Choice(SpecModel):
    """`{choice: [values]}`: one of these values, which have no order."""

    choice: list[Any] = Field(min_length=1, max_length=1000)

    @field_validator("choice")
    @classmethod
    def _different(cls, values: list[Any]) -> list[Any]:
        if any(value in values[:number] for number, value in enumerate(values)):  # 1, 1.0 and true are equal
            raise ValueError("the same value twice; keep one of them")
        return values


def check_ratio(low: float, high: float) -> None:
    """Raises ValueError where high / low, from which logarithmic steps are computed, is no number."""
    if not math.isfinite(high / low):
        raise ValueError(f"the range from {low:g} to {high:g} is too wide for floating point; narrow it")


def _low_high(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    if low >= high:
        raise ValueError(f"the low end {low:g} must be below the high end {high:g}; a fixed value goes into `override`")
    return ends


_FORMS = {"uniform": "Uniform", "loguniform": "LogUniform", "int": "IntRange", "choice": "Choice"}


def _range_kind(value: Any) -> str | None:
    if isinstance(value, Uniform | LogUniform | IntRange | Choice):
        return type(value).__name__
    return next((kind for form, kind in _FORMS.items() if isinstance(value, dict) and form in value), None)


Range = Annotated[
    Annotated[Uniform, Tag("Uniform")]
    | Annotated[LogUniform, Tag("LogUniform")]
    | Annotated[IntRange, Tag("IntRange")]
    | Annotated[Choice, Tag("Choice")],
    Discriminator(
        _range_kind,
        custom_error_type="range",
        custom_error_message="must be {uniform: [low, high]}, {loguniform: [low, high]}, {int: [low, high]} or "
        "{choice: [values]}",
    ),
]
"""The values that a search may try for one field."""


def ends_of(space: Uniform | LogUniform | IntRange) -> tuple[float, float, bool]:
    """Low, high, and True if the range is uniform in the logarithm."""
    if isinstance(space, Uniform):
        return (*space.uniform, False)
    return (*space.loguniform, True) if isinstance(space, LogUniform) else (*space.between, space.log)


def value_at(space: Range, part: float) -> Any:
    """The value at a fraction `part` (0 to 1) of a range, rounded as `rounded` does."""
    if isinstance(space, Choice):
        return space.choice[min(len(space.choice) - 1, int(part * len(space.choice)))]
    low, high, log = ends_of(space)
    if isinstance(space, IntRange):
        low, high = low - 0.5, high + 0.5  # so that every whole number is equally likely
    value = low * (high / low) ** part if log else low + (high - low) * part
    return rounded(space, value)


def middle(ranges: Mapping[str, Range]) -> Point:
    """The point in the middle of all ranges."""
    return {path: value_at(space, 0.5) for path, space in ranges.items()}


def sample(ranges: Mapping[str, Range], seed: str) -> Point:
    """A random point, uniform in each range (or in its logarithm); the same seed gives the same point."""
    generator = random.Random(seed)
    return {path: value_at(space, generator.random()) for path, space in ranges.items()}


def rounded(space: Range, value: Any) -> Any:
    """The value that a trial gets: a whole number or one of 12 digits (so that keys are stable), within the range."""
    if isinstance(space, Choice):
        return value
    low, high, _ = ends_of(space)
    inside = min(max(value, low), high)
    return round(inside) if isinstance(space, IntRange) else min(max(plain_number(inside), low), high)


def contains(space: Range, value: Any) -> bool:
    """True if the value lies in the range."""
    if isinstance(space, Choice):
        return any(value == other and type(value) is type(other) for other in space.choice)
    if isinstance(value, bool) or not isinstance(value, int if isinstance(space, IntRange) else int | float):
        return False
    low, high, _ = ends_of(space)
    return low <= value <= high


def tried_at_load(space: Range) -> list[Any]:
    """The values of a range that are checked when a spec is loaded: its ends, or every choice."""
    if isinstance(space, Choice):
        return list(space.choice)
    low, high, _ = ends_of(space)
    return [low, high]


class AshaRule(SpecModel):
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), Ray Tune's AsyncHyperBandScheduler.

    At each rung (rounds grace, grace x factor, grace x factor^2, ...) a trial continues if it is among the best
    1/factor of the trials that have reached it so far, so the first ones always continue.
    """

    grace_epochs: int = Field(ge=1, le=MAX_ROUNDS)
    """The first rung, in rounds: epochs, or runs of `runtime.report_iterations` steps where `optim.iterations` is set.
    """
    reduction_factor: int = Field(default=3, ge=2, le=1000)
    """Default 3, as in the experiments of the paper that introduced brackets (Hyperband, arXiv 1603.06560); Tune: 4."""
    brackets: int = Field(default=1, ge=1, le=20)
    """Sets of rungs, each beginning one rung later; a trial gets one at random. Default 1, as the paper advises."""
    inside_warmup: bool = False
    """Allows rungs inside the learning rate's warm-up, where they rank noise."""


class MedianRule(SpecModel):
    """Median stopping (Golovin et al. 2017, section 3.2.2), Ray Tune's MedianStoppingRule: a trial stops if its best
    value so far is worse than the median of the other trials' running means after the same round."""

    grace_epochs: int = Field(ge=1, le=MAX_ROUNDS)
    """No trial is stopped before this round."""
    min_trials: int = Field(default=3, ge=1, le=100_000)
    """Other trials that are needed for a comparison (default 3, as in Tune)."""
    inside_warmup: bool = False
    """Allows stopping inside the learning rate's warm-up."""


class Asha(SpecModel):
    """`{asha: {...}}`"""

    asha: AshaRule


class Median(SpecModel):
    """`{median: {...}}`"""

    median: MedianRule


def _stopping_kind(value: Any) -> str | None:
    for kind in ("asha", "median"):
        if hasattr(value, kind) or (isinstance(value, dict) and kind in value):
            return kind.capitalize()
    return "none" if value == "none" else None


Stopping = Annotated[
    Annotated[Literal["none"], Tag("none")] | Annotated[Asha, Tag("Asha")] | Annotated[Median, Tag("Median")],
    Discriminator(
        _stopping_kind,
        custom_error_type="stopping",
        custom_error_message="must be none, {asha: {...}} or {median: {...}}",
    ),
]
"""The rule by which trials of a search stop early."""


class Population(SpecModel):
    """Population-based training (Jaderberg et al. 2017, arXiv 1711.09846, section 4), in synchronous generations.

    After every generation each member of the bottom quantile copies the weights and optimizer of a random member of the
    top quantile and changes its settings: each is drawn anew with probability `resample`, else multiplied by one of
    `factors` (a choice moves to a neighbour in its list).
    """

    size: int = Field(ge=2, le=10_000)
    every_epochs: int = Field(ge=1, le=MAX_ROUNDS)
    """Rounds of a generation (epochs, or runs of `runtime.report_iterations` steps where `optim.iterations` is set), of
    which the trial's rounds must be a multiple."""
    quantile: float = Field(default=0.2, gt=0, le=0.5)
    """Default 0.2, as in the paper's truncation selection."""
    resample: float = Field(default=0.25, ge=0, le=1)
    """Default 0.25, as in Tune; the paper uses a different probability in each of its experiments."""
    factors: tuple[Factor, Factor] = Field(default=(0.8, 1.2), strict=False)
    """Default (0.8, 1.2), the paper's perturbation."""


def rungs(rule: AshaRule, epochs: int, bracket: int = 0) -> list[int]:
    """The rounds after which ASHA decides, in order, all before the trial's last one (`epochs`)."""
    decided, epoch = [], rule.grace_epochs * rule.reduction_factor**bracket
    while epoch < epochs:
        decided.append(epoch)
        epoch *= rule.reduction_factor
    return decided


def fraction(space: Uniform | LogUniform | IntRange, value: float) -> float:
    """The position of a value in its range, 0 to 1; in the logarithm if the range is logarithmic."""
    low, high, log = ends_of(space)
    if log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)
