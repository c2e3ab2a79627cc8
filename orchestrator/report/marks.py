"""The states that a report shows, of a cell or of anything else made of several trials."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Mark = Literal[
    "done", "running", "pending", "failed", "cancelled", "diverged", "stopped", "missing", "undecided", "absent",
    "submitted", "not run",
]  # fmt: skip
"""State of a cell. Only `done` has a value. `missing`: its trial does not exist yet (or never will, see the
reason); `undecided`: it has several settings, and no value of the figure that trials are chosen by is better than
another; `absent`: the study has no such combination, or a plot shows it as a curve; `submitted`: its trials wrote files
for a public evaluation server, which alone can measure them; `not run` (in a table that joins jobs): no trial of it
exists yet, or its whole job was not submitted."""


def mark_of(states: Iterable[str]) -> Mark:
    """One state for several trials that are needed together: the one that most needs looking at."""
    present = set(states)
    order: tuple[Mark, ...] = ("failed", "cancelled", "running", "pending", "stopped", "diverged", "done")
    return next((state for state in order if state in present), "missing")
