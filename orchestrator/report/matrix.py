"""The progress of a job by row and column of its table, for `status` and for the live table of `submit`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.report import figures

if TYPE_CHECKING:
    from orchestrator.records.rows import MetricRow

ENDED = ("done", "diverged", "stopped")
LOST = ("failed", "cancelled")


@dataclass(frozen=True)
class Part:
    """The trials of one stage in one cell."""

    row: str
    column: str
    stage: str
    states: Mapping[str, int]
    """State -> how many trials are in it."""
    best: float | None = None
    """The best value so far, in its metric's unit; of a setting with several seeds their mean, once all have ended."""
    figure: MetricRow = figures.UNKNOWN
    expected: int = 0
    """Trials that the stage will have here, as far as that is known."""


Cells = Mapping[tuple[str, str], Sequence[Part]]


def arrange(parts: Iterable[Part]) -> tuple[list[str], list[str], Cells]:
    """Rows and columns in the order in which they first appear, and the parts of each cell."""
    cells: dict[tuple[str, str], list[Part]] = {}
    for part in parts:
        cells.setdefault((part.row, part.column), []).append(part)
    return list(dict.fromkeys(row for row, _ in cells)), list(dict.fromkeys(column for _, column in cells)), cells


def count(parts: Iterable[Part], states: Iterable[str]) -> int:
    """How many trials are in one of these states."""
    wanted = tuple(states)
    return sum(part.states.get(state, 0) for part in parts for state in wanted)


def total(parts: Iterable[Part]) -> int:
    """Trials that there are or, where more are expected, will be."""
    return sum(max(part.expected, sum(part.states.values())) for part in parts)


def best(parts: Iterable[Part]) -> tuple[float, MetricRow] | None:
    """The best value over several stages, with its metric; None where no trial has one."""
    known = [(part.best, part.figure) for part in parts if part.best is not None]
    if not known:
        return None
    metric = known[0][1]
    value = figures.best([value for value, figure in known if figure.name == metric.name], metric)
    return None if value is None else (value, metric)


def cell_text(parts: Sequence[Part], last: str) -> str:
    """22/23 ▸1 ✕1 failed best 90.0 % final 89.4 %: trials ended of all, running, failed; the best value that a choice
    can take, and that of `last`, the stage whose figures fill the table. A dash where the job has no such cell."""
    if not parts:
        return "–"
    of = total(parts)
    texts = [f"{count(parts, ENDED)}/{of}" if of else "not placed yet"]
    if running := count(parts, ["running"]):
        texts.append(f"▸{running}")
    if lost := count(parts, LOST):
        texts.append(f"✕{lost} failed")
    earlier, table = [p for p in parts if p.stage != last], [p for p in parts if p.stage == last]
    for name, value in (("best", best(earlier)), (last, best(table))):
        texts += [] if value is None else [f"{name} {figures.with_unit(*value)}"]
    return " ".join(texts)
