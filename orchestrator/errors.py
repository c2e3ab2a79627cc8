"""Errors that a user can act on; each message names a remedy, each class has its exit code."""

from __future__ import annotations


class OrchestratorError(Exception):
    """An error that the user can act on. `str(error)` is the whole message; commands show no traceback."""

    exit_code = 1


class SpecError(OrchestratorError):
    """The spec (or an override of it) is wrong. One line for each mistake: file:line:column: field, value, remedy."""

    exit_code = 3

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class NotFound(OrchestratorError):
    """A job, trial, file or data set does not exist."""

    exit_code = 4


class Conflict(OrchestratorError):
    """A request contradicts the present state: a lease was lost, a prefix is ambiguous, a store has another version."""

    exit_code = 5


class LeaseLost(Conflict):
    """A write has a fencing token that is not the trial's any more, because another driver has taken the trial over."""


class BackendUnreachable(OrchestratorError):
    """The database, the Ray cluster, the tracking server or the disk does not answer, or refuses a request."""

    exit_code = 7


class StoreAway(BackendUnreachable):
    """The database did not answer this time: it restarts, its disk is full, the network is away. It may answer soon."""


class ClusterLost(BackendUnreachable):
    """The Ray cluster that answered before is gone, or no node of it is left. Trials resume on another."""


class BadInput(OrchestratorError):
    """A file given by the user cannot be used: it is damaged, of an unknown form, or has code in it."""

    exit_code = 6
