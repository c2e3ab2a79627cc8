"""States of jobs and trials, and the snapshot of a trial that planning needs; plain data, without a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SUBMISSION = "submission"
"""The fact that names the file of predictions of a trial that is done without figures, since labels are not public."""


class TrialState(StrEnum):
    """`diverged` is a result; `failed` and `cancelled` can be retried.

    `stopped`: a search ended the trial early. For that search it is a result; for any other stage the trial resumes
    from its checkpoint.
    """

    pending = "pending"
    running = "running"
    done = "done"
    diverged = "diverged"
    failed = "failed"
    cancelled = "cancelled"
    stopped = "stopped"

    @property
    def ended(self) -> bool:
        """True unless pending or running."""
        return self not in (TrialState.pending, TrialState.running)


@dataclass(frozen=True)
class TrialSnapshot:
    """A trial as recorded at one moment."""

    state: TrialState
    figures: Mapping[str, float] = field(default_factory=dict)
    error_class: str | None = None
    error: str | None = None
    weights: tuple[str, str] | None = None
    """Path, relative to the storage folder (see `records.trial_files`), and SHA-256; None if they were not kept."""
    step_seconds: float | None = None
    train_seconds: float | None = None
    epoch: int = 0
    epochs: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    pinned: bool = False
    """True if its weights must be kept even if its stage keeps none."""


class JobState(StrEnum):
    """`interrupted` is also the state of a job whose driver died before the end."""

    queued = "queued"
    running = "running"
    done = "done"
    incomplete = "incomplete"
    cancelled = "cancelled"
    interrupted = "interrupted"
