"""The only place that says what a search may ask for: ranges of fields, rules that stop trials early, populations."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
)

from orchestrator.spec.model import SpecModel
from workers.trial import plain_number

Point = dict[str, Any]
"""Path -> value."""


class Uniform(SpecModel):
    """`{uniform: [low, high]}`: any number between, ends included."""

    uniform: tuple[float, float] = Field(strict=False)

    @field_validator("uniform")
    @classmethod
    def _ordered(cls, ends: tuple[float, float]) -> tuple[float, float]:
        return _low_high(ends)


class LogUniform(SpecModel):
    """`{loguniform: [low, high]}`: any number between, evenly in the logarithm."""

    loguniform: tuple[PositiveFloat, PositiveFloat] = Field(strict=False)

    @field_validator("loguniform")
    @classmethod
    def _ordered(cls, ends: tuple[float, float]) -> tuple[float, float]:
        return _low_high(ends)


class IntRange(SpecModel):
    """`{int: [low, high]}`: any whole number between, ends included; with `log: true` evenly in the logarithm."""

    between: tuple[int, int] = Field(alias="int", strict=False)
    log: bool = False

    @field_validator("between", mode="before")
    @classmethod
    def _whole(cls, ends: Any) -> Any:
        if isinstance(ends, list | tuple) and any(isinstance(end, bool) or not isinstance(end, int) for end in ends):
            raise ValueError("needs whole numbers: [low, high]")
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
            raise ValueError("a logarithmic range begins at 1 or above")
        return log


class Choice(SpecModel):
    """`{choice: [values]}`: one of these, in no order."""

    choice: list[Any] = Field(min_length=1)

    @field_validator("choice")
    @classmethod
    def _different(cls, values: list[Any]) -> list[Any]:
        if any(value in values[:number] for number, value in enumerate(values)):  # 1, 1.0 and true are equal
            raise ValueError("the same value twice")
        return values


def _low_high(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    if low >= high:
        raise ValueError(f"the low end {low:g} must be below the high end {high:g}; a fixed value goes into `override`")
    if not math.isfinite(high - low):
        raise ValueError(f"{low:g} to {high:g} is wider than numbers reach")
    return ends


_FORMS = {"uniform": "Uniform", "loguniform": "LogUniform", "int": "Whole", "choice": "Choice"}


def _range_kind(value: Any) -> str | None:
    if isinstance(value, Uniform | LogUniform | IntRange | Choice):
        return type(value).__name__
    found = [kind for form, kind in _FORMS.items() if isinstance(value, dict) and form in value]
    return found[0] if found else None


Range = Annotated[
    Annotated[Uniform, Tag("Uniform")]
    | Annotated[LogUniform, Tag("LogUniform")]
    | Annotated[IntRange, Tag("Whole")]
    | Annotated[Choice, Tag("Choice")],
    Discriminator(
        _range_kind,
        custom_error_type="range",
        custom_error_message="must be {uniform: [low, high]}, {loguniform: [low, high]}, {int: [low, high]} or "
        "{choice: [values]}",
    ),
]
"""The values that a search may try for one field."""


def ends_of(one: Uniform | LogUniform | IntRange) -> tuple[float, float, bool]:
    """Low, high, and whether the range is even in the logarithm."""
    if isinstance(one, Uniform):
        return (*one.uniform, False)
    return (*one.loguniform, True) if isinstance(one, LogUniform) else (*one.between, one.log)


def value_at(one: Range, part: float) -> Any:
    """The value a `part` (0 to 1) of the way through a range, as a trial gets it: 12 digits at most."""
    if isinstance(one, Choice):
        return one.choice[min(len(one.choice) - 1, int(part * len(one.choice)))]
    low, high, log = ends_of(one)
    if isinstance(one, IntRange):
        low, high = low - 0.5, high + 0.5  # so that each whole number has the same share
    value = low * (high / low) ** part if log else low + (high - low) * part
    return rounded(one, value)


def middle(ranges: Mapping[str, Range]) -> Point:
    """The point in the middle of all ranges."""
    return {path: value_at(one, 0.5) for path, one in ranges.items()}


def sample(ranges: Mapping[str, Range], seed: str) -> Point:
    """A point drawn evenly (in the logarithm, where the range is), the same for the same text."""
    dice = random.Random(seed)
    return {path: value_at(one, dice.random()) for path, one in ranges.items()}


def rounded(one: Range, value: Any) -> Any:
    """A value as trials get it: whole, or of 12 digits (so that keys are stable), and never outside the range."""
    if isinstance(one, Choice):
        return value
    low, high, _ = ends_of(one)
    inside = min(max(value, low), high)
    return round(inside) if isinstance(one, IntRange) else min(max(plain_number(inside), low), high)


def contains(one: Range, value: Any) -> bool:
    """Whether the range has this value."""
    if isinstance(one, Choice):
        return any(value == other and type(value) is type(other) for other in one.choice)
    if isinstance(value, bool) or not isinstance(value, int if isinstance(one, IntRange) else int | float):
        return False
    low, high, _ = ends_of(one)
    return low <= value <= high


def tried_at_load(one: Range) -> list[Any]:
    """Values that stand for a range when a spec is checked: its ends, or every choice."""
    if isinstance(one, Choice):
        return list(one.choice)
    low, high, _ = ends_of(one)
    return [low, high]


class AshaRule(SpecModel):
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934), Ray Tune's AsyncHyperBandScheduler.

    At each rung (epochs grace, grace x factor, grace x factor^2, ...) a trial goes on if it is among the best 1/factor
    of those that came there so far; so the first ones always do.
    """

    grace_epochs: PositiveInt
    """The first rung."""
    reduction_factor: int = Field(default=3, ge=2)
    """3, as in the experiments of the paper that brackets come from (Hyperband, arXiv 1603.06560); Tune's is 4."""
    brackets: PositiveInt = 1
    """Sets of rungs, each beginning one rung later; a trial's is drawn. One, as the paper advises."""
    inside_warmup: bool = False
    """Whether rungs may lie inside the learning rate's warm-up, where they rank noise."""


class MedianRule(SpecModel):
    """Median stopping (Golovin et al. 2017, section 3.2.2), Ray Tune's MedianStoppingRule: a trial stops when its best
    value so far is worse than the median of the running means of the others at the same epoch."""

    grace_epochs: PositiveInt
    """Nothing is stopped before."""
    min_trials: PositiveInt = 3
    """Nothing is stopped on the word of fewer others (3: Tune's)."""
    inside_warmup: bool = False
    """Whether trials may be stopped inside the learning rate's warm-up."""


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
"""Which trials of a search end early."""


class Population(SpecModel):
    """Population-based training (Jaderberg et al. 2017, arXiv 1711.09846, section 4), in synchronous generations.

    After every generation the members in the bottom quantile each copy a random one of the top quantile, weights and
    optimizer, and change its settings: each is drawn anew with probability `resample`, else multiplied by one of
    `factors` (a choice: moved to a neighbour in its list).
    """

    size: int = Field(ge=2)
    every_epochs: PositiveInt
    """A generation; the trial's epochs are a multiple of it."""
    quantile: float = Field(default=0.2, gt=0, le=0.5)
    """0.2: the paper's truncation selection."""
    resample: float = Field(default=0.25, ge=0, le=1)
    """0.25: Tune's; the paper resamples in its experiments with other probabilities for each."""
    factors: tuple[PositiveFloat, PositiveFloat] = Field(default=(0.8, 1.2), strict=False)
    """(0.8, 1.2): the paper's perturbation."""


def rungs(rule: AshaRule, epochs: int, bracket: int = 0) -> list[int]:
    """Epochs at which ASHA decides, in their order; below the trial's last epoch, where nothing is left to save."""
    found, at_epoch = [], rule.grace_epochs * rule.reduction_factor**bracket
    while at_epoch < epochs:
        found.append(at_epoch)
        at_epoch *= rule.reduction_factor
    return found


def fraction(one: Uniform | LogUniform | IntRange, value: float) -> float:
    """How far through its range a value lies, 0 to 1, in the logarithm where the range is."""
    low, high, log = ends_of(one)
    if log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)
