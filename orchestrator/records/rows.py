"""Rows that go into the store and come out of it: plain data, without a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.records.states import JobState, TrialState


@dataclass(frozen=True)
class JobRecord:
    """A job as it is submitted. `id` is a hash of its content: the same content is the same job."""

    id: str
    name: str
    profile: str
    spec: Mapping[str, Any]
    """As JSON, after the profile and overrides were applied."""
    spec_text: str
    priority: int = 0
    git_commit: str | None = None
    git_dirty: bool | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobRow:
    """A job in a list of jobs."""

    id: str
    name: str
    profile: str
    state: JobState
    message: str
    priority: int
    cancel: bool
    """True if somebody asked for it to stop."""
    git_commit: str | None
    git_dirty: bool | None
    versions: dict[str, str]
    created: float
    updated: float
    counts: dict[TrialState, int]
    """The number of its placed trials in each state; every state has an entry."""

    @property
    def trials(self) -> int:
        """The number of its placed trials."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class MetricRow:
    """How a figure is named, printed and compared, as its task declared it (tasks.metrics.Metric)."""

    name: str
    title: str
    better: Literal["higher", "lower", "neither"]
    unit: str = ""
    scale: float = 1.0
    """Recorded value times this is the value in `unit`."""
    digits: int = 3
    complement: str = ""
    """Title of (1 - value); empty where that is no quantity of its own."""


@dataclass(frozen=True, slots=True)
class MeasurementRow:
    """A value of a figure for one item (image, class, sequence), layer or head of a trial."""

    figure: str
    split: str
    item: str
    layer: int | None
    head: int | None
    value: float | None
    """None: not a finite number."""


@dataclass(frozen=True)
class Placement:
    """A trial's place in a job: its stage and group, and the settings it varies (dotted path -> value)."""

    stage: str
    group: str
    group_values: Mapping[str, Any]
    key: str
    spec: Mapping[str, Any]
    settings: Mapping[str, Any]
    name: str
    position: int
    metric: str
    mode: str
    seed: int
    epochs: int
    """Rounds after which the trial ends: epochs, or runs of report_iterations steps where its length is in those."""
    metrics: tuple[MetricRow, ...] = ()
    """Every figure that the trial may end with; trials are chosen by the first."""
    split: str = "val"
    """The split that is evaluated."""


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A placed trial and its progress. `value` (of `metric`) is None until the trial is done."""

    stage: str
    group: str
    key: str
    name: str
    position: int
    state: TrialState
    metric: str
    mode: str
    value: float | None
    epoch: int
    """The last round reported, from 1."""
    epochs: int
    """Rounds after which it ends (see `Placement`)."""
    seed: int
    started: float | None
    ended: float | None
    train_seconds: float | None
    error_class: str | None
    error: str | None
    group_values: dict[str, Any]
    settings: dict[str, Any]
    host: str | None = None
    """The machine on which it ended with its figures."""
    metrics: tuple[MetricRow, ...] = ()
    """Every figure that the trial may end with; trials are chosen by the first."""
    split: str = "val"
    """The split that is evaluated."""

    @property
    def seconds(self) -> float | None:
        """Training time if the trial reported it, else the wall time of its last attempt, else None."""
        if self.train_seconds is not None or self.started is None or self.ended is None:
            return self.train_seconds
        return self.ended - self.started


@dataclass(frozen=True)
class TrialRow:
    """Everything recorded of a trial except its reports and attempts."""

    key: str
    spec: dict[str, Any]
    parent: str | None
    state: TrialState
    metric: str
    mode: str
    value: float | None
    figures: dict[str, float]
    seed: int
    epochs: int
    epoch: int
    step: int
    token: int
    driver_id: str | None
    error_class: str | None
    error: str | None
    weights: tuple[str, str] | None
    """Path, relative to the storage folder (see `records.trial_files`), and SHA-256; None if they are not kept."""
    facts: dict[str, Any]
    step_seconds: float | None
    train_seconds: float | None
    git_commit: str | None
    git_dirty: bool | None
    host: str | None
    device: str | None
    data_digest: str | None
    versions: dict[str, str]
    created: float
    started: float | None
    ended: float | None
    placed: list[tuple[str, str, str, str]]
    """(job id, stage, group, name) of each of its places."""
    metrics: tuple[MetricRow, ...] = ()
    split: str = "val"


@dataclass(frozen=True)
class AttemptRow:
    """One run of a trial under one fencing token; `cause` is None while it lasts."""

    token: int
    driver_id: str
    cluster: str
    host: str
    """The driver's machine; the trial's own machine is in its facts."""
    git_commit: str | None
    git_dirty: bool | None
    started: float
    ended: float | None
    cause: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class ReportRow:
    """What a trial reported at the end of a round; `epoch` counts rounds, from 1."""

    epoch: int
    step: int
    values: dict[str, float]
    seconds: float
    """Wall time of this round, training and evaluation."""


@dataclass(frozen=True, slots=True)
class LastReport:
    """The last report of a trial, and how long its rounds take."""

    epoch: int
    values: dict[str, float]
    round_seconds: float
    """Mean wall time of its rounds so far."""


@dataclass(frozen=True)
class Edge:
    """An end of a grid's axis or of a search's range that a winner's setting lies at or beyond."""

    path: str
    """The field of the trial, dotted."""
    side: Literal["low", "high"]
    beyond: bool
    """True if `value` lies outside; False if it lies at the end (for a range: close to it)."""
    value: float
    bound: float
    """The end itself: the smallest or largest value of the axis, or a limit of the range."""


@dataclass(frozen=True)
class ChoiceRow:
    """Which trial a stage took for a group, and by which rule."""

    stage: str
    """The stage that takes the winner."""
    group: str
    key: str
    value: float
    """The winner's value of `metric`, on val."""
    metric: str
    edges: list[Edge] = field(default_factory=list)
    rule: dict[str, Any] = field(default_factory=dict)
    """metric, mode, ties, last; for a neighbourhood also neighbourhood and left_out."""
    candidates: int = 0
    sources: list[str] = field(default_factory=list)
    """The stages whose trials were compared."""


@dataclass(frozen=True)
class ResolvedWeightsRow:
    """The trial of another job that `{kind: stage, job: ...}` in a spec refers to."""

    asked: str
    """JSON: job, stage and group as written in the spec; then, for each replicate after the first, its number."""
    written: str
    """SHA-256 of the asking job before this trial was looked up."""
    from_job: str
    stage: str
    group: str
    key: str
    metric: str
    value: float
    candidates: int


@dataclass(frozen=True)
class StartRow:
    """The weights that a trial starts from or reads."""

    parents: tuple[str, ...]
    """Keys of the trials that made them."""
    given: bool
    """True if there are weights of a file or of timm among them."""


@dataclass(frozen=True)
class ChildRow:
    """A trial that starts from another trial's weights."""

    key: str
    name: str
    state: TrialState
    metric: str
    value: float | None


@dataclass(frozen=True)
class DriverRow:
    """A process that drives a job. It holds its trials until its lease runs out."""

    id: str
    host: str
    pid: int
    pid_started: float
    job_id: str
    cluster: str
    priority: int = 0
    slots: int = 0
    """Slots of its cluster, as it sees them."""
    demand: int = 0
    """Slots it could use now."""
    running: int = 0
    """Slots it uses now."""


@dataclass(frozen=True)
class Running:
    """A running trial. `alive`: the driver that holds it is alive."""

    key: str
    token: int
    driver_id: str
    alive: bool
    cluster: str


@dataclass(frozen=True)
class TrackedRun:
    """How much of a trial (or, for an empty key, of a group) the tracking server has."""

    run_id: str
    reports_through: int = 0
    closed: bool = False
    parent_run_id: str | None = None


@dataclass(frozen=True)
class SearchEvent:
    """A suggestion, a result or a decision of a group's search. Its events are enough to resume a search."""

    number: int
    """Counts from 0 in each group, without gaps."""
    kind: Literal["asked", "told", "continued", "stopped", "exhausted"]
    """`asked`: a point was suggested; `told`: its trial has a result; `continued`, `stopped`: a report was judged."""
    key: str
    """The trial's key; empty for `exhausted`."""
    body: Mapping[str, Any]
    """asked: point (for a population also span, parent, member, how); told: value (null: diverged); continued and
    stopped: epoch, value; exhausted: reason."""
