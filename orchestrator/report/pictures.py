"""Pictures that trials drew, for a report: which are shown, and their bytes for a page."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.paths import inside
from orchestrator.records.trial_files import trial_folder
from orchestrator.report.drawings import Picture

if TYPE_CHECKING:
    from orchestrator.records.rows import PlacedRow

SHOWN = 24
"""Trials whose pictures are in a report; the others' are in MLflow and in the trials' folders."""


def chosen(placed: Iterable[PlacedRow], drawn: Mapping[str, list[tuple[int, str]]]) -> tuple[Picture, ...]:
    """For each trial, in order, and of replicates the first: all pictures of the first and of the last epoch that has
    any."""
    pictures: list[Picture] = []
    seen: set[str] = set()
    settings: set[tuple[str, str, str]] = set()
    for trial in placed:
        if trial.key in seen or not drawn.get(trial.key) or len(seen) == SHOWN:
            continue
        setting = repr(sorted((path, repr(value)) for path, value in trial.settings.items() if path != "seed"))
        if (trial.stage, trial.group, setting) in settings:
            continue
        settings.add((trial.stage, trial.group, setting))
        seen.add(trial.key)
        epochs = [epoch for epoch, _ in drawn[trial.key]]
        for epoch in dict.fromkeys((epochs[0], epochs[-1])):
            pictures += [Picture(trial.name, trial.key, epoch, path) for e, path in drawn[trial.key] if e == epoch]
    return tuple(pictures)


def embedded(picture: Picture, storage: Path) -> str | None:
    """The picture as a data URI; None if its file does not exist."""
    file = inside(trial_folder(storage, picture.key), *Path(picture.path).parts)
    try:
        return image(file.read_bytes(), "png")
    except OSError:
        return None


def image(content: bytes, form: str) -> str:
    """An image file as a data URI. `form`: png, svg+xml."""
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"
