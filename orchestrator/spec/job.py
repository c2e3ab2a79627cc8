"""The only place that says what a user may ask for: a job, its stages, and how they follow from each other."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from orchestrator.spec.sweep import Path_, SingleSetting, Sweep, as_list

_strict = ConfigDict(
    frozen=True,
    extra="forbid",
    strict=True,  # the text '5' is no number and `true` is no count, whatever Python says
    allow_inf_nan=False,
    use_attribute_docstrings=True,
    populate_by_name=True,
)

PLANNER_ONLY = "may_test"
"""The field of a trial that no spec may set."""


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
    sweep: Sweep = SingleSetting()
    """With `from` (and no neighbourhood): every winner at every point, for example over seeds."""
    per: Annotated[list[Path_], BeforeValidator(as_list)] = []
    """Fields that form a group; a winner is chosen in each. A stage with `from` has the groups of its source."""
    from_: Annotated[list[str], BeforeValidator(as_list)] = Field(default=[], alias="from")
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
    """Default: kept when a later trial starts from them, when the stage takes winners to test, and of pre-training;
    else removed."""

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
    values: dict[str, dict[str, float | dict[str, float]]]
    """Row -> column -> value, in the table's units (percent for accuracies). A table of several figures: the value of
    the first, or figure -> value."""


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
    """`value`: the figure that the table shows (its first). `error`: the complement of that (error rate, for an
    accuracy), for figures that have one."""


class ReportSpec(BaseModel):
    """What the job's table looks like."""

    model_config = _strict
    stage: str = ""
    """The stage whose figures fill the cells (none: the last stage)."""
    rows: Path_ = "backbone.init"
    columns: Path_ = "task.dataset"
    figures: list[str] = []
    """Names of the figures to show, each a column beside the others under each value of `columns`; none: the one that
    trials are chosen by. Choices and heat maps are always of that one."""
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


def job_id(job: JobSpec) -> str:
    """ "<name>-<profile>-<8 hex digits>": the digits hash all that the job says, so the same content has the same id.

    Also what cannot change a result (priority, resources) is in the hash: such a change makes another job, which
    finds its trials done, because those are known by their own keys.
    """
    content = json.dumps(job.model_dump(mode="json", by_alias=True), sort_keys=True, separators=(",", ":"))
    digits = hashlib.sha256(content.encode()).hexdigest()[:8]
    return "-".join(part for part in (job.name, job.profile, digits) if part)
