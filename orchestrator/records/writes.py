"""What a driver writes about a trial it holds: progress, end, failure, release.

Every write carries the fencing token of the attempt; the store refuses a stale one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.records.rows import MeasurementRow


@dataclass(frozen=True)
class Reported:
    """A trial ended a round (`epoch`, from 1); a repeated one replaces the earlier report."""

    key: str
    token: int
    epoch: int
    step: int
    values: Mapping[str, float]
    seconds: float
    """Wall time of this round, training and evaluation."""
    pictures: tuple[str, ...] = ()
    """Files, relative to the trial's folder."""


@dataclass(frozen=True)
class Finished:
    """A trial ended with figures. Written again for a done trial, only its weights are recorded."""

    key: str
    token: int
    figures: Mapping[str, float]
    facts: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[str, str] | None = None
    """Path and SHA-256."""
    measurements: Sequence[MeasurementRow] = ()
    """Values per item, layer or head."""


@dataclass(frozen=True)
class Failed:
    """A trial ended without figures. `retry`: only the attempt has ended, the trial is pending again."""

    key: str
    token: int
    error_class: str
    message: str
    retry: bool = False


@dataclass(frozen=True)
class Released:
    """A trial was given back unfinished (never started, or stopped at a checkpoint) and is pending again."""

    key: str
    token: int
    cause: str


@dataclass(frozen=True)
class StoppedEarly:
    """A search ended the trial early, at a checkpoint: it is `stopped`, for this reason."""

    key: str
    token: int
    reason: str


Write = Reported | Finished | Failed | Released | StoppedEarly
