"""Turns the trials of a cell into its number, or into the reason why it has none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.report.figures import UNKNOWN, has_direction, scaled, text, unit_key
from orchestrator.report.marks import Mark, mark_of
from orchestrator.report.model import Cell, Choice, Mean
from orchestrator.report.replicates import best_first, by_seed
from orchestrator.report.statistics import mean_interval

if TYPE_CHECKING:
    from orchestrator.records.rows import MetricRow, PlacedRow


@dataclass(frozen=True)
class CellSource:
    """The trials of the table's stage at one row and column, from which a cell is made."""

    row: str
    column: str
    trials: Sequence[PlacedRow]
    best_of: int = 1
    """The number of settings that the trials are the best of."""
    choice: Choice | None = None
    metrics: tuple[MetricRow, ...] = ()
    """Figures that its trials have, or those of earlier stages while it has none; trials are chosen by the first."""
    reason: str = ""
    """The reason why there are no trials."""
    undecided: bool = False
    """True: the cell has several settings, and no value is better than another, so none of them stands for it."""
    absent: bool = False
    """True: the study has no such combination."""
    curve: str = ""
    """The field over which a plot draws the trials as a curve, so that no single number stands for the cell."""

    def metric(self, name: str) -> MetricRow | None:
        """The metric of this name, or, for an empty name, the first; None if its task has no such figure."""
        if not self.metrics:
            return UNKNOWN
        return next((metric for metric in self.metrics if name in ("", metric.name)), None)


def shown_trials(trials: Sequence[PlacedRow]) -> tuple[list[PlacedRow], int]:
    """The trials that a cell shows, by seed, and the number of settings that they are the best of.

    Where nothing was chosen before this stage, the best setting stands for the cell once all have ended: the one with
    the best mean over its seeds. Where no value is better than another, none does: all trials, and how many settings.
    """
    settings = best_first(trials)
    ended = all(trial.state in ("done", "diverged", "stopped") for trial in trials)
    if len(settings) > 1 and ended and settings[0].value is not None and has_direction(trials[0]):
        trials = settings[0].trials
    return by_seed(trials), max(1, len(settings))


def make_cell(
    source: CellSource,
    figure: MetricRow,
    values: Mapping[str, float | None],
    reference: float | None,
    runs: Mapping[str, str],
) -> Cell:
    """The cell of one figure. `values`: trial key -> recorded value; `runs`: trial key -> id of its MLflow run."""
    trials = source.trials
    state = mark_of(trial.state for trial in trials)
    done = [trial for trial in trials if trial.state == "done"]
    known = [(trial, number) for trial in done if (number := scaled(values.get(trial.key), figure)) is not None]
    numbers = tuple(number for _, number in known)
    lost = len(done) - len(known) + sum(trial.state == "diverged" for trial in trials)
    value: float | None = None
    interval: float | None = None
    if state == "done" and len(known) < len(done):
        state, reason = "diverged", _with_the_rest("the figure is not a finite number", known, figure)
    elif state == "done" and source.curve:
        state, reason = "absent", f"a curve over {source.curve}: see its plot"
    elif state == "done":
        reason = ""
        value, interval = mean_interval(numbers)
    else:
        reason = _reason(state, trials) if trials else source.reason
        if state == "diverged":
            reason = _with_the_rest(reason, known, figure)
    choice = source.choice
    return Cell(
        row=source.row,
        column=source.column,
        figure=figure,
        state="absent" if source.absent else "undecided" if source.undecided else state,
        reason=reason,
        value=value,
        interval=interval,
        values=numbers,
        seeds=tuple(trial.seed for trial, _ in known),
        diverged=lost if len({trial.seed for trial in trials}) == len(trials) else 0,
        wanted=len(trials),
        best_of=source.best_of,
        keys=tuple(trial.key for trial in trials),
        run_ids=tuple(runs[trial.key] for trial in trials if trial.key in runs),
        group=trials[0].group if trials else choice.group if choice else "",
        choice=choice,
        reference=reference,
        difference=None if value is None or reference is None else value - reference,
    )


def _with_the_rest(reason: str, known: Sequence[tuple[PlacedRow, float]], figure: MetricRow) -> str:
    """The reason why there is no mean, with the values of the other seeds."""
    rest = ", ".join(f"{text(number, figure)} (seed {trial.seed})" for trial, number in known)
    return f"{reason}; the others: {rest}" if rest else reason


def _reason(state: Mark, trials: Sequence[PlacedRow]) -> str:
    counts = Counter(str(trial.state) for trial in trials)
    said = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
    first = next((trial for trial in trials if trial.state == state), trials[0])
    if state == "running":
        said += f"; epoch {first.epoch} of {first.epochs}"
    elif state in ("failed", "cancelled", "diverged") and first.error:
        said += f"; {first.error_class or state}: {first.error.splitlines()[0]}"
    return said if len(trials) > 1 or state in ("running", "failed", "cancelled", "diverged") else ""


def average(
    row: str, name: str, over: Sequence[str], cells: Mapping[str, Cell], published: Mapping[str, float]
) -> Mean:
    """The mean of a row over some columns, seed by seed when all its cells have the same seeds.

    `cells`: of this row and one figure, by the name of their column; a mean over unlike units or directions is refused.
    `published`: the reference's values of this row; its average is computed from them when it is not stated.
    """
    parts = [cells[column] for column in over if column in cells]
    missing = [column for column in over if column not in cells or cells[column].value is None]
    unlike = not missing and len({unit_key(part.figure) for part in parts}) > 1
    value: float | None = None
    interval: float | None = None
    alike = not missing and not unlike
    seeds = parts[0].seeds if alike and parts and len({part.seeds for part in parts}) == 1 else ()
    values: tuple[float, ...] = ()
    if alike and parts:
        value = math.fsum(part.value for part in parts if part.value is not None) / len(parts)
        if seeds:
            of_seeds = zip(*(part.values for part in parts), strict=True)
            values = tuple(math.fsum(of_seed) / len(parts) for of_seed in of_seeds)
            interval = mean_interval(values)[1]
    reference, computed = published.get(name), False
    if reference is None and over and not unlike and all(column in published for column in over):
        reference, computed = math.fsum(published[column] for column in over) / len(over), True
    return Mean(
        row=row,
        name=name,
        figure=next((part.figure for part in parts if part.figure.name), UNKNOWN),
        value=value,
        interval=interval,
        n=len(seeds),
        missing=tuple(missing),
        unlike=unlike,
        reference=reference,
        reference_computed=computed,
        difference=None if value is None or reference is None else value - reference,
        values=values,
        seeds=seeds,
    )
