"""What a report contains: plain data, the same for every form it is printed in.

Values are in the unit of the `figure` beside them (percent for accuracies), not as recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from orchestrator.records.rows import Edge, MetricRow
from orchestrator.report.claim_model import ClaimReport

Mark = Literal["done", "running", "pending", "failed", "cancelled", "diverged", "stopped", "missing", "absent"]
"""State of a cell. Only `done` has a value. `missing`: its trial does not exist yet (or never will, see the
reason); `absent`: the study has no such combination, or a plot shows it as a curve."""


@dataclass(frozen=True)
class Column:
    """A column of the table: a figure on, usually, a data set."""

    name: str
    """The value of the report's column path: digits."""
    figure: str = ""
    """Name of the figure, where the spec lists figures; else empty: the one that each trial is chosen by."""


@dataclass(frozen=True)
class Scale:
    """The range of a metric over all heat maps of a column: one colour scale for all its groups."""

    column: str
    figure: MetricRow
    low: float | None = None
    high: float | None = None
    """None: no heat map has a value."""


@dataclass(frozen=True)
class Choice:
    """A decision: which trial's settings a stage took for a group, and from what."""

    stage: str
    """The stage that takes the settings."""
    group: str
    sources: tuple[str, ...]
    key: str
    value: float | None
    figure: MetricRow
    split: str
    """On which `value` was measured."""
    settings: Mapping[str, Any]
    edges: tuple[Edge, ...]
    rule: Mapping[str, Any]
    candidates: int
    diverged: int
    failed: int
    run_id: str | None = None


@dataclass(frozen=True)
class Cell:
    """A number of the table, or the reason why there is none."""

    row: str
    column: str
    """Name of its column."""
    figure: MetricRow
    """The figure of its values; without a name while no trial is known."""
    state: Mark
    reason: str = ""
    value: float | None = None
    """Mean over the seeds; set when every trial of the cell is done, and only then."""
    interval: float | None = None
    """Half the width of the 95 % confidence interval of the mean (Student t); None for a single seed."""
    values: tuple[float, ...] = ()
    """One value for each of `seeds`, of the trials that are done."""
    seeds: tuple[int, ...] = ()
    wanted: int = 0
    """Number of trials that the cell is made of."""
    best_of: int = 1
    """Above 1: nothing was chosen before, and the cell shows the best of so many settings, by the metric that trials
    are chosen by."""
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
    figure: MetricRow
    """The metric of the first of its cells: all have its unit and direction."""
    value: float | None
    interval: float | None
    n: int
    """Seeds, when all its cells have the same ones; else 0."""
    missing: tuple[str, ...]
    """Columns without a value."""
    unlike: bool = False
    """True: its columns have different units or directions, so there is no mean."""
    reference: float | None = None
    reference_computed: bool = False
    """True if the published average is computed from published cells."""
    difference: float | None = None


@dataclass(frozen=True)
class HeatCell:
    """The trials of one group and stage at (x, y); if other settings differ too, the value is that of the best."""

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
    """Values over two settings; `y_path` is empty when only one was varied."""

    stage: str
    figure: MetricRow
    split: str
    """On which the values were measured."""
    x_path: str
    y_path: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    cells: tuple[HeatCell, ...]
    others: tuple[str, ...] = ()
    """Further settings that were varied; each cell shows the best over them."""


@dataclass(frozen=True)
class Point:
    """A trial of a neighbourhood: the settings it moved from the centre, and its value."""

    stage: str
    key: str
    state: Mark
    moved: Mapping[str, tuple[Any, Any]]
    """Path -> (value at the centre, value of this trial)."""
    value: float | None
    difference: float | None
    """value - the centre's value."""
    chosen: bool = False


@dataclass(frozen=True)
class Curve:
    """The values that a trial reported in each epoch; None if it reported none or one that is not finite."""

    role: Literal["chosen", "final"]
    stage: str
    key: str
    seed: int
    figure: MetricRow
    split: str
    """On which the metric was measured."""
    epochs: tuple[int, ...]
    train_loss: tuple[float | None, ...]
    metric: tuple[float | None, ...]
    end: float | None
    """The figure that the trial ended with."""


@dataclass(frozen=True)
class GroupReport:
    """One group of the study, usually a pair of data set and initial weights."""

    name: str
    row: str
    column: str
    figure: MetricRow
    """The metric that its trials are chosen by."""
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
    """Name of the figure that it is chosen by."""
    unit: str
    digits: int
    """Decimals of `value`."""
    value: float | None
    seconds: float | None
    host: str = ""
    error: str = ""
    run_id: str | None = None


@dataclass(frozen=True)
class StageCount:
    """The progress of a stage: trials by state, and the sum of their seconds."""

    name: str
    placed: int
    states: Mapping[str, int]
    seconds: float


@dataclass(frozen=True)
class EpochsSaved:
    """The epochs that early stopping saved in one group of a search."""

    stage: str
    group: str
    trials: int
    stopped: int
    epochs_asked: int
    """If all its trials had run in full."""
    epochs_run: int


@dataclass(frozen=True)
class RankAgreement:
    """How well the ranking of a group's trials at an epoch agrees with the final one; all trials ran in full."""

    stage: str
    group: str
    epoch: int
    epochs: int
    trials: int
    tau: float | None
    """Kendall's tau-b; None if all trials are equal."""
    best_is_best: bool
    """True if no trial was ahead of the final winner."""
    best_is_kept: bool
    """True if the final winner was among the first 1/factor."""
    factor: int


@dataclass(frozen=True)
class Provenance:
    """Code, hosts, data and times behind the numbers."""

    git_commit: str
    git_dirty: bool
    versions: Mapping[str, str]
    commits: tuple[str, ...] = ()
    """Commits of the trials behind the table (a trial may be older than the job)."""
    hosts: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    processors: tuple[str, ...] = ()
    """Device, CPU kernels and threads of the trials behind the table, on which last digits depend; none of trials that
    ran before these were recorded."""
    seeds: tuple[int, ...] = ()
    data: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column -> digests of the data its table trials were trained and evaluated on."""
    first: str = ""
    last: str = ""
    seconds: float = 0.0
    """Sum over all trials."""


@dataclass(frozen=True)
class ScatterPoint:
    """A cell of the table in a plot; `name` is its row and, if the table has several columns, its column."""

    name: str
    keys: tuple[str, ...]
    x: float
    y: float


@dataclass(frozen=True)
class Scatter:
    """Values of the table's trials, or their complements (error rates), against another figure or a field."""

    title: str
    x_name: str
    y_name: str
    dots: tuple[ScatterPoint, ...]
    """In the order of x."""
    left_out: tuple[str, ...] = ()
    """Names of cells with a value of which no trial in the lineage has the figure."""
    without_error: tuple[str, ...] = ()
    """Names of cells whose figure has no complement to draw."""
    curves: bool = False
    """True: the dots of one name are points of a curve over a field of the trial."""


@dataclass(frozen=True)
class Picture:
    """A picture that a trial drew after an epoch."""

    name: str
    """Name of the trial."""
    key: str
    epoch: int
    path: str
    """Relative to the trial's folder."""


@dataclass(frozen=True)
class Report:
    """A job's table and everything behind it."""

    form: int
    """Number of this form of the data; see `FORM`."""
    job_id: str
    name: str
    profile: str
    state: str
    message: str
    created: str
    caption: str
    stage: str
    """The stage whose figures fill the table."""
    measured_on: str
    """The split that the table's figures were measured on, as recorded with its trials; empty while there are none."""
    row_path: str
    column_path: str
    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    """By name, then in the order of the spec's figures."""
    cells: tuple[Cell, ...]
    """By row, then in the order of `columns`."""
    means: tuple[Mean, ...]
    """By row, then by average, then in the order of the spec's figures."""
    scales: tuple[Scale, ...]
    source: str
    """Source of the published values; empty if there are none."""
    groups: tuple[GroupReport, ...]
    stages: tuple[StageCount, ...]
    warnings: tuple[str, ...]
    provenance: Provenance
    trials: tuple[TrialLine, ...] = ()
    plots: tuple[Scatter, ...] = ()
    pictures: tuple[Picture, ...] = ()
    saved: tuple[EpochsSaved, ...] = ()
    agreement: tuple[RankAgreement, ...] = ()
    claims: tuple[ClaimReport, ...] = ()

    @cached_property
    def at(self) -> Mapping[tuple[str, str], Cell]:
        """The cells by (row, column name); of several figures the first."""
        return {(cell.row, cell.column): cell for cell in reversed(self.cells)}

    @cached_property
    def named(self) -> Mapping[str, GroupReport]:
        """The groups by name."""
        return {group.name: group for group in self.groups}

    @property
    def chosen_on(self) -> str:
        """The split that settings were chosen on; several with a stroke between them; empty: nothing was chosen."""
        splits = dict.fromkeys(choice.split for group in self.groups for choice in group.choices if choice.split)
        return " / ".join(splits)

    def cells_of(self, row: str) -> tuple[Cell, ...]:
        """The cells of a row, in the order of the columns."""
        start = self.rows.index(row) * len(self.columns)
        return self.cells[start : start + len(self.columns)]

    def means_of(self, row: str) -> tuple[Mean, ...]:
        """The averages of a row, in the order in which every row has them."""
        each = len(self.means) // len(self.rows) if self.rows else 0
        start = self.rows.index(row) * each
        return self.means[start : start + each]

    def scale_of(self, group: GroupReport, drawn: HeatMap) -> Scale:
        """The colour scale of a heat map."""
        return next(s for s in self.scales if (s.column, s.figure.name) == (group.column, drawn.figure.name))


FORM = 4
"""1: before figures came with their metrics (until 2026-11); columns and choices had the name of a figure alone.
2: without `Provenance.processors`. 3: without claims."""
MAPS = 8
"""Largest number of groups for which a terminal shows the heat maps too."""
