"""Scales figures into their units, compares and prints them, all as their recorded metrics say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestrator.records.rows import MetricRow
from orchestrator.report.formatting import finite

if TYPE_CHECKING:
    from orchestrator.records.rows import PlacedRow, TrialRow

UNKNOWN = MetricRow("", "no figure yet", "higher")
"""Stands for the metric of a cell or column of which no trial is known."""


def metric_of(trial: PlacedRow | TrialRow) -> MetricRow:
    """The metric that the trial is chosen by; its name and direction alone if the store has no more of it."""
    if trial.metrics:
        return trial.metrics[0]
    return unrecorded(trial.metric, trial.mode)


def has_direction(trial: PlacedRow | TrialRow) -> bool:
    """False if no value of the metric that the trial is chosen by is better than another."""
    return metric_of(trial).better != "neither"


def unrecorded(name: str, mode: str) -> MetricRow:
    """A metric of which the store has the name and the mode (max, min) alone."""
    return MetricRow(name, name.replace("_", " "), "higher" if mode == "max" else "lower")


def scaled(value: float | None, metric: MetricRow) -> float | None:
    """A recorded value in the metric's unit; None if there is none or it is not finite."""
    number = finite(value)
    return None if number is None else number * metric.scale


def text(value: float, metric: MetricRow) -> str:
    """A scaled value with the metric's decimals: 89.2"""
    return f"{value:.{metric.digits}f}"


def with_unit(value: float, metric: MetricRow) -> str:
    """A scaled value with its decimals and its unit: 89.2 %, 0.483 m"""
    return f"{text(value, metric)} {metric.unit}".rstrip()


def signed(value: float, metric: MetricRow) -> str:
    """A difference of scaled values with its sign: +0.4, −1.2"""
    return f"{value:+.{metric.digits}f}".replace("-", "−")


def title(metric: MetricRow) -> str:
    """RMSE (m)"""
    return f"{metric.title} ({metric.unit})" if metric.unit else metric.title


def best(values: Iterable[float], metric: MetricRow) -> float | None:
    """The largest or smallest value, whichever is better; where neither is, the value that all are. None if there is
    none."""
    if metric.better == "neither":
        return only[0] if len(only := list(dict.fromkeys(values))) == 1 else None
    return (max if metric.better == "higher" else min)(values, default=None)


def unit_key(metric: MetricRow) -> tuple[str, ...]:
    """Equal for two metrics if and only if a mean over both makes sense: same unit, scale and direction; for figures
    without a unit, the same name."""
    return (metric.better, metric.unit, str(metric.scale)) if metric.unit else (metric.better, "", metric.name)
