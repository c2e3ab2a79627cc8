"""Makes the tests' own task known by its kind, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ships.task import Ships

from tasks import TASKS
from workers.trial import TrialSpec


@contextmanager
def registered_ships() -> Iterator[None]:
    """While it lasts, a spec may say `kind: ships`."""
    TASKS["ships"] = Ships  # the one line that a new task needs
    TrialSpec.model_rebuild(force=True)
    try:
        yield
    finally:
        del TASKS["ships"]
        TrialSpec.model_rebuild(force=True)
