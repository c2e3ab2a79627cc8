"""The trials of a job that run now: how far each is, its loss, and the time it still takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.records.states import TrialState
from orchestrator.report.formatting import WIDTH, aligned, duration, finite

if TYPE_CHECKING:
    from orchestrator.records.rows import LastReport, PlacedRow
    from orchestrator.store.store import Store

LISTED = 20
"""Running trials that `status` lists; JSON has all."""


def running(store: Store, placed: Sequence[PlacedRow]) -> list[dict[str, Any]]:
    """The running ones among these trials, each once, the longest running first."""
    trials = {trial.key: trial for trial in placed if trial.state is TrialState.running}
    last = store.progress.last_reports(trials)
    rows = [_row(trial, last.get(trial.key)) for trial in trials.values()]
    return sorted(rows, key=lambda row: (row["running_seconds"] is None, -(row["running_seconds"] or 0.0)))


def _row(trial: PlacedRow, last: LastReport | None) -> dict[str, Any]:
    left = None if last is None else (trial.epochs - last.epoch) * last.round_seconds
    return {
        "key": trial.key,
        "name": trial.name,
        "stage": trial.stage,
        "group": trial.group,
        "epoch": trial.epoch,
        "epochs": trial.epochs,
        "loss": finite(last.values.get("train_loss")) if last else None,
        "images_per_second": last.values.get("system_images_per_second") if last else None,
        "running_seconds": max(0.0, time.time() - trial.started) if trial.started is not None else None,
        "seconds_left": left,
    }


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of the running trials; none where nothing runs."""
    if not rows:
        return []
    body = [
        [row["key"][:8], row["name"], f"{row['epoch']} of {row['epochs']}",
         "–" if row["loss"] is None else f"{row['loss']:.4g}",
         "–" if row["images_per_second"] is None else f"{row['images_per_second']:,.0f}",
         "–" if row["seconds_left"] is None else duration(row["seconds_left"])]
        for row in rows[:LISTED]
    ]  # fmt: skip
    more = [f"and {len(rows) - LISTED} more: trials JOB --state running"] if len(rows) > LISTED else []
    return ["", *aligned(["running", "trial", "epoch", "loss", "images/s", "left"], body, max(WIDTH, 160)), *more]
