"""What a report draws of its trials: heat maps, neighbourhoods, learning curves, searches, plots; plain data.

Values are in the unit of the `figure` beside them (percent for accuracies), not as recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.records.rows import MetricRow
from orchestrator.report.marks import Mark


@dataclass(frozen=True)
class Scale:
    """The range of a metric over all heat maps of a column: one colour scale for all its groups."""

    column: str
    figure: MetricRow
    low: float | None = None
    high: float | None = None
    """None: no heat map has a value."""


@dataclass(frozen=True)
class HeatCell:
    """The trials of one group and stage at (x, y); if other settings differ too, the best of them is shown."""

    x: float
    y: float
    state: Mark
    value: float | None
    """Mean over the seeds of the setting shown; None unless each of them ended with a number."""
    keys: tuple[str, ...]
    """Best setting first, each in the order of its seeds."""
    chosen: bool = False
    diverged: int = 0
    """Trials."""
    failed: int = 0
    settings: int = 1
    """Number of settings that the one shown is the best of."""
    values: tuple[float, ...] = ()
    """Of the setting shown, one for each of `seeds`: those that ended with a number."""
    seeds: tuple[int, ...] = ()
    wanted: int = 0
    """Number of trials of the setting shown."""


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

    @property
    def replicated(self) -> bool:
        """True if a value is a mean over several seeds."""
        return any(cell.wanted > 1 for cell in self.cells)


@dataclass(frozen=True)
class Point:
    """A setting of a neighbourhood: what it moved from the centre, and its value."""

    stage: str
    key: str
    """Of its trial, or of that of its first seed."""
    state: Mark
    moved: Mapping[str, tuple[Any, Any]]
    """Path -> (value at the centre, value of this trial)."""
    value: float | None
    """Mean over its seeds; None unless each of them ended with a number."""
    difference: float | None
    """value - the centre's value; over several seeds the mean of the differences, each of one seed."""
    chosen: bool = False
    interval: float | None = None
    """Half the width of the 95 % interval of `difference` over seeds; None for fewer than three."""
    keys: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    """One for each of `seeds`: those that ended with a number."""
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Curve:
    """The values that a trial reported in each epoch; None if it reported none or one that is not finite."""

    role: Literal["chosen", "final", "other"]
    """`other`: a trial that was compared with the chosen one; of a long one some epochs alone (`groups.thinned`)."""
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
    broken: tuple[int, ...] = ()
    """Epochs in which the metric was reported and is no finite number. Where it is None in others, the trial was not
    evaluated."""


@dataclass(frozen=True)
class SearchField:
    """A field that a search varies."""

    path: str
    form: Literal["linear", "log", "choice"]
    choices: tuple[str, ...] = ()
    """Of a choice: the values as text, in the order of the spec."""


@dataclass(frozen=True)
class SearchSetting:
    """A setting that a search tried."""

    number: int
    """Its place in the order in which the search asked for them, from 1."""
    key: str
    """Of its trial, or of that of its first seed."""
    state: Mark
    at: tuple[float | None, ...]
    """Its value of each field; of a choice the position among the values, from 0. None: it has no such value."""
    value: float | None
    """What it ended with (of several seeds their mean), or what it had last reported when the search stopped it."""
    in_full: bool
    """True if it ran to its last epoch, so that it may be chosen."""
    epoch: int | None = None
    """After which `value` was measured, of one that was stopped."""
    best: float | None = None
    """The best value in full up to this setting."""
    chosen: bool = False


@dataclass(frozen=True)
class Importance:
    """How much a field matters for being among the best settings of a search, as a share of all its fields."""

    path: str
    share: float
    """Between 0 and 1; rounded to three decimals."""


@dataclass(frozen=True)
class SearchReport:
    """What a search of one group tried."""

    stage: str
    group: str
    row: str
    column: str
    figure: MetricRow
    split: str
    """On which the values were measured."""
    fields: tuple[SearchField, ...]
    settings: tuple[SearchSetting, ...]
    """In the order in which the search asked for them."""
    importance: tuple[Importance, ...] = ()
    """Largest first; empty where too few settings ran in full, or all ended alike."""
    importance_by: str = ""
    """Package, version and method that computed it."""

    @property
    def in_full(self) -> tuple[SearchSetting, ...]:
        """Those with a value after their last epoch."""
        return tuple(each for each in self.settings if each.in_full and each.value is not None)

    @property
    def not_in_full(self) -> tuple[SearchSetting, ...]:
        """Those that the search stopped, with what they had reported, and parts of a population's members."""
        return tuple(each for each in self.settings if not each.in_full and each.value is not None)

    @property
    def best(self) -> SearchSetting | None:
        """The setting with the best value in full; None if there is none yet, or if no value is better."""
        end = next((each.best for each in reversed(self.settings) if each.best is not None), None)
        return None if end is None else next(each for each in self.in_full if each.value == end)


@dataclass(frozen=True)
class ScatterPoint:
    """A cell of the table in a plot; `name` is its row and, if the table has several columns, its column."""

    name: str
    keys: tuple[str, ...]
    x: float
    y: float
    x_word: str = ""
    """Where the field is null: the word for it, at the place `x` that the plot gives it beside the numbers."""
    interval: float | None = None
    """Half the width of the 95 % interval of `y` over seeds; None for fewer than three, and for several settings."""

    @property
    def height(self) -> str:
        """`y` in words, with its interval: 0.471 ± 0.012."""
        return f"{self.y:.4g}" if self.interval is None else f"{self.y:.4g} ± {self.interval:.2g}"


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
    second_name: str = ""
    second: tuple[ScatterPoint, ...] = ()
    """The other figure of the same cells, on an axis of its own."""
    without_second: tuple[str, ...] = ()
    """Names of dots for which that figure has no mean over the seeds of one setting, each with why."""
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
