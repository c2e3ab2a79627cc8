"""The reasons for which a trial ends without figures, as an enum and as exceptions."""

from __future__ import annotations

from enum import StrEnum

LIMIT_GRACE_S = 60.0
"""A trial ends itself after the step in which its time limit runs out; one that has not so much later hangs."""


class ErrorClass(StrEnum):
    """Why a trial ended without its figures, and whether it runs again."""

    diverged = "diverged"  # non-finite loss: a result, never repeated
    out_of_memory = "out_of_memory"  # at a micro-batch of 1 already: repeated by `retry` only
    data = "data"  # missing, unreadable or wrong data: repeated by `retry`, once the user has mended them
    code = "code"  # any other exception: repeated by `retry`; the same error in three trials pauses their stage
    storage = "storage"  # full, read-only or gone: pending again, and the job pauses until it can be written
    node_lost = "node_lost"  # the process or its node died: repeated at once, from the last checkpoint
    timeout = "timeout"  # repeated by `retry`, from the last checkpoint, with a larger time_limit_hours
    cancelled = "cancelled"  # goes on from the last checkpoint when the job is submitted again


class TrialError(Exception):
    """A trial ends without figures, for a stated reason. Can be pickled, so it crosses Ray."""

    def __init__(self, error_class: ErrorClass, message: str) -> None:
        super().__init__(error_class, message)
        self.error_class = error_class
        self.message = message

    def __str__(self) -> str:
        return f"{self.error_class}: {self.message}"


class Stopped(Exception):
    """The trial was asked to stop and wrote a checkpoint; it can be resumed."""
