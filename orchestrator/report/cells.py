"""The only place that turns the trials of a cell into its number, or into the reason why it has none."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.report.formatting import finite
from orchestrator.report.model import Cell, Choice, Mark, Mean, unit_of
from orchestrator.report.statistics import mean_interval

if TYPE_CHECKING:
    from orchestrator.records.rows import PlacedRow


def mark_of(states: Iterable[str]) -> Mark:
    """One state for several trials that are needed together: the one that most needs looking at."""
    there = set(states)
    order: tuple[Mark, ...] = ("failed", "cancelled", "running", "pending", "stopped", "diverged", "done")
    return next((state for state in order if state in there), "missing")


def best_first(rows: Iterable[PlacedRow]) -> list[PlacedRow]:
    """Done before others; among them by the metric; equal ones by key, so that the order is always the same."""

    def rank(row: PlacedRow) -> tuple[bool, float, str]:
        value = finite(row.value) if row.state == "done" else None
        return (value is None, 0.0 if value is None else -value if row.mode == "max" else value, row.key)

    return sorted(rows, key=rank)


def make_cell(
    row: str,
    column: str,
    trials: Sequence[PlacedRow],
    choice: Choice | None,
    runs: Mapping[str, str],
    why_missing: str,
    reference: float | None,
) -> Cell:
    """The cell at (row, column). `trials`: those of the table's stage; `why_missing` is told when there are none."""
    by_setting: dict[str, list[PlacedRow]] = {}
    for trial in trials:
        others = {path: value for path, value in trial.settings.items() if path != "seed"}
        by_setting.setdefault(repr(sorted(others.items(), key=lambda item: item[0])), []).append(trial)
    best_of = max(1, len(by_setting))
    state = mark_of(trial.state for trial in trials)
    if best_of > 1:  # nothing chose before this stage: the best setting stands for the cell, and the cell says so
        ended = all(trial.state in ("done", "diverged", "stopped") for trial in trials)
        if ended and any(trial.state == "done" for trial in trials):
            best = best_first(trials)[0]
            trials = next(some for some in by_setting.values() if any(trial.key == best.key for trial in some))
            state = mark_of(trial.state for trial in trials)
    trials = sorted(trials, key=lambda trial: (trial.seed, trial.key))
    scale = unit_of(trials[0].metric).scale if trials else 1.0
    done = [trial for trial in trials if trial.state == "done"]
    values = tuple(scale * trial.value for trial in done if finite(trial.value) is not None and trial.value is not None)
    value: float | None = None
    interval: float | None = None
    if state == "done" and len(values) < len(done):
        state, reason = "diverged", "the figure is not a finite number"
    elif state == "done":
        reason = ""
        value, interval = mean_interval(values)
    else:
        reason = _reason(state, trials) if trials else why_missing
    return Cell(
        row=row,
        column=column,
        state=state,
        reason=reason,
        value=value,
        interval=interval,
        values=values,
        seeds=tuple(trial.seed for trial in done),
        wanted=len(trials),
        best_of=best_of,
        keys=tuple(trial.key for trial in trials),
        run_ids=tuple(runs[trial.key] for trial in trials if trial.key in runs),
        group=trials[0].group if trials else choice.group if choice else "",
        choice=choice,
        reference=reference,
        difference=None if value is None or reference is None else value - reference,
    )


def _reason(state: Mark, trials: Sequence[PlacedRow]) -> str:
    counts = Counter(str(trial.state) for trial in trials)
    told = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
    first = next((trial for trial in trials if trial.state == state), trials[0])
    if state == "running":
        told += f"; epoch {first.epoch} of {first.epochs}"
    elif state in ("failed", "cancelled", "diverged") and first.error:
        told += f"; {first.error_class or state}: {first.error.splitlines()[0]}"
    return told if len(trials) > 1 or state in ("running", "failed", "cancelled", "diverged") else ""


def average(
    row: str,
    name: str,
    over: Sequence[str],
    cells: Mapping[tuple[str, str], Cell],
    units: Mapping[str, Any],
    published: Mapping[str, float],
) -> Mean:
    """The mean of a row over some columns, seed by seed when all its cells have the same seeds.

    `units`: what each column is measured in; a mean over unlike ones is refused. `published`: the reference's
    values of this row; its average is computed from them when it is not stated.
    """
    parts = [cells[row, column] for column in over if (row, column) in cells]
    missing = [column for column in over if (row, column) not in cells]
    missing += [part.column for part in parts if part.value is None]
    if not missing and len({units[column] for column in over}) > 1:
        missing = ["(columns in different units)"]
    value: float | None = None
    interval: float | None = None
    seeds = {part.seeds for part in parts}
    n = len(next(iter(seeds))) if len(seeds) == 1 and not missing else 0
    if not missing and parts:
        value = math.fsum(part.value for part in parts if part.value is not None) / len(parts)
        if n > 1:
            by_seed = zip(*(part.values for part in parts), strict=True)
            interval = mean_interval([math.fsum(values) / len(parts) for values in by_seed])[1]
    reference, computed = published.get(name), False
    if reference is None and over and all(column in published for column in over):
        reference, computed = math.fsum(published[column] for column in over) / len(over), True
    return Mean(
        row=row,
        name=name,
        value=value,
        interval=interval,
        n=n,
        missing=tuple(missing),
        reference=reference,
        reference_computed=computed,
        difference=None if value is None or reference is None else value - reference,
    )
