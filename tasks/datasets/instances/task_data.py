"""The objects that a task trains on and finds, from the options of the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.datasets.annotated import AnnotatedData
from tasks.datasets.instances.dataset import InstanceDataset

if TYPE_CHECKING:
    from tasks.datasets.instances.types import InstanceSet


@dataclass(frozen=True)
class InstanceData(AnnotatedData):
    """A data set of objects and the part that a task evaluates."""

    whole: InstanceDataset

    def read(self, root: Path, folders: Sequence[Path] = ()) -> tuple[InstanceSet, InstanceSet]:
        """What is trained on and what is evaluated. Raises DataError when they are missing, or not those that the trial
        was planned with."""
        self.check_planned(root, folders)
        self.whole.class_names(root)  # both parts have the same
        return self.whole.open(root, "train"), self.whole.open(root, self.evaluate)
