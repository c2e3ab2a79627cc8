"""What a report contains: plain data, the same for every form it is printed in.

Values are in the unit of the `figure` beside them (percent for accuracies), not as recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from orchestrator.records.rows import Edge, MetricRow
from orchestrator.report.claim_model import ClaimReport
from orchestrator.report.drawings import Curve, HeatMap, Picture, Point, Scale, Scatter, SearchReport
from orchestrator.report.early_stopping import EpochsSaved, RankAgreement
from orchestrator.report.layer_panels import LayerFigure
from orchestrator.report.marks import Mark
from orchestrator.report.pretraining import Pretraining


@dataclass(frozen=True)
class Column:
    """A column of the table: a figure on, usually, a data set."""

    name: str
    """The value of the report's column path: digits."""
    figure: str = ""
    """Name of the figure, where the spec lists figures; else empty: the one that each trial is chosen by."""


@dataclass(frozen=True)
class Choice:
    """A decision: which trial's settings a stage took for a group, and from what."""

    stage: str
    """The stage that takes the settings."""
    group: str
    sources: tuple[str, ...]
    key: str
    value: float | None
    """The best over so many `candidates`, so no result; of several seeds their mean."""
    figure: MetricRow
    split: str
    """On which `value` was measured."""
    settings: Mapping[str, Any]
    edges: tuple[Edge, ...]
    rule: Mapping[str, Any]
    candidates: int
    """Settings that were compared."""
    diverged: int
    """Settings of which a seed diverged."""
    failed: int
    run_id: str | None = None
    seeds: tuple[int, ...] = ()
    """Those over which `value` is the mean; none: it is the value of one trial."""


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
    """Mean over the seeds; set when every trial of the cell ended with a number, and only then."""
    interval: float | None = None
    """Half the width of the 95 % confidence interval of the mean over seeds (Student t), given the chosen setting;
    None for fewer than three seeds."""
    values: tuple[float, ...] = ()
    """One value for each of `seeds`: of the trials that ended with a number."""
    seeds: tuple[int, ...] = ()
    diverged: int = 0
    """Of the `wanted` seeds of one setting, those that ended without a number."""
    leading: bool = False
    """True for the best of its column, and for every one whose difference to it, paired by seed, has a 95 % interval
    that contains 0; needs three or more seeds, the same in the whole column."""
    images: int | None = None
    """Of a single seed and a figure that is a share of images: how many were evaluated, where that is recorded."""
    image_interval: tuple[float, float] | None = None
    """The 95 % interval over these images (Wilson), where no cell of the table has several seeds."""
    pretraining: Pretraining | None = None
    """What its seeds have in common before their own training; None for fewer than two."""
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
    submissions: tuple[str, ...] = ()
    """Of a `submitted` cell: the file of each trial for the evaluation server."""


@dataclass(frozen=True)
class Mean:
    """An average over columns; without a value when one of its cells has none."""

    row: str
    name: str
    figure: MetricRow
    """The metric of the first of its cells: all have its unit and direction."""
    value: float | None
    interval: float | None
    """As that of a cell, of the averages of each seed."""
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
    values: tuple[float, ...] = ()
    """The average of each of `seeds`."""
    seeds: tuple[int, ...] = ()
    leading: bool = False
    """As that of a cell."""


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
    split: str = ""
    """On which `value` was measured."""


@dataclass(frozen=True)
class StageCount:
    """The progress of a stage: trials by state, and the sum of their seconds."""

    name: str
    placed: int
    states: Mapping[str, int]
    seconds: float
    gpus: float = 0.0
    """That the spec asks for, for each trial, over all its workers; 0: it trains on CPUs."""
    cpus: float = 0.0

    @property
    def gpu_hours(self) -> float:
        return self.seconds * self.gpus / 3600

    @property
    def cpu_hours(self) -> float:
        return self.seconds * self.cpus / 3600


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
class Source:
    """Where a column of a table that joins jobs comes from."""

    column: str
    figure: MetricRow
    """Its first, where trials are chosen by unlike figures; without a name where nothing is known of it."""
    job: str
    """As the table's file names it: a spec file, a job's name or the beginning of its id."""
    job_id: str = ""
    """Empty: there is no such job in the store."""
    stage: str = ""
    split: str = ""
    """On which the figure was measured, as recorded; several with a stroke between them."""
    where: str = ""
    """What the column asks of its trials, in words; empty: nothing."""
    remedy: str = ""
    """What to do about a job that was not submitted; empty: it was."""


@dataclass(frozen=True)
class OtherRow:
    """A row of published values without trials."""

    name: str
    source: str
    columns: tuple[float | None, ...]
    """A value for each column of the table, None where none is published."""
    means: tuple[float | None, ...] = ()
    """As `columns`, for each average."""


@dataclass(frozen=True)
class SettingRow:
    """A setting, with its value for each row of the table."""

    path: str
    title: str
    values: tuple[str, ...]
    """In the order of the table's rows; of a field that was searched the values that were tried."""


@dataclass(frozen=True)
class Report:
    """The table of a job, or one that joins several, and everything behind it."""

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
    layers: tuple[LayerFigure, ...] = ()
    pictures: tuple[Picture, ...] = ()
    saved: tuple[EpochsSaved, ...] = ()
    agreement: tuple[RankAgreement, ...] = ()
    claims: tuple[ClaimReport, ...] = ()
    joined: tuple[Source, ...] = ()
    """Of a table that joins several jobs: where each column comes from. Such a report has neither job nor stage of its
    own, and no groups."""
    others: tuple[OtherRow, ...] = ()
    """Rows of published values below ours."""
    searches: tuple[SearchReport, ...] = ()
    settings: tuple[SettingRow, ...] = ()
    """What the rows of the table were trained with; see `training_settings`."""
    spec_text: str = ""
    """The job's spec as YAML that can be submitted again: after the profile and the overrides, with every one of them
    written out."""

    @property
    def jobs(self) -> tuple[str, ...]:
        """The ids of its jobs."""
        return tuple(dict.fromkeys(s.job_id for s in self.joined if s.job_id)) if self.joined else (self.job_id,)

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


FORM = 7
"""1: before figures came with their metrics (until 2026-11); columns and choices had the name of a figure alone.
2: without `Provenance.processors`. 3: before replicates and claims; two seeds had an interval, and a heat map showed
the best seed. 4: without `joined`, `others` and `Cell.submissions`. 5: without searches, settings, the spec, hours, and
the curves of trials that were not chosen. 6: without intervals of the points of a plot."""
MAPS = 8
"""Largest number of groups for which a terminal shows the heat maps too."""
