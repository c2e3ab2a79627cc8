"""What the numbers of a table vary over (seeds, images, pre-training runs), and which of them differ from the best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.report import figures
from orchestrator.report.model import Cell, Mean
from orchestrator.report.pretraining import pretraining, starts_of
from orchestrator.report.statistics import FEWEST, paired_interval, wilson

if TYPE_CHECKING:
    from orchestrator.store.store import Store

Number = TypeVar("Number", Cell, Mean)


def with_uncertainty(store: Store, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells with what they vary over: their pre-training where there are several seeds; else, of figures that are
    shares of images, an interval over these. Never both kinds of intervals in one table."""
    if any(cell.wanted > 1 and cell.state != "absent" for cell in cells):
        several = [cell.value is not None and len(cell.seeds) > 1 for cell in cells]
        starts = starts_of(store, (key for cell, many in zip(cells, several, strict=True) if many for key in cell.keys))
        return tuple(
            replace(cell, pretraining=pretraining(cell.keys, starts)) if many else cell
            for cell, many in zip(cells, several, strict=True)
        )
    shown = [key for cell in cells if cell.value is not None for key in cell.keys]
    facts = {key: snapshot.facts for key, snapshot in store.trials.snapshots(shown).items()}
    return tuple(_over_images(cell, facts) for cell in cells)


def _over_images(cell: Cell, facts: Mapping[str, Mapping[str, Any]]) -> Cell:
    """The interval is one of a value that was not chosen on these very images: none where it is the best of several."""
    shares = facts.get(cell.keys[0], {}).get("shares") if cell.keys and cell.value is not None else None
    images = shares.get(cell.figure.name) if isinstance(shares, Mapping) else None
    if not isinstance(images, int) or images < 1 or cell.value is None or cell.best_of > 1:
        return cell
    share = cell.value / cell.figure.scale
    if not 0 <= share <= 1:
        return cell
    low, high = wilson(share, images)
    return replace(cell, images=images, image_interval=(low * cell.figure.scale, high * cell.figure.scale))


def marked(rows: Sequence[str], numbers: Sequence[Number], each: int) -> tuple[Number, ...]:
    """The cells or averages of a table, `each` a row, with those marked that lead their column."""
    lines = [numbers[n * each : (n + 1) * each] for n in range(len(rows))]
    return tuple(number for line in with_leading(lines) for number in line)


def with_leading(rows: Sequence[Sequence[Number]]) -> list[list[Number]]:
    """The rows of a table, in each column of which the best number and those not told apart from it are marked."""
    marks = [_leading(column) for column in zip(*rows, strict=True)]
    return [[replace(each, leading=marks[i][n]) for i, each in enumerate(row)] for n, row in enumerate(rows)]


def _leading(column: Sequence[Cell | Mean]) -> list[bool]:
    """True for the best, and for each whose difference to it, paired by seed, has a 95 % interval that contains 0; none
    where there is nothing to compare, or not by the same three or more seeds, or no value is better than another.
    Numbers that are missing do not count."""
    known = [each for each in column if each.value is not None]
    if len(known) < 2 or not _comparable(known):
        return [False] * len(column)
    metric = known[0].figure
    if metric.better == "neither":
        return [False] * len(column)
    best = figures.best([each.value or 0.0 for each in known], metric)
    first = next(each for each in known if each.value == best)
    return [each.value is not None and _near(each, first) for each in column]


def _comparable(known: Iterable[Cell | Mean]) -> bool:
    seeds = {each.seeds for each in known}
    units = {figures.unit_key(each.figure) for each in known}
    paired = len(seeds) == 1 and all(len(set(each)) == len(each) >= FEWEST for each in seeds)
    return paired and len(units) == 1


def _near(each: Cell | Mean, best: Cell | Mean) -> bool:
    difference, half = paired_interval(each.values, best.values)
    return each is best or (half is not None and abs(difference) <= half)
