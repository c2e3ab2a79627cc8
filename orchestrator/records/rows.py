"""The only place that says what goes into the store and comes out of it: plain records, without a database in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.records.states import JobState, TrialState


@dataclass(frozen=True)
class JobRecord:
    """A job as it is submitted. `id` is made from its content, so the same content is the same job."""

    id: str
    name: str
    profile: str
    spec: Mapping[str, Any]
    """Resolved: after the profile and overrides."""
    spec_text: str
    priority: int = 0
    git_commit: str | None = None
    git_dirty: bool | None = None
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobRow:
    """A job as a list of jobs shows it."""

    id: str
    name: str
    profile: str
    state: JobState
    message: str
    priority: int
    cancel: bool
    git_commit: str | None
    git_dirty: bool | None
    versions: dict[str, str]
    created: float
    updated: float
    counts: dict[TrialState, int]
    """Of its placed trials, every state named."""

    @property
    def trials(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class Placement:
    """A trial at its place in a job: which stage and group it belongs to, and what it varies."""

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


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A placed trial with how far it is. `value` is None until it is done."""

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
    epochs: int
    seed: int
    started: float | None
    ended: float | None
    train_seconds: float | None
    error_class: str | None
    error: str | None
    group_values: dict[str, Any]
    settings: dict[str, Any]
    host: str | None = None
    """Where it ended with its figures."""

    @property
    def seconds(self) -> float | None:
        """Training time where the trial said it, else wall time of its last attempt, else None."""
        if self.train_seconds is not None or self.started is None or self.ended is None:
            return self.train_seconds
        return self.ended - self.started


@dataclass(frozen=True)
class TrialRow:
    """Everything a trial's own row says, and its figures."""

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
    """(job id, stage, group, name) of every place it has."""


@dataclass(frozen=True)
class AttemptRow:
    """One time a trial was handed out, and how that ended (`cause` None: it has not)."""

    token: int
    driver_id: str
    cluster: str
    host: str
    """Of the driver; where the trial ran is in the trial's facts."""
    git_commit: str | None
    git_dirty: bool | None
    started: float
    ended: float | None
    cause: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class ReportRow:
    """What was known after an epoch."""

    epoch: int
    step: int
    values: dict[str, float]
    seconds: float


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
    """The stage that takes."""
    group: str
    key: str
    value: float
    metric: str
    edges: list[Edge] = field(default_factory=list)
    rule: dict[str, Any] = field(default_factory=dict)
    candidates: int = 0
    sources: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ResolvedWeightsRow:
    """Which trial of another job was meant by `{kind: stage, job: ...}`."""

    asked: str
    """JSON: job, stage and group as the spec has them."""
    written: str
    """SHA-256 of the asking job before it was looked up."""
    from_job: str
    stage: str
    group: str
    key: str
    metric: str
    value: float
    candidates: int


@dataclass(frozen=True)
class ChildRow:
    """A trial that starts from another's weights."""

    key: str
    name: str
    state: TrialState
    metric: str
    value: float | None


@dataclass(frozen=True)
class DriverRow:
    """A process that drives a job. It holds its trials as long as its lease is alive."""

    id: str
    host: str
    pid: int
    pid_started: float
    job_id: str
    cluster: str
    priority: int = 0
    slots: int = 0
    """Slots of its cluster as it sees them."""
    demand: int = 0
    """Slots it could use now."""
    running: int = 0
    """Slots it uses now."""


@dataclass(frozen=True)
class Running:
    """A trial that is out, and whether the driver that holds it is alive."""

    key: str
    token: int
    driver_id: str
    alive: bool
    cluster: str


@dataclass(frozen=True)
class TrackedRun:
    """How far the tracking server has a trial (or, for an empty key, a group)."""

    run_id: str
    reports_through: int = 0
    closed: bool = False
    parent_run_id: str | None = None


@dataclass(frozen=True)
class SearchEvent:
    """A decision of a group's search, or what it was told. From its events a search is made again as it was."""

    number: int
    """From 0, without gaps, in the group."""
    kind: Literal["asked", "told", "continued", "stopped", "exhausted"]
    """`asked`: a point was chosen; `told`: its trial has a result; `continued`, `stopped`: a report was judged."""
    key: str
    """Of the trial; empty for `exhausted`."""
    body: Mapping[str, Any]
    """asked: point (and of a population: span, parent, member, how); told: value (none: diverged); continued and
    stopped: epoch, value; exhausted: reason."""
