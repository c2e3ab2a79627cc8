"""What a driver writes about a trial it holds: progress, end, failure, release.

Every write carries the fencing token of the attempt; the store refuses a stale one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from orchestrator.records.rows import MeasurementRow


class Attempt(NamedTuple):
    """One run of a trial. A driver may meet several of a trial at once: its own, and a later one that it took over."""

    key: str
    token: int


@dataclass(frozen=True)
class _OfAttempt:
    key: str
    token: int

    @property
    def attempt(self) -> Attempt:
        """The attempt that this is about."""
        return Attempt(self.key, self.token)


@dataclass(frozen=True)
class Reported(_OfAttempt):
    """A trial ended a round (`epoch`, from 1); a repeated one replaces the earlier report."""

    epoch: int
    step: int
    values: Mapping[str, float]
    seconds: float
    """Wall time of this round, training and evaluation."""
    pictures: tuple[str, ...] = ()
    """Files, relative to the trial's folder."""


@dataclass(frozen=True)
class Finished(_OfAttempt):
    """A trial ended with figures. Written again for a done trial, only its weights are recorded."""

    figures: Mapping[str, float]
    facts: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[str, str] | None = None
    """Path and SHA-256."""
    measurements: Sequence[MeasurementRow] = ()
    """Values per item, layer or head."""


@dataclass(frozen=True)
class Failed(_OfAttempt):
    """A trial ended without figures. `retry`: only the attempt has ended, the trial is pending again."""

    error_class: str
    message: str
    retry: bool = False


@dataclass(frozen=True)
class Released(_OfAttempt):
    """A trial was given back unfinished (never started, or stopped at a checkpoint) and is pending again."""

    cause: str


@dataclass(frozen=True)
class StoppedEarly(_OfAttempt):
    """A search ended the trial early, at a checkpoint: it is `stopped`, for this reason."""

    reason: str


Write = Reported | Finished | Failed | Released | StoppedEarly


def gives_back(write: Write) -> bool:
    """True if only the attempt has ended: the trial can run again, from its last checkpoint."""
    return isinstance(write, Released) or (isinstance(write, Failed) and write.retry)
