"""Names and units of metrics at the tracking server, in the two forms that jobs have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from orchestrator.records.rows import MetricRow, PlacedRow

NAMES_TAG = "names"
"""Tag of every run that says in which form its metrics are named; a run without it has the first."""
PREFIX = "system_"
"""Begins the values of a report that are about the run and not its result (workers.throughput)."""


class Names(StrEnum):
    """How the metrics of a job's runs are named. A job keeps the form that it began with, so that a mirror that goes on
    after an update leaves no curve in two pieces.

    `plain`: `train_loss`, `top1`, `system/images_per_second`, `epoch_seconds`, and `final/top1`, as recorded (fractions
    are not percent). `by_split`: `train/loss`, `val/top1`, `test/top1`, in the units of the tables, and
    `system/..` with the unit in the name.
    """

    plain = "1"
    by_split = "2"


_SYSTEM = {
    "images_per_second": ("images_per_second", 1.0),
    "memory_mb": ("memory_mib", 1.0),
    "data_wait": ("data_wait_percent", 100.0),
    "mfu": ("mfu_percent", 100.0),
}
"""Value of a report -> its name with its unit, and what brings it into that."""


def duration(names: Names) -> str:
    """The last metric written of every epoch: if MLflow has it, MLflow has the whole epoch."""
    return "epoch_seconds" if names is Names.plain else "system/epoch_seconds"


def metric_of(row: PlacedRow, name: str) -> MetricRow | None:
    """What the trial's task declared of a figure; of the one that trials are chosen by at least its name. None for
    what is no figure: a term of the loss, the learning rate."""
    found = next((metric for metric in row.metrics if metric.name == name), None)
    if found is None and name == row.metric:
        return MetricRow(name, name.replace("_", " "), "higher" if row.mode == "max" else "lower")
    return found


def named(
    row: PlacedRow, values: Mapping[str, float], names: Names, figures: bool = False
) -> list[tuple[str, float]]:  # fmt: skip
    """(name, value) of what a report says; `figures`: of a trial's figures, of which its task may have declared
    none."""
    if names is Names.plain:
        return [
            (f"system/{name.removeprefix(PREFIX)}" if name.startswith(PREFIX) else name, float(value))
            for name, value in values.items()
        ]
    return [_named(row, name, float(value), figures) for name, value in values.items()]


def _named(row: PlacedRow, name: str, value: float, figure: bool) -> tuple[str, float]:
    if name.startswith(PREFIX):
        with_unit, scale = _SYSTEM.get(name.removeprefix(PREFIX), (name.removeprefix(PREFIX), 1.0))
        return f"system/{with_unit}", value * scale
    if name.startswith("train_"):
        return f"train/{name.removeprefix('train_')}", value
    metric = metric_of(row, name)
    if metric is None:
        return (f"{row.split}/{name}" if figure else name), value
    return f"{row.split}/{name}", value * metric.scale


def described(row: PlacedRow, figures: Iterable[str]) -> str:
    """The figures with their titles and units, for the description of a run, which MLflow shows above its charts."""
    lines = []
    for name in figures:
        metric = metric_of(row, name)
        if metric is not None:
            unit = f" ({metric.unit})" if metric.unit else ""
            better = "" if metric.better == "neither" else f", {metric.better} is better"
            lines.append(f"- `{row.split}/{name}`: {metric.title}{unit}{better}")
    return "\n".join(lines)
