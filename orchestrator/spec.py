"""The only place that says what a user may ask for: a job, its stages, and how they follow from each other."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt

_strict = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, populate_by_name=True)

Path_ = Annotated[str, Field(pattern=r"^[a-z_]+(\.[A-Za-z0-9_]+)*$")]
"""A field of the trial, by its dotted path: optim.lr"""


class Resources(BaseModel):
    """What one trial holds while it runs."""

    model_config = _strict
    cpus: NonNegativeFloat = 1
    gpus: NonNegativeFloat = 0
    """A fraction below 1 shares a GPU; with several workers: of each worker."""
    custom: dict[str, NonNegativeFloat] = {}
    """Ray custom resources, for example {a100: 1}."""
    workers: PositiveInt = 1
    """Processes of one trial (DDP through Ray Train when above 1); cpus and gpus are of each."""
    time_limit_hours: PositiveFloat | None = None
    images_per_second: PositiveFloat = 300
    """Guess of the training speed of one worker, used by `plan` until a step time is recorded."""


class LogSpace(BaseModel):
    """`{logspace: [low, high, count]}`: evenly spaced in the logarithm, ends included."""

    model_config = _strict
    logspace: tuple[PositiveFloat, PositiveFloat, PositiveInt]


class LinSpace(BaseModel):
    """`{linspace: [low, high, count]}`: evenly spaced, ends included."""

    model_config = _strict
    linspace: tuple[float, float, PositiveInt]


Axis = LogSpace | LinSpace | list[Any]
Axes = dict[Path_, Axis]


class One(BaseModel):
    """No sweep: the base trial with the stage's overrides."""

    model_config = _strict
    kind: Literal["one"] = "one"


class Grid(BaseModel):
    """Every combination of the axes; several grids are run one after the other's end (their union)."""

    model_config = _strict
    grid: list[Axes]  # a single mapping in YAML is read as a list of one


class Near(BaseModel):
    """Values to try around the winner's value: multiples of it, or steps from it."""

    model_config = _strict
    multiply: list[PositiveFloat] = []
    add: list[float] = []
    low: float | None = None
    """Values below (or above `high`) are left out, and the plan says so."""
    high: float | None = None


class Neighbourhood(BaseModel):
    """Which settings around the winner are tried (the paper says only "in the neighborhood of the best setting")."""

    model_config = _strict
    shape: Literal["star", "box"] = "star"
    """`star`: one field moved at a time; `box`: every combination of the moved fields."""
    near: dict[Path_, Near]


class Stage(BaseModel):
    """A step of a job: a sweep of its own, or what follows from the winners of earlier stages."""

    model_config = _strict
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    sweep: One | Grid = One()
    per: list[Path_] = []
    """Fields that form a group; a winner is chosen in each. A stage with `from` has the groups of its source."""
    from_: list[str] = Field(default=[], alias="from")
    """Stages of which this one takes each group's winner (over all of them together)."""
    neighbourhood: Neighbourhood | None = None
    """Try the settings around the winner; without it, a stage with `from` runs the winner itself (with overrides)."""
    override: dict[Path_, Any] = {}
    """Fields set for every trial of this stage."""
    ties: list[str] = [
        "figure:loss:min", "optim.lr:min", "optim.layer_decay:max", "backbone.drop_path:min",
    ]
    """How trials with equal metric are ordered, when a later stage takes the winner: a field or a figure on val,
    with min or max; last, the key. (The paper is silent.)"""
    resources: Resources | None = None
    keep_weights: bool | None = None
    """Default: kept when a later trial starts from them or when the stage takes winners to test; else removed."""


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


class ReportSpec(BaseModel):
    """What the job's table looks like."""

    model_config = _strict
    stage: str = ""
    """The stage whose figures fill the cells (none: the last stage)."""
    rows: Path_ = "backbone.init"
    columns: Path_ = "task.dataset"
    averages: list[Average] = [Average()]
    reference: Reference | None = None
    caption: str = ""


class JobSpec(BaseModel):
    """What a user submits. `trial` is the base that stages complete; every resulting trial is checked at load."""

    model_config = _strict
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=60)
    profile: str = ""
    """The profile that was laid over (in a file: the one taken when none is asked for)."""
    trial: dict[str, Any]
    stages: list[Stage] = Field(min_length=1)
    resources: Resources = Resources()
    priority: int = 0
    """Among jobs on one cluster the higher goes first; equal ones share."""
    report: ReportSpec = ReportSpec()
