"""The only place that says what the planner may know of a trial; plain, so that planning needs no database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class TrialState(StrEnum):
    """Where a trial stands. `diverged` is a result; `failed` and `cancelled` can be retried; `stopped` was ended early
    by a search, is a result for that search alone, and goes on from its checkpoint for whoever wants it in full."""

    pending = "pending"
    running = "running"
    done = "done"
    diverged = "diverged"
    failed = "failed"
    cancelled = "cancelled"
    stopped = "stopped"

    @property
    def ended(self) -> bool:
        return self not in (TrialState.pending, TrialState.running)


@dataclass(frozen=True)
class TrialSnapshot:
    """What the store says of one trial."""

    state: TrialState
    figures: Mapping[str, float] = field(default_factory=dict)
    error_class: str | None = None
    error: str | None = None
    weights: tuple[str, str] | None = None
    """Path and SHA-256, when they were kept."""
    step_seconds: float | None = None
    train_seconds: float | None = None
    epoch: int = 0
    epochs: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    pinned: bool = False
    """Its weights are wanted, whether or not its stage keeps any."""


class JobState(StrEnum):
    """Where a job stands. `interrupted` is also what a job says whose driver is gone before the end."""

    queued = "queued"
    running = "running"
    done = "done"
    incomplete = "incomplete"
    cancelled = "cancelled"
    interrupted = "interrupted"
