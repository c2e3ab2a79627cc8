"""The only place that says what a report contains: plain data, the same for every form it is printed in.

Values are in the table's units (percent for accuracies, as `Column.unit` says) unless a field says raw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from orchestrator.records.rows import Edge

Mark = Literal["done", "running", "pending", "failed", "cancelled", "diverged", "stopped", "missing", "absent"]
"""State of a cell. Only `done` has a value. `missing`: its trial does not exist yet (or never will, see the
reason); `absent`: the study has no such combination."""


@dataclass(frozen=True)
class Unit:
    """How a figure is printed: raw value times `scale`, with `digits` after the point."""

    scale: float = 1.0
    suffix: str = ""
    digits: int = 3

    def text(self, value: float) -> str:
        return f"{value:.{self.digits}f}"


PERCENT = Unit(100.0, "%", 1)

_FRACTIONS = frozenset({"top1", "top5", "mean_per_class", "map11", "miou", "accuracy"})


def unit_of(metric: str) -> Unit:
    """Percent for figures that are fractions of one; the raw number, three digits, for any other."""
    return PERCENT if metric in _FRACTIONS else Unit()


@dataclass(frozen=True)
class Column:
    """A column of the table, usually a data set."""

    name: str
    metric: str
    """Name of the figure; empty while no trial of this column is known."""
    mode: str
    low: float | None = None
    """Lowest and `high`est value on val in this column's heat maps: the ends of its colour scale."""
    high: float | None = None

    @property
    def unit(self) -> Unit:
        return unit_of(self.metric)


@dataclass(frozen=True)
class Choice:
    """A decision: which trial's settings a stage took for a group, and from what."""

    stage: str
    """The stage that takes."""
    group: str
    sources: tuple[str, ...]
    key: str
    value: float | None
    """On val."""
    metric: str
    settings: Mapping[str, Any]
    edges: tuple[Edge, ...]
    rule: Mapping[str, Any]
    candidates: int
    diverged: int
    failed: int
    run_id: str | None = None


@dataclass(frozen=True)
class Cell:
    """One number of the table, or why there is none."""

    row: str
    column: str
    state: Mark
    reason: str = ""
    value: float | None = None
    """Mean over the seeds; set when every trial of the cell is done, and only then."""
    interval: float | None = None
    """Half the width of the 95 % confidence interval of the mean (Student t); from two seeds on."""
    values: tuple[float, ...] = ()
    """Of the trials that are done, one for each of `seeds`."""
    seeds: tuple[int, ...] = ()
    wanted: int = 0
    """Trials that the cell is made of."""
    best_of: int = 1
    """Above 1: the cell shows the best of so many settings on the figure shown, because nothing chose before."""
    keys: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    group: str = ""
    choice: Choice | None = None
    reference: float | None = None
    difference: float | None = None
    """value - reference."""


@dataclass(frozen=True)
class Mean:
    """An average over columns; without a value when one of its cells has none."""

    row: str
    name: str
    value: float | None
    interval: float | None
    n: int
    """Seeds, when all its cells have the same ones; else 0."""
    missing: tuple[str, ...]
    """Columns without a value (or, in words, why the mean makes no sense)."""
    reference: float | None = None
    reference_computed: bool = False
    """The published average was computed here from published cells."""
    difference: float | None = None


@dataclass(frozen=True)
class HeatCell:
    """All trials of one group and stage at (x, y); the best of them where other settings differ too."""

    x: float
    y: float
    state: Mark
    value: float | None
    keys: tuple[str, ...]
    """Best first."""
    chosen: bool = False
    diverged: int = 0
    failed: int = 0


@dataclass(frozen=True)
class HeatMap:
    """Values on val over two settings; `y_path` is empty when only one was varied."""

    stage: str
    x_path: str
    y_path: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    cells: tuple[HeatCell, ...]
    others: tuple[str, ...] = ()
    """Further settings that were varied; each cell shows the best over them."""


@dataclass(frozen=True)
class Point:
    """A trial of a neighbourhood: what it moved from the centre, and what came of it."""

    stage: str
    key: str
    state: Mark
    moved: Mapping[str, tuple[Any, Any]]
    """Path -> (value at the centre, value here)."""
    value: float | None
    difference: float | None
    """value - the centre's value."""
    chosen: bool = False


@dataclass(frozen=True)
class Curve:
    """What a trial reported epoch by epoch; None where it reported nothing or a number that is not finite."""

    role: Literal["chosen", "final"]
    stage: str
    key: str
    seed: int
    epochs: tuple[int, ...]
    train_loss: tuple[float | None, ...]
    metric: tuple[float | None, ...]
    end: float | None
    """The figure the trial ended with: on val for `chosen`, what the table shows for `final`."""


@dataclass(frozen=True)
class GroupReport:
    """One group of the study, usually a pair of data set and initial weights."""

    name: str
    row: str
    column: str
    choices: tuple[Choice, ...] = ()
    heat_maps: tuple[HeatMap, ...] = ()
    points: tuple[Point, ...] = ()
    curves: tuple[Curve, ...] = ()


@dataclass(frozen=True)
class TrialLine:
    """A line of the table of all trials."""

    stage: str
    group: str
    key: str
    state: str
    settings: Mapping[str, Any]
    seed: int
    metric: str
    value: float | None
    seconds: float | None
    host: str = ""
    error: str = ""
    run_id: str | None = None


@dataclass(frozen=True)
class StageCount:
    """How far a stage is: trials by state, and their seconds together."""

    name: str
    placed: int
    states: Mapping[str, int]
    seconds: float


@dataclass(frozen=True)
class EpochsSaved:
    """What early stopping saved in one group of a search."""

    stage: str
    group: str
    trials: int
    stopped: int
    epochs_asked: int
    """Had all its trials run in full."""
    epochs_run: int


@dataclass(frozen=True)
class RankAgreement:
    """How well the order of a group's trials after an epoch agrees with that at the end; all of them ran in full."""

    stage: str
    group: str
    epoch: int
    epochs: int
    trials: int
    tau: float | None
    """Kendall's tau-b; None where all are equal."""
    best_is_best: bool
    """None was ahead then of the one that is best at the end."""
    best_is_kept: bool
    """It was among the first 1/factor then."""
    factor: int


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from."""

    git_commit: str
    git_dirty: bool
    versions: Mapping[str, str]
    commits: tuple[str, ...] = ()
    """Of the trials behind the table (a trial may be older than the job)."""
    hosts: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    data: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column -> digests of the data its table trials were trained and evaluated on."""
    first: str = ""
    last: str = ""
    seconds: float = 0.0
    """Of all trials together."""


@dataclass(frozen=True)
class ScatterPoint:
    """A cell of the table in a plot: `name` is its row, and its column where there are several."""

    name: str
    keys: tuple[str, ...]
    x: float
    y: float


@dataclass(frozen=True)
class Scatter:
    """The table's values, or what they lack to 100 percent, against a figure of their trials or of the parents."""

    title: str
    x_name: str
    y_name: str
    dots: tuple[ScatterPoint, ...]
    """By x."""
    left_out: tuple[str, ...] = ()
    """Names of cells with a value of which nobody in the lineage has the figure."""


@dataclass(frozen=True)
class Picture:
    """A file that a trial drew after an epoch."""

    name: str
    """Of the trial."""
    key: str
    epoch: int
    path: str
    """Relative to the trial's folder."""


@dataclass(frozen=True)
class Report:
    """The whole of it."""

    job_id: str
    name: str
    profile: str
    state: str
    message: str
    created: str
    caption: str
    stage: str
    """Whose figures fill the table."""
    measured_on: str
    """The split the table's figures were measured on: test, val, or what the task calls it; empty: it has none."""
    row_path: str
    column_path: str
    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: tuple[Cell, ...]
    means: tuple[Mean, ...]
    source: str
    """Of the published values; empty when there are none."""
    groups: tuple[GroupReport, ...]
    stages: tuple[StageCount, ...]
    warnings: tuple[str, ...]
    provenance: Provenance
    trials: tuple[TrialLine, ...] = ()
    plots: tuple[Scatter, ...] = ()
    pictures: tuple[Picture, ...] = ()
    saved: tuple[EpochsSaved, ...] = ()
    agreement: tuple[RankAgreement, ...] = ()

    @cached_property
    def at(self) -> Mapping[tuple[str, str], Cell]:
        """The cells by (row, column)."""
        return {(cell.row, cell.column): cell for cell in self.cells}

    @cached_property
    def named(self) -> Mapping[str, GroupReport]:
        """The groups by name."""
        return {group.name: group for group in self.groups}

    @cached_property
    def by_column(self) -> Mapping[str, Column]:
        return {column.name: column for column in self.columns}


MAPS = 8
"""Groups up to which a terminal is given the heat maps too."""
