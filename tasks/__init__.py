"""What trials are about: one file a task; `AnyTask` is the union that a spec may name by its `kind`."""

from __future__ import annotations

from tasks.classify import Classify

AnyTask = Classify
"""Becomes `Annotated[Classify | Pretrain | ..., Field(discriminator="kind")]` with the second task."""
