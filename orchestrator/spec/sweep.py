"""The models of a stage's sweep (one setting, grids or a search), and the settings that a sweep consists of."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from orchestrator.spec.model import SpecModel
from orchestrator.spec.search_space import (
    Number,
    Point,
    Population,
    PositiveNumber,
    Range,
    Stopping,
    check_ratio,
    middle,
    tried_at_load,
)
from tasks.bounds import MAX_NUMPY_SEED
from workers.trial import plain_number

Path_ = Annotated[str, Field(pattern=r"^[a-z_]+(\.[A-Za-z0-9_]+)*$", max_length=200)]
"""A field of the trial, by its dotted path: optim.lr"""


def as_list(value: Any) -> Any:
    """Makes a list of a single value, which may be written without one."""
    return value if isinstance(value, list | tuple) else [value]


def _grids(value: Any) -> Any:
    """A list of grids. Raises ValueError for anything else, in one message."""
    if not all(isinstance(grid, dict) for grid in as_list(value)):
        raise ValueError("must be {field: values, ...}, or a list of such grids")
    return as_list(value)


MAX_TRIALS = 100_000
"""Of a job. More are a slip of the pen, and planning them would fill the memory."""
MAX_VALUES = 10_000
"""Of an axis."""
Count = Annotated[int, Field(ge=2, le=MAX_VALUES)]
"""Of the values of an axis; a single value is written as a list."""

LENGTH = ("optim.epochs", "optim.iterations", "runtime.report_iterations")
"""Fields from which a trial's number of rounds follows."""


class LogSpace(SpecModel):
    """`{logspace: [low, high, count]}`: evenly spaced in the logarithm, ends included."""

    logspace: tuple[PositiveNumber, PositiveNumber, Count] = Field(strict=False)

    @field_validator("logspace")
    @classmethod
    def _ordered(cls, bounds: tuple[float, float, int]) -> tuple[float, float, int]:
        check_ratio(*bounds[:2])
        return _low_high_count(bounds)


class LinSpace(SpecModel):
    """`{linspace: [low, high, count]}`: evenly spaced, ends included."""

    linspace: tuple[Number, Number, Count] = Field(strict=False)

    @field_validator("linspace")
    @classmethod
    def _ordered(cls, bounds: tuple[float, float, int]) -> tuple[float, float, int]:
        return _low_high_count(bounds)


def _low_high_count(bounds: tuple[float, float, int]) -> tuple[float, float, int]:
    low, high, _ = bounds
    if low >= high:
        raise ValueError(f"the low end {low:g} must be below the high end {high:g}")
    return bounds


def _axis_kind(value: Any) -> str | None:
    if isinstance(value, LogSpace) or (isinstance(value, dict) and "logspace" in value):
        return "LogSpace"
    if isinstance(value, LinSpace) or (isinstance(value, dict) and "linspace" in value):
        return "LinSpace"
    return "values" if isinstance(value, list | tuple) else None


Axis = Annotated[
    Annotated[LogSpace, Tag("LogSpace")]
    | Annotated[LinSpace, Tag("LinSpace")]
    | Annotated[list[Any], Field(min_length=1, max_length=MAX_VALUES), Tag("values")],
    Discriminator(
        _axis_kind,
        custom_error_type="axis",
        custom_error_message="must be a list of values, or logspace or linspace: [low, high, count]",
    ),
]
"""The values of one field in a grid."""

Axes = Annotated[dict[Path_, Axis], Field(min_length=1, max_length=50)]


class SingleSetting(SpecModel):
    """No sweep: the base trial with the stage's overrides."""

    kind: Literal["one"] = "one"


class Grid(SpecModel):
    """Every combination of the axes; with several grids, their union in order."""

    grid: Annotated[list[Axes], Field(min_length=1, max_length=100), BeforeValidator(_grids)]
    """A single mapping is a list of one."""


class Search(SpecModel):
    """Points that are chosen one after the other from the results so far; one search for every combination of `each`.
    They run side by side and share the seed, so that all groups begin with the same points."""

    search: dict[Path_, Range] = Field(min_length=1, max_length=50)
    each: dict[Path_, Axis] = Field(default={}, max_length=50)
    """Fields that form the groups (the stage's `per`), and their values."""
    trials: int = Field(ge=1, le=MAX_TRIALS)
    """In each group."""
    sampler: Literal["tpe", "random", "quasi_random"] = "tpe"
    """`tpe`: tree-structured Parzen estimators (Optuna's, through Ray Tune's OptunaSearch); `random`; `quasi_random`:
    a scrambled Sobol sequence (its first point is random)."""
    startup: int = Field(default=10, ge=1, le=MAX_TRIALS)
    """Random points before TPE begins to model (10: Optuna's)."""
    at_once: int = Field(default=4, ge=1, le=MAX_TRIALS)
    """Trials of a group that run at the same time. The more there are, the fewer results each point is chosen from."""
    seed: int = Field(default=0, ge=0, le=MAX_NUMPY_SEED)
    """The same seed gives the same random and quasi-random points. TPE and early stopping depend on the order of
    results: with `at_once: 1` a second run repeats the first, with more it may not. A resumed search follows its log.
    """
    first: list[dict[Path_, Any]] = Field(default=[], max_length=1000)
    """Points to start with; each names every field of `search`."""
    stopping: Stopping = "none"
    population: Population | None = None
    """Population-based training instead of independent points; `trials` must equal `population.size`."""

    @model_validator(mode="after")
    def _together(self) -> Search:
        if both := [path for path in self.each if path in self.search]:
            raise ValueError(f"{both[0]} is in both search and each; keep one of them")
        if len(self.first) > self.trials:
            raise ValueError(f"first has {len(self.first)} points, but trials is {self.trials}")
        if self.population is not None:
            if self.stopping != "none":
                raise ValueError("a population has no stopping: its worst members copy better ones instead")
            if self.trials != self.population.size:
                raise ValueError(f"trials {self.trials} must be population.size {self.population.size}")
            if path := next((path for path in LENGTH if path in self.search), None):
                raise ValueError(f"a population cannot search {path}: its members train in step")
        return self


def _sweep_kind(value: Any) -> str | None:
    if isinstance(value, Grid) or (isinstance(value, dict) and "grid" in value):
        return "Grid"
    if isinstance(value, Search) or (isinstance(value, dict) and "search" in value):
        return "Search"
    is_one = isinstance(value, SingleSetting) or (isinstance(value, dict) and not value.keys() - {"kind"})
    return "One" if is_one else None


Sweep = Annotated[
    Annotated[SingleSetting, Tag("One")] | Annotated[Grid, Tag("Grid")] | Annotated[Search, Tag("Search")],
    Discriminator(
        _sweep_kind,
        custom_error_type="sweep",
        custom_error_message="must be {grid: {field: values, ...}}, {search: {field: range, ...}, trials: ...} or "
        "{kind: one}",
    ),
]


def axis_length(axis: LogSpace | LinSpace | list[Any]) -> int:
    """The number of values of an axis, without computing them."""
    if isinstance(axis, list):
        return len(axis)
    return axis.logspace[2] if isinstance(axis, LogSpace) else axis.linspace[2]


def apart(axis: Any, other: Any) -> bool:
    """True for two lists of values without a common one."""
    return isinstance(axis, list) and isinstance(other, list) and not any(value in other for value in axis)


def axis_values(axis: LogSpace | LinSpace | list[Any]) -> list[Any]:
    """The values of an axis in order. Computed ones are rounded to 12 digits, so that keys are the same everywhere."""
    if isinstance(axis, list):
        return list(axis)
    low, high, count = axis.logspace if isinstance(axis, LogSpace) else axis.linspace
    fractions = [i / (count - 1) for i in range(count)]
    if isinstance(axis, LogSpace):
        return [plain_number(low * (high / low) ** fraction) for fraction in fractions]
    return [plain_number(low + (high - low) * fraction) for fraction in fractions]


def points(sweep: SingleSetting | Grid | Search) -> list[dict[str, Any]]:
    """Every setting of a sweep, path -> value: grids in order, the last axis of a grid fastest.

    A search is represented, for each group, by the middle of its ranges, and by the points that move one field of the
    middle to an end of its range or to another choice.
    """
    if isinstance(sweep, SingleSetting):
        return [{}]
    if isinstance(sweep, Search):
        centre = middle(sweep.search)
        moved = [{**centre, path: value} for path, space in sweep.search.items() for value in tried_at_load(space)]
        return [{**group, **point} for group in groups_of(sweep) for point in [centre, *moved]]
    return [
        dict(zip(axes, values, strict=True))
        for axes in sweep.grid
        for values in itertools.product(*(axis_values(axis) for axis in axes.values()))
    ]


def groups_of(search: Search) -> list[Point]:
    """The values that form each group of a search, path -> value, the last field fastest."""
    lists = [axis_values(axis) for axis in search.each.values()]
    return [dict(zip(search.each, values, strict=True)) for values in itertools.product(*lists)]
