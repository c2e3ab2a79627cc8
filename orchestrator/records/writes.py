"""What the driver writes about a trial: progress, end, failure, release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.records.rows import MeasurementRow


@dataclass(frozen=True)
class Reported:
    """A trial reported an epoch; a repeated epoch replaces the earlier report."""

    key: str
    token: int
    epoch: int
    step: int
    values: Mapping[str, float]
    seconds: float
    pictures: tuple[str, ...] = ()
    """Files, relative to the trial's folder."""


@dataclass(frozen=True)
class Finished:
    """A trial ended with figures. Said again of a done trial, only the weights are taken."""

    key: str
    token: int
    figures: Mapping[str, float]
    facts: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[str, str] | None = None
    measurements: Sequence[MeasurementRow] = ()
    """Values per item, layer or head."""


@dataclass(frozen=True)
class Failed:
    """A trial ended without figures. `retry`: it is pending again, and only the attempt has ended."""

    key: str
    token: int
    error_class: str
    message: str
    retry: bool = False


@dataclass(frozen=True)
class Released:
    """A trial was given back unfinished (stopped at a checkpoint, never started): pending again."""

    key: str
    token: int
    cause: str


@dataclass(frozen=True)
class StoppedEarly:
    """A trial left at a checkpoint because the stopping rule of a search said so: `stopped`, with the reason."""

    key: str
    token: int
    reason: str


Write = Reported | Finished | Failed | Released | StoppedEarly
