"""The only place that says what a user may ask for: a job, its stages, and how they follow from each other."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from orchestrator.space import Point, Population, Range, Stopping, middle, tried_at_load
from workers.trial import plain_number

_strict = ConfigDict(
    frozen=True,
    extra="forbid",
    strict=True,  # the text '5' is no number and `true` is no count, whatever Python says
    allow_inf_nan=False,
    use_attribute_docstrings=True,
    populate_by_name=True,
)

Path_ = Annotated[str, Field(pattern=r"^[a-z_]+(\.[A-Za-z0-9_]+)*$")]
"""A field of the trial, by its dotted path: optim.lr"""

PLANNERS_OWN = "may_test"
"""The field of a trial that no spec may set."""


def _listed(value: Any) -> Any:
    """A single one may be written without the list around it."""
    return value if isinstance(value, list | tuple) else [value]


class Resources(BaseModel):
    """What one trial holds while it runs."""

    model_config = _strict
    cpus: NonNegativeFloat = 1.0
    gpus: NonNegativeFloat = 0.0
    """A fraction below 1 shares a GPU; with several workers: of each worker."""
    custom: dict[str, NonNegativeFloat] = {}
    """Ray custom resources, for example {a100: 1}."""
    workers: PositiveInt = 1
    """Processes of one trial (through Ray Train when above 1); cpus and gpus are of each."""
    min_workers: PositiveInt | None = None
    """Elastic: where there is no room for `workers`, as after the loss of a node, a trial begins with half of them, a
    third, .. down to this many, from its last checkpoint and with the same global batch. It gets no more before it
    begins again. None: it waits for room."""
    time_limit_hours: PositiveFloat | None = None
    images_per_second: PositiveFloat = 300.0
    """Guess of the training speed of one worker, used by `plan` until a step time is recorded."""

    @model_validator(mode="after")
    def _fewer(self) -> Resources:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is above workers {self.workers}")
        return self

    def fitting(self) -> list[Resources]:
        """These, then those with fewer workers that may do: whole parts of `workers`, since a batch that is shared out
        evenly among all is so among them."""
        fewest = self.min_workers or self.workers
        counts = [count for count in range(self.workers, fewest - 1, -1) if self.workers % count == 0]
        return [self.model_copy(update={"workers": count, "min_workers": None}) for count in counts]

    @field_validator("gpus")
    @classmethod
    def _whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("above 1 only whole GPUs can be held")
        return gpus


class LogSpace(BaseModel):
    """`{logspace: [low, high, count]}`: evenly spaced in the logarithm, ends included."""

    model_config = _strict
    logspace: tuple[PositiveFloat, PositiveFloat, PositiveInt] = Field(strict=False)

    @field_validator("logspace")
    @classmethod
    def _ordered(cls, bounds: tuple[float, float, int]) -> tuple[float, float, int]:
        return _low_high_count(bounds)


class LinSpace(BaseModel):
    """`{linspace: [low, high, count]}`: evenly spaced, ends included."""

    model_config = _strict
    linspace: tuple[float, float, PositiveInt] = Field(strict=False)

    @field_validator("linspace")
    @classmethod
    def _ordered(cls, bounds: tuple[float, float, int]) -> tuple[float, float, int]:
        return _low_high_count(bounds)


def _low_high_count(bounds: tuple[float, float, int]) -> tuple[float, float, int]:
    low, high, count = bounds
    if low >= high:
        raise ValueError(f"the low end {low:g} must be below the high end {high:g}")
    if count < 2:
        raise ValueError("the count must be at least 2; write a list for a single value")
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
    | Annotated[list[Any], Field(min_length=1), Tag("values")],
    Discriminator(
        _axis_kind,
        custom_error_type="axis",
        custom_error_message="must be a list of values, or logspace or linspace: [low, high, count]",
    ),
]
"""The values of one field in a grid."""

Axes = Annotated[dict[Path_, Axis], Field(min_length=1)]


class One(BaseModel):
    """No sweep: the base trial with the stage's overrides."""

    model_config = _strict
    kind: Literal["one"] = "one"


class Grid(BaseModel):
    """Every combination of the axes; of several grids the union, in their order."""

    model_config = _strict
    grid: Annotated[list[Axes], Field(min_length=1), BeforeValidator(_listed)]
    """A single mapping is read as a list of one."""


class Search(BaseModel):
    """Points that are chosen one after the other, by what is known of the earlier ones; a search of its own for every
    combination of `each`, all at once, and with the same seed, so that groups begin with the same points."""

    model_config = _strict
    search: dict[Path_, Range] = Field(min_length=1)
    each: dict[Path_, Axis] = {}
    """Fields that form the groups (the stage's `per`), and their values."""
    trials: PositiveInt
    """Of each group."""
    sampler: Literal["tpe", "random", "quasi_random"] = "tpe"
    """`tpe`: tree-structured Parzen estimators (Optuna's, through Ray Tune's OptunaSearch); `random`; `quasi_random`:
    a scrambled Sobol sequence (its first point is random)."""
    startup: PositiveInt = 10
    """Random points before TPE begins to model (10: Optuna's)."""
    at_once: PositiveInt = 4
    """Points of a group that are out at the same time. The more, the less each knows of the others."""
    seed: int = Field(default=0, ge=0)
    first: list[dict[Path_, Any]] = []
    """Points to begin with; each names every field of `search`."""
    stopping: Stopping = "none"
    population: Population | None = None
    """Population-based training instead of points of their own: `trials` is then `population.size`."""

    @model_validator(mode="after")
    def _together(self) -> Search:
        if both := [path for path in self.each if path in self.search]:
            raise ValueError(f"{both[0]} stands in search and in each; keep one of them")
        if len(self.first) > self.trials:
            raise ValueError(f"first has {len(self.first)} points, but trials is {self.trials}")
        if self.population is not None:
            if self.stopping != "none":
                raise ValueError("a population has no stopping: its worst members copy better ones instead")
            if self.trials != self.population.size:
                raise ValueError(f"trials {self.trials} must be population.size {self.population.size}")
            if "optim.epochs" in self.search:
                raise ValueError("a population cannot search optim.epochs: its members train in step")
        return self


def _sweep_kind(value: Any) -> str | None:
    if isinstance(value, Grid) or (isinstance(value, dict) and "grid" in value):
        return "Grid"
    if isinstance(value, Search) or (isinstance(value, dict) and "search" in value):
        return "Search"
    return "One" if isinstance(value, One | dict) else None


Sweep = Annotated[
    Annotated[One, Tag("One")] | Annotated[Grid, Tag("Grid")] | Annotated[Search, Tag("Search")],
    Discriminator(
        _sweep_kind,
        custom_error_type="sweep",
        custom_error_message="must be {grid: {field: values, ...}}, {search: {field: range, ...}, trials: ...} or "
        "{kind: one}",
    ),
]


class Near(BaseModel):
    """Values to try around the winner's value: multiples of it, or steps from it."""

    model_config = _strict
    multiply: list[PositiveFloat] = []
    add: list[float] = []
    low: float | None = None
    """Values below (or above `high`) are left out, and the plan says so."""
    high: float | None = None

    @model_validator(mode="after")
    def _moves(self) -> Near:
        if not self.multiply and not self.add:
            raise ValueError("needs values in multiply or add")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} must not be above high {self.high:g}")
        return self


class Neighbourhood(BaseModel):
    """Which settings around the winner are tried (the paper says only "in the neighborhood of the best setting")."""

    model_config = _strict
    shape: Literal["star", "box"] = "star"
    """`star`: one field moved at a time; `box`: every combination of the moved fields."""
    near: dict[Path_, Near] = Field(min_length=1)


class Stage(BaseModel):
    """A step of a job: a sweep of its own, or what follows from the winners of earlier stages."""

    model_config = _strict
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    sweep: Sweep = One()
    """With `from` (and no neighbourhood): every winner at every point, for example over seeds."""
    per: Annotated[list[Path_], BeforeValidator(_listed)] = []
    """Fields that form a group; a winner is chosen in each. A stage with `from` has the groups of its source."""
    from_: Annotated[list[str], BeforeValidator(_listed)] = Field(default=[], alias="from")
    """Stages of which this one takes each group's winner (over all of them together)."""
    neighbourhood: Neighbourhood | None = None
    """Try the settings around the winner; without it, a stage with `from` runs the winner itself (with overrides)."""
    override: dict[Path_, Any] = {}
    """Fields set for every trial of this stage."""
    ties: list[str] = [
        "figure:loss:min",
        "optim.lr:min",
        "optim.layer_decay:max",
        "backbone.drop_path:min",
    ]
    """How trials with equal metric are ordered, when a later stage takes the winner: a field or a figure on val,
    with min or max; last, the key. (The paper is silent.)"""
    resources: Resources | None = None
    """None: the job's."""
    keep_weights: bool | None = None
    """Default: kept when a later trial starts from them or when the stage takes winners to test; else removed."""

    @model_validator(mode="before")
    @classmethod
    def _groups_of_a_search(cls, fields: Any) -> Any:
        """A search's groups are what its `each` says."""
        sweep = fields.get("sweep") if isinstance(fields, dict) else None
        each = sweep.get("each", {}) if isinstance(sweep, dict) and "search" in sweep else None
        return {"per": list(each), **fields} if isinstance(each, dict) else fields


class Average(BaseModel):
    """A column of the table: the mean over some columns."""

    model_config = _strict
    name: str = "Average"
    over: list[str] = []
    """Column values; none: all columns."""


class Reference(BaseModel):
    """Published values, printed beside ours."""

    model_config = _strict
    source: str
    values: dict[str, dict[str, float]]
    """Row -> column -> value, in the table's units (percent for accuracies)."""


class Plot(BaseModel):
    """A picture beside the table: its values against another number of each trial."""

    model_config = _strict
    title: str = ""
    x: str
    """Name of a figure, for example avg_dist."""
    of: Literal["trial", "parent"] = "trial"
    """Whose figure `x` is: the table's trial's, or that of the trial whose weights it starts from (through as many
    trials as it takes to find one that has it)."""
    y: Literal["value", "error"] = "value"
    """`error`: what an accuracy lacks to 100 percent."""


class ReportSpec(BaseModel):
    """What the job's table looks like."""

    model_config = _strict
    stage: str = ""
    """The stage whose figures fill the cells (none: the last stage)."""
    rows: Path_ = "backbone.init"
    columns: Path_ = "task.dataset"
    averages: list[Average] = [Average()]
    reference: Reference | None = None
    plots: list[Plot] = []
    caption: str = ""


class JobSpec(BaseModel):
    """What a user submits. `trial` is the base that stages complete; every resulting trial is checked at load."""

    model_config = _strict
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)
    profile: str = ""
    """The profile that was laid over (in a file: the one taken when none is asked for)."""
    trial: dict[str, Any]
    """Base trial, a part of TrialSpec: task, backbone, optim, runtime, seed."""
    stages: list[Stage] = Field(min_length=1)
    resources: Resources = Resources()
    priority: int = 0
    """Among jobs on one cluster the higher goes first; equal ones share."""
    report: ReportSpec = ReportSpec()


def axis_length(axis: LogSpace | LinSpace | list[Any]) -> int:
    """How many values an axis has, without making them."""
    if isinstance(axis, list):
        return len(axis)
    return axis.logspace[2] if isinstance(axis, LogSpace) else axis.linspace[2]


def axis_values(axis: LogSpace | LinSpace | list[Any]) -> list[Any]:
    """The values of an axis in their order; computed ones have 12 digits, so that they have one key everywhere."""
    if isinstance(axis, list):
        return list(axis)
    low, high, count = axis.logspace if isinstance(axis, LogSpace) else axis.linspace
    at = [i / (count - 1) for i in range(count)]
    if isinstance(axis, LogSpace):
        return [plain_number(low * (high / low) ** part) for part in at]
    return [plain_number(low + (high - low) * part) for part in at]


def points(sweep: One | Grid | Search) -> list[dict[str, Any]]:
    """Every setting of a sweep, path -> value: grids in their order, the last axis of a grid fastest. Of a search, what
    stands for it: of each group the middle, and from there each field at its ends (or at every choice)."""
    if isinstance(sweep, One):
        return [{}]
    if isinstance(sweep, Search):
        centre = middle(sweep.search)
        moved = [{**centre, path: value} for path, one in sweep.search.items() for value in tried_at_load(one)]
        return [{**group, **point} for group in groups_of(sweep) for point in [centre, *moved]]
    return [
        dict(zip(axes, values, strict=True))
        for axes in sweep.grid
        for values in itertools.product(*(axis_values(axis) for axis in axes.values()))
    ]


def groups_of(search: Search) -> list[Point]:
    """The fields that form each group of a search, and their values, the last field fastest."""
    lists = [axis_values(axis) for axis in search.each.values()]
    return [dict(zip(search.each, values, strict=True)) for values in itertools.product(*lists)]


APPLIED_TO = ("seed", "task.dataset")
"""Fields that are no part of a setting: a chosen setting may be applied to several of them, and read test each time, as
long as nothing is chosen from the results."""


def one_setting(sweep: One | Grid | Search) -> bool:
    """Whether all points of a sweep are one setting, with one or several seeds, on one or several data sets."""
    if isinstance(sweep, Search):
        return False
    grids = sweep.grid if isinstance(sweep, Grid) else []
    others = [{path: axis for path, axis in axes.items() if path not in APPLIED_TO} for axes in grids]
    if any(axis_length(axis) > 1 for axes in others for axis in axes.values()):
        return False
    return all(axes == others[0] for axes in others)


def apply(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with each dotted path set, in order; mappings on the way are copied (or made), never changed in place.

    Raises ValueError when a path leads through something that is no mapping.
    """
    result = dict(base)
    for path, value in values.items():
        *way, last = path.split(".")
        here = result
        for step in way:
            below = here.get(step)
            if below is not None and not isinstance(below, Mapping):
                raise ValueError(f"{path}: {step} is {below!r}, not a mapping")
            here[step] = here = dict(below or {})
        here[last] = value
    return result


def job_id(job: JobSpec) -> str:
    """ "<name>-<profile>-<8 hex digits>": the digits hash all that the job says, so the same content has the same id.

    Also what cannot change a result (priority, resources) is in the hash: such a change makes another job, which
    finds its trials done, because those are known by their own keys.
    """
    content = json.dumps(job.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))
    digits = hashlib.sha256(content.encode()).hexdigest()[:8]
    return "-".join(part for part in (job.name, job.profile, digits) if part)
