"""Finds the cells whose trials wrote a file for a public evaluation server, which alone can measure them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.records.states import SUBMISSION
from orchestrator.report.model import Cell

if TYPE_CHECKING:
    from orchestrator.store.store import Store


def with_submissions(store: Store, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells; those are `submitted` whose trials are all done, have recorded no such figure, and name a file for an
    evaluation server in their facts. A figure that is recorded and is no finite number stays what it is."""
    keys = list(dict.fromkeys(key for cell in cells if _empty(cell) for key in cell.keys))
    if not keys:
        return tuple(cells)
    snapshots, figures = store.trials.snapshots(keys), store.trials.figures(keys)
    files = {
        key: path
        for key, snapshot in snapshots.items()
        if snapshot.state == "done" and (path := _file(snapshot.facts)) is not None
    }

    def waits(cell: Cell) -> bool:
        return _empty(cell) and all(
            key in files and cell.figure.name not in figures.get(key, {}) for key in cell.keys
        )  # fmt: skip

    return tuple(_submitted(cell, [files[key] for key in cell.keys]) if waits(cell) else cell for cell in cells)


def _empty(cell: Cell) -> bool:
    return cell.state == "diverged" and cell.value is None and not cell.values


def _file(facts: Mapping[str, Any]) -> str | None:
    path = facts.get(SUBMISSION)
    return path if isinstance(path, str) and path else None


def _submitted(cell: Cell, files: Sequence[str]) -> Cell:
    inside = "" if all(file.startswith("/") for file in files) else " (in the storage folder)"
    reason = "to be measured by the evaluation server: " + ", ".join(dict.fromkeys(files)) + inside
    return replace(cell, state="submitted", reason=reason, submissions=tuple(files), diverged=0)
