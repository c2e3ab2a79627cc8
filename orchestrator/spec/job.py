"""The models of a job and its stages, and the job's id."""

from __future__ import annotations

import hashlib
import json
import operator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from orchestrator.spec.claims import MAX_CLAIMS, Claim
from orchestrator.spec.identity import hashed_content
from orchestrator.spec.layer_figure import LayerFigure
from orchestrator.spec.model import SpecModel
from orchestrator.spec.replicates import Replicates, ReplicatesField
from orchestrator.spec.search_space import MAX_NUMBER, Number
from orchestrator.spec.sweep import Path_, SingleSetting, Sweep, as_list
from tasks import TASKS, task_class
from tasks.bounds import Label, Prose
from workers.plugin_code import Plugin, PluginField
from workers.trial import KEY_VERSION

NAME = r"^[a-z0-9][a-z0-9-]*$"
PROFILE = r"^[a-z0-9][a-z0-9_-]*$"
"""A job's name and its profile become parts of file names."""
MAX_NAME = 60
MAX_STAGES = 100
MAX_PROFILES = 50

PLANNER_ONLY = ("may_test", "batch_workers", "plugins")
"""The fields of a trial that no spec may set."""


SMALLEST_AMOUNT = 0.0001
"""Of a resource: what Ray refuses to go below (RESOURCE_UNIT_SCALING)."""
TOO_SMALL = f"Ray counts in steps of {SMALLEST_AMOUNT}; write at least that, or 0"
RESERVED = {
    "": "a name has at least one character",
    "CPU": "write resources.cpus",
    "GPU": "write resources.gpus",
    **dict.fromkeys(("memory", "object_store_memory", "bundle"), "Ray keeps this name for itself; choose another"),
}
"""Names that no custom resource may have in Ray, and what to do."""


class Resources(SpecModel):
    """The resources that one trial holds while it runs."""

    cpus: float = Field(default=1.0, ge=0, le=10_000)
    gpus: float = Field(default=0.0, ge=0, le=10_000)
    """A fraction below 1 shares a GPU; with several workers: of each worker."""
    custom: dict[Label, Annotated[float, Field(ge=0, le=1_000_000)]] = Field(default={}, max_length=50)
    """Ray custom resources, for example {a100: 1}."""
    workers: int = Field(default=1, ge=1, le=10_000)
    """Processes of one trial (through Ray Train when above 1); cpus and gpus are of each."""
    min_workers: int | None = Field(default=None, ge=1, le=10_000)
    """Elastic: if there is no room for `workers`, for example after the loss of a node, a trial starts with half of
    them, a third, .. down to this many, from its last checkpoint and with the same global batch. It keeps that number
    until it starts again. None: it waits for room. Not for tasks whose loss needs a worker's whole share of the batch:
    there the number of workers is part of the trial."""
    time_limit_hours: float | None = Field(default=None, gt=0, le=10_000)
    images_per_second: float = Field(default=300.0, gt=0, le=1e9)
    """Guess of the training speed of one worker, used by `plan` until a step time is recorded."""

    @model_validator(mode="after")
    def _fewer(self) -> Resources:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is above workers {self.workers}")
        return self

    def fitting(self) -> list[Resources]:
        """These resources, then those with fewer workers, down to `min_workers`. Each number of workers divides
        `workers`, so that the batch is still shared evenly."""
        fewest = self.min_workers or self.workers
        counts = [count for count in range(self.workers, fewest - 1, -1) if self.workers % count == 0]
        return [self.model_copy(update={"workers": count, "min_workers": None}) for count in counts]

    @field_validator("gpus")
    @classmethod
    def _whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("above 1 only whole GPUs are possible")
        return gpus

    @field_validator("cpus", "gpus")
    @classmethod
    def _not_too_small(cls, amount: float) -> float:
        if 0 < amount < SMALLEST_AMOUNT:
            raise ValueError(TOO_SMALL)
        return amount

    @field_validator("custom")
    @classmethod
    def _other_names(cls, custom: dict[str, float]) -> dict[str, float]:
        for name, amount in custom.items():
            if name in RESERVED:
                raise ValueError(f"{name or '(no name)'}: {RESERVED[name]}")
            if 0 < amount < SMALLEST_AMOUNT:
                raise ValueError(f"{name}: {amount:g}: {TOO_SMALL}")
        return custom


class Near(SpecModel):
    """Values to try around the winner's value: multiples of it, or steps from it."""

    multiply: list[Annotated[float, Field(gt=0, le=MAX_NUMBER)]] = Field(default=[], max_length=100)
    add: list[Number] = Field(default=[], max_length=100)
    low: Number | None = None
    """Values below `low` or above `high` are left out, with a note in the decision."""
    high: Number | None = None

    @model_validator(mode="after")
    def _moves(self) -> Near:
        if not self.multiply and not self.add:
            raise ValueError("needs values in multiply or add")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} must not be above high {self.high:g}")
        return self


class Neighbourhood(SpecModel):
    """The settings to try around the winner (the paper says only "in the neighborhood of the best setting")."""

    shape: Literal["star", "box"] = "star"
    """`star`: one field moved at a time; `box`: every combination of the moved fields."""
    near: dict[Path_, Near] = Field(min_length=1, max_length=50)


class Stage(SpecModel):
    """A step of a job: a sweep of its own, or trials that follow from the winners of earlier stages."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=60)
    sweep: Sweep = SingleSetting()
    """With `from` (and no neighbourhood): every winner at every point, for example over seeds."""
    per: Annotated[list[Path_], BeforeValidator(as_list)] = Field(default=[], max_length=50)
    """Fields that form a group; a winner is chosen in each. A stage with `from` has the groups of its source. Where
    such a stage reads test, groups may differ in nothing but what the report compares (rows, columns, x axes) and the
    seed: to measure one winner for each learning rate on test would be to choose the learning rate by it."""
    from_: Annotated[list[Label], BeforeValidator(as_list)] = Field(default=[], alias="from", max_length=MAX_STAGES)
    """Stages whose winner this one takes, one for each group over all of them together."""
    neighbourhood: Neighbourhood | None = None
    """The settings to try around the winner; without it, a stage with `from` reruns the winner (with overrides)."""
    override: dict[Path_, Any] = Field(default={}, max_length=500)
    """Fields set for every trial of this stage."""
    ties: list[Label] = Field(
        default=["figure:loss:min", "optim.lr:min", "optim.layer_decay:max", "backbone.drop_path:min"], max_length=50
    )
    """How trials with an equal metric are ordered when a later stage takes the winner: by a field or a figure on val,
    with min or max; last, by the key. (The paper does not say.)"""
    replicates: ReplicatesField | None = None
    """Every setting runs with n seeds (`n`, or `{n, first}`); None: once, with its own. Settings are then compared by
    their means over the seeds, and replicate i starts from the weights of replicate i of a stage. The seeds begin at
    the base trial's; around a winner they are the winner's, and a winner is run again with seeds that come after all
    those by which it was chosen."""
    resources: Resources | None = None
    """None: the job's."""
    keep_weights: bool | None = None
    """Default: kept if a later trial starts from them, if the stage measures winners on test, or if the task is
    pre-training; else removed."""

    @model_validator(mode="before")
    @classmethod
    def _groups_of_a_search(cls, fields: Any) -> Any:
        """The fields of `each` form the groups of a search."""
        sweep = fields.get("sweep") if isinstance(fields, dict) else None
        each = sweep.get("each", {}) if isinstance(sweep, dict) and "search" in sweep else None
        return {"per": list(each), **fields} if isinstance(each, dict) else fields

    @field_validator("replicates")
    @classmethod
    def _one_form(cls, replicates: int | Replicates | None) -> int | Replicates | None:
        """`{n: 5}` is 5: the same content has one id."""
        return replicates.n if isinstance(replicates, Replicates) and replicates.first is None else replicates


class Average(SpecModel):
    """A column of the table: the mean over some columns."""

    name: Label = "Average"
    over: list[Label] = Field(default=[], max_length=1000)
    """Values of the column field; empty: all columns."""


def _published_kind(value: Any) -> str | None:
    if isinstance(value, dict):
        return "figures"
    return "value" if isinstance(value, int | float) and not isinstance(value, bool) else None


Published = Annotated[
    Annotated[Number, Tag("value")]
    | Annotated[dict[Label, Number], Field(min_length=1, max_length=50), Tag("figures")],
    Discriminator(
        _published_kind,
        custom_error_type="published",
        custom_error_message="must be a number, or {figure: number, ...}",
    ),
]


class PublishedRow(SpecModel):
    """A row without trials: published values of another method."""

    name: Label
    source: Prose
    values: dict[Label, Published] = Field(min_length=1, max_length=1000)
    """Column, or name of an average -> value in the table's unit, or figure -> value. A bare number is of the first
    figure."""


class Reference(SpecModel):
    """Published values, printed beside ours and below them."""

    source: Prose
    values: dict[Label, Annotated[dict[Label, Published], Field(max_length=1000)]] = Field(default={}, max_length=1000)
    """Row -> column -> value, in the table's units (percent for accuracies). A table of several figures: the value of
    the first, or figure -> value."""
    rows: list[PublishedRow] = Field(default=[], max_length=100)
    """Below the table: rows of published values that have no trials."""


class SecondAxis(SpecModel):
    """Another figure at the places of a plot's dots, on an axis of its own at the right."""

    stage: Label
    """The stage that measures it; its trials belong to the dots of the same row and column of the table."""
    figure: Label


class Plot(SpecModel):
    """A plot of the table's values against another figure, or a setting, of each trial."""

    title: Label = ""
    x: Label
    """Name of a figure, for example avg_dist; or the dotted path of a field of the trial that is a number, for example
    optim.lr. There is a dot for each cell of the table; where the trials of a cell differ in that field, they are drawn
    as a curve, and the cell itself has no number. If it is the field of the table's columns, every row is a curve. A
    trial in which the field is null has a place of its own, left of the numbers."""
    of: Literal["trial", "parent"] = "trial"
    """The trial whose figure or setting `x` is: the table's trial, or the nearest trial up its lineage of weights that
    has it."""
    y: Literal["value", "error"] = "value"
    """`value`: the figure that the table shows (its first). `error`: the complement of that (error rate, for an
    accuracy), for figures that have one."""
    second: SecondAxis | None = None
    """A second figure for each dot, for example the mean attention distance of its weights. Not for curves over a
    field."""


class ReportSpec(SpecModel):
    """The rows, columns and plots of the job's report."""

    stage: Label = ""
    """The stage whose figures fill the cells; empty: the last stage."""
    rows: Path_ = "backbone.init"
    columns: Path_ = "task.dataset"
    """Where the base trial's task has no field `dataset`, the default is the first of its fields that name data sets,
    and `task.kind` for a task without data sets."""
    figures: list[Label] = Field(default=[], max_length=50)
    """Names of the figures to show, each a column beside the others under each value of `columns`; none: the one that
    trials are chosen by. Choices and heat maps are always of that one."""
    averages: list[Average] = Field(default=[Average()], max_length=50)
    reference: Reference | None = None
    plots: list[Plot] = Field(default=[], max_length=50)
    layers: list[LayerFigure] = Field(default=[], max_length=50)
    """Figures over the layers of a network, from what the trials of an analysis measured."""
    caption: Prose = ""


class JobSpec(SpecModel):
    """A job. `trial` is the base that stages complete; every resulting trial is checked when the spec is loaded."""

    name: str = Field(pattern=NAME, max_length=MAX_NAME)
    profile: str = Field(default="", pattern=PROFILE.replace("^", "^(").replace("$", ")?$"), max_length=MAX_NAME)
    """The profile that is applied (in a file: the default profile)."""
    plugins: list[PluginField] = Field(default=[], max_length=20, exclude_if=operator.not_)
    """Modules of your own that driver and nodes import, in this order, by name or {module, digest}: they may register
    timm models and have TASKS and METRICS (docs/plugins.md). A changed plugin makes another job and other trials."""
    trial: dict[str, Any]
    """The base trial, a part of TrialSpec: task, backbone, optim, runtime, seed."""
    stages: list[Stage] = Field(min_length=1, max_length=MAX_STAGES)
    resources: Resources = Resources()
    priority: int = Field(default=0, ge=-1_000_000_000, le=1_000_000_000)
    """Of the jobs on one cluster, those with the highest priority run first; equal ones share."""
    report: ReportSpec = ReportSpec()
    claims: list[Claim] = Field(default=[], max_length=MAX_CLAIMS)
    """What the job expects. The report judges each claim, with Holm's levels over all of them, and says whether it was
    written before the results. A claim is part of the job: one that is added makes another job, of no new runs."""

    @model_validator(mode="before")
    @classmethod
    def _columns_of_the_task(cls, fields: Any) -> Any:
        """The columns of the report where the spec names none."""
        if not isinstance(fields, dict) or not isinstance(report := fields.get("report", {}), dict):
            return fields
        trial = fields.get("trial")
        task = trial.get("task") if isinstance(trial, dict) else None
        kind = task.get("kind") if isinstance(task, dict) else None
        if (
            "columns" in report
            or not isinstance(kind, str)
            or kind not in TASKS
            or "dataset" in task_class(kind).data_fields
        ):
            return fields
        data_field = next(iter(task_class(kind).data_fields), "kind")
        return {**fields, "report": {**report, "columns": f"task.{data_field}"}}

    @field_validator("plugins")
    @classmethod
    def _each_once(cls, plugins: list[Plugin]) -> list[Plugin]:
        modules = [plugin.module for plugin in plugins]
        if twice := next((module for module in modules if modules.count(module) > 1), None):
            raise ValueError(f"{twice} stands there twice: remove one")
        return plugins

    @property
    def base(self) -> dict[str, Any]:
        """The base trial with the job's plugins, from which trials are made."""
        if not self.plugins:
            return self.trial
        return {**self.trial, "plugins": [plugin.model_dump(mode="json") for plugin in self.plugins]}

    def resources_of(self, stage: Stage) -> Resources:
        """The resources of each trial of a stage."""
        return stage.resources or self.resources

    def consumers(self, number: int) -> list[Stage]:
        """The stages that take the winners of stage `number` (from 0), all after it."""
        return [stage for stage in self.stages[number + 1 :] if self.stages[number].name in stage.from_]


def job_id(job: JobSpec) -> str:
    """Returns "<name>-<profile>-<8 hex digits>"; the digits are a hash of the job's content, so the same content has
    the same id.

    What cannot change a result (priority, resources) is hashed too: changing it makes another job, which finds its
    trials done, because trials have keys of their own. A field that is not in `identity.ALWAYS_HASHED` is
    hashed only where it differs from its default, so that ids recorded before the field existed stay valid.

    With another `KEY_VERSION` the same content is another job: its trials have other keys, and their results must not
    be mixed with choices that were made from those of the earlier version. The earlier job stays as it is recorded.
    """
    content = json.dumps([KEY_VERSION, hashed_content(job)], sort_keys=True, separators=(",", ":"))
    digits = hashlib.sha256(content.encode()).hexdigest()[:8]
    return "-".join(part for part in (job.name, job.profile, digits) if part)
