"""The words of a report, for every form of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.records.rows import Edge, MetricRow
from orchestrator.report import figures
from orchestrator.report.drawings import HeatCell, Point
from orchestrator.report.early_stopping import lines as saving_lines
from orchestrator.report.formatting import short
from orchestrator.report.joined_words import where_from
from orchestrator.report.model import Cell, Mean, OtherRow, Report
from orchestrator.report.pretraining import WORDS, Pretraining
from orchestrator.report.statistics import FEWEST

HEADINGS = {
    "backbone.init": "initial weights",
    "task.dataset": "data set",
    "backbone.drop_last": "blocks dropped",
    "backbone.sample_layers.draw": "draw",
}
"""Headings of table columns by path; any other path is headed by its last part."""

ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}
"""Which direction of a figure is better, behind its title."""


def cell_text(cell: Cell, with_n: bool = False) -> str:
    """The number, or the words for why there is none; never empty. `with_n`: with its number of seeds."""
    if cell.value is not None:
        return _number(cell) + (f" (n = {len(cell.seeds)})" if with_n and len(cell.seeds) != 2 else "")
    if cell.state == "running" and cell.wanted > 1:
        return f"running {len(cell.values)}/{cell.wanted}"
    if cell.state == "diverged" and cell.diverged and cell.wanted > 1:
        return f"diverged in {cell.diverged} of {cell.wanted} seeds"
    return "–" if cell.state == "absent" else cell.state


def counts_differ(report: Report) -> bool:
    """True if the table has numbers over one seed and over several, or over other numbers of seeds."""
    return len({len(cell.seeds) for cell in report.cells if cell.value is not None}) > 1


def group_text(report: Report, row: str, column: str) -> str:
    """The numbers that the table has of a group; if several, each with the title of its figure."""
    with_n = counts_differ(report)
    shown = [cell for cell in report.cells_of(row) if cell.column == column]
    if len(shown) == 1:
        return cell_text(shown[0], with_n)
    return ", ".join(f"{cell.figure.title} {cell_text(cell, with_n)}" for cell in shown if cell.state != "absent")


def mean_text(mean: Mean) -> str:
    """The average, or how many of its columns have no value; never empty."""
    if mean.value is not None:
        return _number(mean)
    return "not comparable" if mean.unlike else f"{len(mean.missing)} missing"


def _number(shown: Cell | Mean) -> str:
    """91.2 ± 0.4 over three or more seeds, 91.0 / 91.4 over two, else 91.2 or, with an interval over images,
    91.2 [88.1, 93.6]"""
    value = figures.text(shown.value or 0.0, shown.figure)
    if shown.interval is not None:
        return f"{value} ± {figures.text(shown.interval, shown.figure)}"
    if len(shown.values) == 2:
        return " / ".join(figures.text(each, shown.figure) for each in shown.values)
    if isinstance(shown, Cell) and shown.image_interval is not None:
        low, high = (figures.text(end, shown.figure) for end in shown.image_interval)
        return f"{value} [{low}, {high}]"
    return value


def mean_reason(mean: Mean) -> str:
    """Why an average has no value; empty if it has one."""
    if mean.unlike:
        return "its columns have different units"
    return f"needs {', '.join(mean.missing)}" if mean.missing else ""


def title(report: Report) -> str:
    """The content of the table in a sentence."""
    # by title: a figure of one name may be that of a probe in one column, and of the whole model in another
    shown = {cell.figure.title: cell.figure for cell in report.cells if cell.figure.name}
    units = {(metric.unit, metric.better) for metric in shown.values()}
    if len(units) == 1:
        ((unit, better),) = units
        note = ", ".join(part for part in (unit, "lower is better" if better == "lower" else "") if part)
        names = " / ".join(metric.title for metric in shown.values()) + (f" ({note})" if note else "")
    else:
        names = " / ".join(map(directed_title, shown.values())) or figures.UNKNOWN.title
    where = f" on {report.measured_on}" if report.measured_on and not report.joined else ""
    stage = f", stage {report.stage}" if report.stage else ""
    return "; ".join([f"{names}{where}{stage}", *_spread(report), *_pretraining(report)])


def _spread(report: Report) -> list[str]:
    """Over what the numbers of the table vary."""
    counts = sorted({len(cell.seeds) for cell in report.cells if cell.value is not None})
    many = [count for count in counts if count >= FEWEST]
    words = []
    if many:
        seeds = f"{many[0]} to {many[-1]}" if len(many) > 1 else str(many[0])
        given = ", conditional on the chosen setting" if any(cell.choice for cell in report.cells) else ""
        words.append(f"mean over {seeds} seeds ± half the 95 % confidence interval over seeds (Student t){given}")
    if 2 in counts:
        words.append("of two seeds both values" if many else "both values of two seeds")
    if 1 in counts:
        words.append("one seed (n = 1)")
    if any(cell.image_interval for cell in report.cells):
        titles = " and ".join(dict.fromkeys(cell.figure.title for cell in report.cells if cell.image_interval))
        images = "test images" if report.measured_on == "test" else f"images of {report.measured_on or 'the split'}"
        words.append(f"in brackets, of {titles}, the 95 % interval over {images} (Wilson), not over seeds")
    return words


def _pretraining(report: Report) -> list[str]:
    """What seeds have in common before their own training, where that is not nothing; by rows where they differ."""
    known = [cell for cell in report.cells if cell.pretraining is not None]
    of_row = {row: {cell.pretraining for cell in known if cell.row == row} for row in report.rows}
    names: dict[Pretraining, dict[str, None]] = {}
    for cell in known:
        name = cell.row if len(of_row[cell.row]) == 1 else f"{cell.row} on {cell.column}"
        names.setdefault(cell.pretraining or "random", {})[name] = None
    return [
        WORDS[kind] if len(names) == 1 else f"{', '.join(named)}: {WORDS[kind]}"
        for kind, named in names.items()
        if kind in WORDS
    ]


def directed_title(metric: MetricRow) -> str:
    """A figure's title with its unit and, where that is lower, the better direction: RMSE (m, lower is better)"""
    note = ", ".join(part for part in (metric.unit, "lower is better" if metric.better == "lower" else "") if part)
    return f"{metric.title} ({note})" if note else metric.title


def field_title(path: str) -> str:
    """A field's name as a heading: layer decay"""
    return HEADINGS.get(path, path.rpartition(".")[2].replace("_", " "))


def edge_text(edge: Edge) -> str:
    """layer decay high (0.95); lr beyond low (7e-05 below 0.0001); lr high (0.009, its range ends at 0.01)"""
    value, bound = f"{edge.value:g}", f"{edge.bound:g}"
    if edge.beyond:
        numbers = f"{value} {'below' if edge.side == 'low' else 'above'} {bound}"
    else:
        numbers = value if value == bound else f"{value}, its range ends at {bound}"
    return f"{field_title(edge.path)} {'beyond ' * edge.beyond}{edge.side} ({numbers})"


@dataclass(frozen=True)
class Heading:
    """The head of a column of numbers."""

    name: str
    figure: str = ""
    """Its figure, with unit and direction, where the table shows several."""

    @property
    def text(self) -> str:
        return f"{self.name}\n{self.figure}" if self.figure else self.name


@dataclass(frozen=True)
class Line:
    """A row of the table as text, its name first."""

    kind: Literal["ours", "published", "difference", "other"]
    """`other`: a row of published values without trials."""
    texts: list[str]
    shown: Sequence[Cell | Mean]
    """The cells and averages that the texts after the name belong to; of an `other` row none."""

    @property
    def bold(self) -> list[bool]:
        """For each text, whether it stands out."""
        numbers = range(1, len(self.texts))
        return [False, *(self.kind == "ours" and self.shown[n - 1].leading for n in numbers)]


@dataclass(frozen=True)
class Grid:
    """The table as text."""

    corner: str
    """The head of the first column."""
    headings: list[Heading]
    lines: list[Line]

    @property
    def header(self) -> list[str]:
        """A text for each column, of two lines where the table shows several figures."""
        return [self.corner, *(heading.text for heading in self.headings)]


def grid(report: Report) -> Grid:
    """The table: below each row of ours the published values and the differences, if any."""
    lines = []
    with_n = counts_differ(report)
    for row in report.rows:
        shown = _numbers_of(report, row)
        texts = [cell_text(each, with_n) if isinstance(each, Cell) else mean_text(each) for each in shown]
        lines.append(Line("ours", [row, *texts], shown))
        if any(each.reference is not None for each in shown):
            lines.append(
                Line("published", [f"{row}, published", *(published_text(each) or "–" for each in shown)], shown)
            )
        if any(each.difference is not None for each in shown):
            differences = [difference_text(each) or "–" for each in shown]
            lines.append(Line("difference", ["difference", *differences], shown))
    lines += [
        Line("other", [row.name, *(text or "–" for text in other_texts(report, row))], ()) for row in report.others
    ]
    return Grid(field_title(report.row_path), headings(report), lines)


def other_texts(report: Report, row: OtherRow) -> list[str]:
    """The published values of a row without trials, in the order of the columns; empty where there is none."""
    texts = []
    for position, value in enumerate([*row.columns, *row.means]):
        below = (_numbers_of(report, name)[position].figure for name in report.rows)
        metric = next((figure for figure in below if figure.name), None)
        texts.append("" if value is None else f"{value:g}" if metric is None else figures.text(value, metric))
    return texts


def _numbers_of(report: Report, row: str) -> list[Cell | Mean]:
    """The cells of a row, then its averages, in the order of the columns."""
    return [*report.cells_of(row), *report.means_of(row)]


def published_text(shown: Cell | Mean) -> str:
    """The published value; empty if there is none."""
    return "" if shown.reference is None else figures.text(shown.reference, shown.figure)


def difference_text(shown: Cell | Mean) -> str:
    """Our value less the published one; empty if there is none."""
    return "" if shown.difference is None else figures.signed(shown.difference, shown.figure)


def headings(report: Report) -> list[Heading]:
    """The heads of the table's columns, then those of its averages."""
    several = shows_several(report)
    means = [mean.name for mean in report.means_of(report.rows[0])] if report.rows else []
    names = [*(column.name for column in report.columns), *means]
    if not several:
        return [Heading(name) for name in names]
    below: list[list[Cell | Mean]] = [[] for _ in names]
    for row in report.rows:
        for position, each in enumerate(_numbers_of(report, row)):
            below[position].append(each)
    listed = list(dict.fromkeys(column.figure for column in report.columns))
    names_of_figures = [
        report.columns[n].figure if n < len(report.columns) else listed[n % len(listed)] for n in range(len(names))
    ]
    return [
        Heading(name, _figure_heading(column, names_of_figures[position]))
        for position, (name, column) in enumerate(zip(names, below, strict=True))
    ]


def shows_several(report: Report) -> bool:
    """True if the heads of the columns name figures: the spec lists several, or the table shows some of unlike units or
    directions."""
    shown = {figures.unit_key(cell.figure) for cell in report.cells if cell.figure.name}
    return len({column.figure for column in report.columns}) > 1 or len(shown) > 1


def _figure_heading(column: Sequence[Cell | Mean], name: str) -> str:
    known = [each for each in column if isinstance(each, Cell) or not each.unlike]
    metric = next((each.figure for each in known if each.figure.name), None)
    return name if metric is None else figures.title(metric) + ARROWS[metric.better]


def leading_note(report: Report) -> str:
    """What a number that stands out means; empty if none does. Forms put their way of marking before it."""
    if not (any(cell.leading for cell in report.cells) or any(mean.leading for mean in report.means)):
        return ""
    return "best of its column, or its difference to that, paired by seed, has a 95 % interval that contains 0"


def reason_without_error(cell: Cell) -> str:
    """Why a cell has no value, without the error of a trial that failed, which stands once, with the trial."""
    return cell.reason.partition("; ")[0] if cell.state in ("failed", "cancelled") else cell.reason


def notes(report: Report) -> list[str]:
    """Reasons for missing numbers, where published values are from, and what early stopping saved."""
    lines = []
    remedies = {source.remedy for source in report.joined if source.remedy}  # in the notes on the columns
    for cell in report.cells:
        shown = cell.state != "absent" and cell.reason not in remedies
        if cell.value is None and cell.reason and shown:
            lines.append(f"{cell.row} on {cell.column}: {cell.state} ({reason_without_error(cell)})")
    for mean in report.means:
        if reason := mean_reason(mean):
            lines.append(
                f"{mean.name} of {mean.row}: {reason}" if mean.unlike else f"{mean.name} of {mean.row} {reason}"
            )
    if report.source:
        computed = any(mean.reference_computed for mean in report.means)
        lines.append(f"published: {report.source}{'; its averages computed here' if computed else ''}")
    lines += [f"{row.name}: {row.source}" for row in report.others]
    lines += where_from(report)
    return [*dict.fromkeys(lines), *saving_lines(report.saved, report.agreement)]


def choices(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the chosen settings, a row for each group that has any; only settings that were varied."""
    decided = [(group, group.choices[-1]) for group in report.groups if group.choices]
    fixed = {report.row_path, report.column_path, "seed"}
    paths = [path for path in dict.fromkeys(p for _, choice in decided for p in choice.settings) if path not in fixed]
    rows = []
    for group, choice in decided:
        lost = [f"{n} {word}" for n, word in ((choice.diverged, "diverged"), (choice.failed, "failed")) if n]
        rows.append(
            [
                group.column,
                group.row,
                *(short(choice.settings[path]) if path in choice.settings else "–" for path in paths),
                "–" if choice.value is None else figures.text(choice.value, choice.figure),
                f"{choice.candidates} ({', '.join(lost)})" if lost else str(choice.candidates),
                "; ".join(edge_text(edge).partition(" (")[0] for edge in choice.edges) or "–",
                choice.key[:8],
            ]
        )
    first = [field_title(report.column_path), field_title(report.row_path)]
    last = ["chosen\nat", "best\nof", "at grid edge", "trial"]
    return [*first, *(field_title(path) for path in paths), *last], rows


def chosen_title(report: Report) -> str:
    """The heading of the table of chosen settings: Chosen on val"""
    return f"Chosen on {report.chosen_on}" if report.chosen_on else "Chosen"


def chosen_note(report: Report) -> str:
    """What the values in the table of chosen settings are; empty if nothing was chosen."""
    decided = [group.choices[-1] for group in report.groups if group.choices]
    if not decided:
        return ""
    extremes = {choice.figure.better for choice in decided}
    extreme = "best" if len(extremes) > 1 else "maximum" if "higher" in extremes else "minimum"
    tried = sorted({choice.candidates for choice in decided})
    settings = f"{tried[0]} to {tried[-1]} settings" if len(tried) > 1 else f"{tried[0]} setting{'s' * (tried[0] != 1)}"
    seeds = max(len(choice.seeds) for choice in decided)
    mean = f", of the mean over {seeds} seeds" if seeds > 1 else ""
    where = f" on {report.chosen_on}" if report.chosen_on else ""
    return f"chosen at: {extreme} over {settings}{where}{mean}; no result, too optimistic"


def spread_text(cell: HeatCell, metric: MetricRow) -> str:
    """89.8–90.5: the smallest and the largest value over the seeds of a square's setting; of one with a diverged seed
    how many, empty for a single seed."""
    if cell.wanted < 2 or cell.state in ("absent", "running", "pending"):
        return ""
    if cell.value is None:
        return f"{cell.wanted - len(cell.values)} of {cell.wanted}"
    return f"{figures.text(min(cell.values), metric)}–{figures.text(max(cell.values), metric)}"


def point_text(point: Point, metric: MetricRow) -> str:
    """The value of a setting of a neighbourhood, or the words for why there is none."""
    if point.value is not None:
        return figures.text(point.value, metric)
    if point.state == "diverged" and len(point.keys) > 1:
        return f"diverged in {len(point.keys) - len(point.values)} of {len(point.keys)} seeds"
    return point.state


def seeds_text(values: Sequence[float], seeds: Sequence[int], metric: MetricRow) -> str:
    """seed 0 89.8, seed 1 90.5"""
    pairs = zip(seeds, values, strict=True)
    return ", ".join(f"seed {seed} {figures.text(value, metric)}" for seed, value in pairs)


def run_link(run_id: str, tracking: str = "") -> str:
    """Where the MLflow UI shows a run; without the address of a UI, the path below it. `tracking` may be the page that
    leads on to the UI (see `ui_page`)."""
    if tracking.endswith(".html"):
        return f"{tracking}#/runs/{run_id}"
    return f"{tracking.rstrip('/')}/#/runs/{run_id}"
