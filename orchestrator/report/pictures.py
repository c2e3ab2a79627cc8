"""The only place that puts the pictures that trials drew into a report: which of them, and their bytes for a page."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.report.model import Picture

if TYPE_CHECKING:
    from orchestrator.records.rows import PlacedRow

SHOWN = 24
"""Trials whose pictures are in a report; those of a larger study are in MLflow and beside each trial's weights."""


def chosen(placed: Iterable[PlacedRow], drawn: Mapping[str, list[tuple[int, str]]]) -> tuple[Picture, ...]:
    """Of each trial, by its place: every picture of its first and of its last epoch that has any."""
    found: list[Picture] = []
    seen: set[str] = set()
    for trial in placed:
        if trial.key in seen or not drawn.get(trial.key) or len(seen) == SHOWN:
            continue
        seen.add(trial.key)
        epochs = [epoch for epoch, _ in drawn[trial.key]]
        for epoch in dict.fromkeys((epochs[0], epochs[-1])):
            found += [Picture(trial.name, trial.key, epoch, path) for e, path in drawn[trial.key] if e == epoch]
    return tuple(found)


def embedded(picture: Picture, storage: Path) -> str | None:
    """The picture as a data URI; None when its file is no longer there."""
    file = storage / "trials" / picture.key[:2] / picture.key / picture.path
    try:
        return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
    except OSError:
        return None
