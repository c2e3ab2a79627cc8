"""Trials of tasks that only the tests have, for the checks of a spec and the planner."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

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


class Parted(Tiny):
    """Names its data set and its split in fields of its own, and lets a population change its noise."""

    kind: Literal["parted"] = "parted"  # type: ignore[assignment]
    data_fields: ClassVar[tuple[str, ...]] = ("frames",)
    split_field: ClassVar[str] = "part"
    changeable: ClassVar[tuple[str, ...]] = ("noise",)
    frames: str = "street"
    part: Literal["tuning", "final"] = "tuning"

    reads_test = property(lambda self: self.part == "final")  # type: ignore[assignment]


class Shared(Spread):
    """Has a loss over a worker's whole share of the batch."""

    kind: Literal["shared"] = "shared"  # type: ignore[assignment]


class MoreTasks(TrialSpec):
    task: Annotated[Classify | Compared | Parted | Shared, Field(discriminator="kind")]  # type: ignore[assignment]


def allow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets specs and plans name these tasks."""
    for module in (expansion, check_paths, check_trials):
        monkeypatch.setattr(module, "TrialSpec", MoreTasks)
