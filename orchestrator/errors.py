"""The only place for errors that a user is meant to read: each says what to do next and has its exit code."""

from __future__ import annotations


class OrchestratorError(Exception):
    """Something the user can act on. `str(error)` is the whole message; no traceback is shown for it."""

    exit_code = 1


class SpecError(OrchestratorError):
    """The spec (or an override of it) is wrong. One line for each mistake: file:line:column: field, value, remedy."""

    exit_code = 3

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class NotFound(OrchestratorError):
    """A job, trial, file or data set that was asked for is not there."""

    exit_code = 4


class Conflict(OrchestratorError):
    """Somebody else holds what was asked for (a lease lost, an ambiguous prefix, a store of another version)."""

    exit_code = 5


class LeaseLost(Conflict):
    """A write came with a fencing token that is no longer the trial's: another driver has taken the trial over."""


class BackendUnreachable(OrchestratorError):
    """The database, the Ray cluster, the tracking server or the disk does not answer or refuses."""

    exit_code = 7


class BadInput(OrchestratorError):
    """A file that was handed over cannot be used: damaged, of an unknown form, or with code in it."""

    exit_code = 6
