"""Trials of tasks that only the tests have, for the checks of a spec and the planner."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from points_task import Spread
from pydantic import Field
from tiny_task import Tiny

from orchestrator.plan import expansion
from orchestrator.spec import check_paths, check_trials
from tasks.backbones.spec import BackboneSpec, Init, Scratch
from tasks.classification.task import Classify
from workers.trial import TrialSpec


class Compared(Tiny):
    """Compares the trial's model with others."""

    kind: Literal["compared"] = "compared"  # type: ignore[assignment]
    other: Init = Scratch()
    more: tuple[BackboneSpec, ...] = ()


class Shared(Spread):
    """Has a loss over a worker's whole share of the batch."""

    kind: Literal["shared"] = "shared"  # type: ignore[assignment]


class MoreTasks(TrialSpec):
    task: Annotated[Classify | Compared | Shared, Field(discriminator="kind")]  # type: ignore[assignment]


def allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets specs and plans name these tasks."""
    for module in (expansion, check_paths, check_trials):
        monkeypatch.setattr(module, "TrialSpec", MoreTasks)
