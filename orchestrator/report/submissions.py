"""Finds the cells whose trials wrote a file for a public evaluation server, which alone can measure them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.report.model import Cell

if TYPE_CHECKING:
    from orchestrator.store.store import Store

FACT = "submission"
"""Name of the fact that a trial records: the path of the file that it wrote for the server."""


def with_submissions(store: Store, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells; those are `submitted` whose trials are all done, have recorded no such figure, and name a file for an
    evaluation server in their facts. A figure that is recorded and is no finite number stays what it is."""
    empty = [cell for cell in cells if cell.state == "diverged" and cell.value is None and not cell.values]
    keys = list(dict.fromkeys(key for cell in empty for key in cell.keys))
    if not keys:
        return tuple(cells)
    snapshots, figures = store.trials.snapshots(keys), store.trials.figures(keys)
    files = {
        key: path
        for key, snapshot in snapshots.items()
        if snapshot.state == "done" and (path := _file(snapshot.facts)) is not None
    }
    return tuple(
        _submitted(cell, [files[key] for key in cell.keys])
        if cell in empty
        and all(key in files and cell.figure.name not in figures.get(key, {}) for key in cell.keys)
        else cell
        for cell in cells
    )  # fmt: skip


def _file(facts: Mapping[str, Any]) -> str | None:
    path = facts.get(FACT)
    return path if isinstance(path, str) and path else None


def _submitted(cell: Cell, files: Sequence[str]) -> Cell:
    reason = "to be measured by the evaluation server: " + ", ".join(dict.fromkeys(files))
    return replace(cell, state="submitted", reason=reason, submissions=tuple(files), diverged=0)
