"""What trials are about: one file a task; `AnyTask` is the union that a spec may name by its `kind`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tasks.classification.task import Classify
from tasks.pretraining.task import Pretrain

AnyTask = Annotated[Classify | Pretrain, Field(discriminator="kind")]
