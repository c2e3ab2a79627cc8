"""What trials are about: one folder a task. A spec names a task by its `kind`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from tasks.analysis.task import Analyse
from tasks.base import Task
from tasks.classification.task import Classify
from tasks.depth.task import Depth
from tasks.detection.task import Detection
from tasks.pose.task import Pose
from tasks.pretraining.task import Pretrain
from tasks.segmentation.task import Segmentation
from tasks.tracking.task import Tracking

if TYPE_CHECKING:
    import click

TASKS: dict[str, type[Task]] = {
    "classify": Classify,
    "pretrain": Pretrain,
    "analysis": Analyse,
    "pose": Pose,
    "depth": Depth,
    "detection": Detection,
    "segmentation": Segmentation,
    "tracking": Tracking,
}
"""Every task by its kind."""


def task_class(kind: str) -> type[Task]:
    """The class of the tasks of this kind. Raises ValueError for an unknown one."""
    if kind not in TASKS:
        raise ValueError(f"{kind!r}: no such kind; kinds: {', '.join(TASKS)}")
    return TASKS[kind]


class _ByKind:
    """Validates a task by the class of its kind, as a union with the discriminator `kind`.

    Classes are looked up when a model that holds a task is built: whoever adds one to `TASKS` rebuilds that model
    (`TrialSpec.model_rebuild(force=True)`).
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        classes = {kind: handler.generate_schema(task_class(kind)) for kind in TASKS}
        return core_schema.tagged_union_schema(classes, discriminator="kind")


AnyTask = Annotated[Task, _ByKind()]
"""The type of a field that holds a task, of any kind in `TASKS`."""


def commands() -> tuple[click.Command, ...]:
    """Commands that single tasks offer; `python -m orchestrator` has them beside its own."""
    from tasks.pretraining.avgdist import avgdist

    return (avgdist,)
