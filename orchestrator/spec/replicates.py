"""The models of a stage's replicates."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from orchestrator.spec.model import SpecModel
from tasks.bounds import MAX_SEED

MAX_REPLICATES = 1000
Count = Annotated[int, Field(ge=1, le=MAX_REPLICATES)]


class Replicates(SpecModel):
    """`{n: 5, first: 10}`: every setting runs with the seeds first .. first + n - 1."""

    n: Count
    first: int | None = Field(default=None, ge=0, le=MAX_SEED)
    """None: for settings of the stage's own and for a neighbourhood, the seed of the base trial or of the stages whose
    winner it takes; for a stage that reruns a winner, the first seed after all those by which it was chosen."""


def _kind(value: Any) -> str | None:
    if isinstance(value, dict | Replicates):
        return "seeds"
    return "n" if isinstance(value, int) and not isinstance(value, bool) else None


ReplicatesField = Annotated[
    Annotated[Count, Tag("n")] | Annotated[Replicates, Tag("seeds")],
    Discriminator(
        _kind,
        custom_error_type="replicates",
        custom_error_message="must be a whole number, or {n: how many, first: the first seed}",
    ),
]
