"""What trials are about: one file a task; `AnyTask` is the union that a spec may name by its `kind`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from tasks.classification.task import Classify
from tasks.pretraining.task import Pretrain

if TYPE_CHECKING:
    import click

AnyTask = Annotated[Classify | Pretrain, Field(discriminator="kind")]


def commands() -> tuple[click.Command, ...]:
    """Commands that single tasks offer; `python -m orchestrator` has them beside its own."""
    from tasks.pretraining.avgdist import avgdist

    return (avgdist,)
