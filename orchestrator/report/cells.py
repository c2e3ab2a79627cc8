"""Turns the trials of a cell into its number, or into the reason why it has none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.report.figures import UNKNOWN, scaled, unit_key
from orchestrator.report.formatting import finite
from orchestrator.report.model import Cell, Choice, Mark, Mean
from orchestrator.report.statistics import mean_interval

if TYPE_CHECKING:
    pass
from orchestrator.records.rows import MetricRow, PlacedRow


def mark_of(states: Iterable[str]) -> Mark:
    """One state for several trials that are needed together: the one that most needs looking at."""
    present = set(states)
    order: tuple[Mark, ...] = ("failed", "cancelled", "running", "pending", "stopped", "diverged", "done")
    return next((state for state in order if state in present), "missing")


def best_first(rows: Iterable[PlacedRow]) -> list[PlacedRow]:
    """Done before others; among them by the metric they are chosen by; equal ones by key, so that the order is always
    the same."""

    def rank(row: PlacedRow) -> tuple[bool, float, str]:
        value = finite(row.value) if row.state == "done" else None
        return (value is None, 0.0 if value is None else -value if row.mode == "max" else value, row.key)

    return sorted(rows, key=rank)


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

    Where nothing was chosen before this stage, the best setting stands for the cell once all have ended.
    """
    by_setting: dict[str, list[PlacedRow]] = {}
    for trial in trials:
        others = sorted((path, value) for path, value in trial.settings.items() if path != "seed")
        by_setting.setdefault(repr(others), []).append(trial)
    ended = all(trial.state in ("done", "diverged", "stopped") for trial in trials)
    if len(by_setting) > 1 and ended and any(trial.state == "done" for trial in trials):
        best = best_first(trials)[0]
        trials = next(seeds for seeds in by_setting.values() if any(trial.key == best.key for trial in seeds))
    return by_seed(trials), max(1, len(by_setting))


def by_seed(trials: Iterable[PlacedRow]) -> list[PlacedRow]:
    """The trials in the order of their seeds."""
    return sorted(trials, key=lambda trial: (trial.seed, trial.key))


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
    numbers = [scaled(values.get(trial.key), figure) for trial in done]
    finite_numbers = tuple(number for number in numbers if number is not None)
    value: float | None = None
    interval: float | None = None
    if state == "done" and len(finite_numbers) < len(done):
        state, reason = "diverged", "the figure is not a finite number"
    elif state == "done" and source.curve:
        state, reason = "absent", f"a curve over {source.curve}: see its plot"
    elif state == "done":
        reason = ""
        value, interval = mean_interval(finite_numbers)
    else:
        reason = _reason(state, trials) if trials else source.reason
    choice = source.choice
    return Cell(
        row=source.row,
        column=source.column,
        figure=figure,
        state="absent" if source.absent else state,
        reason=reason,
        value=value,
        interval=interval,
        values=finite_numbers,
        seeds=tuple(trial.seed for trial in done),
        wanted=len(trials),
        best_of=source.best_of,
        keys=tuple(trial.key for trial in trials),
        run_ids=tuple(runs[trial.key] for trial in trials if trial.key in runs),
        group=trials[0].group if trials else choice.group if choice else "",
        choice=choice,
        reference=reference,
        difference=None if value is None or reference is None else value - reference,
    )


def _reason(state: Mark, trials: Sequence[PlacedRow]) -> str:
    counts = Counter(str(trial.state) for trial in trials)
    text = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
    first = next((trial for trial in trials if trial.state == state), trials[0])
    if state == "running":
        text += f"; epoch {first.epoch} of {first.epochs}"
    elif state in ("failed", "cancelled", "diverged") and first.error:
        text += f"; {first.error_class or state}: {first.error.splitlines()[0]}"
    return text if len(trials) > 1 or state in ("running", "failed", "cancelled", "diverged") else ""


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
    seeds = {part.seeds for part in parts}
    alike = not missing and not unlike
    n = len(next(iter(seeds))) if len(seeds) == 1 and alike else 0
    if alike and parts:
        value = math.fsum(part.value for part in parts if part.value is not None) / len(parts)
        if n > 1:
            by_seed = zip(*(part.values for part in parts), strict=True)
            interval = mean_interval([math.fsum(values) / len(parts) for values in by_seed])[1]
    reference, computed = published.get(name), False
    if reference is None and over and not unlike and all(column in published for column in over):
        reference, computed = math.fsum(published[column] for column in over) / len(over), True
    return Mean(
        row=row,
        name=name,
        figure=next((part.figure for part in parts if part.figure.name), UNKNOWN),
        value=value,
        interval=interval,
        n=n,
        missing=tuple(missing),
        unlike=unlike,
        reference=reference,
        reference_computed=computed,
        difference=None if value is None or reference is None else value - reference,
    )
