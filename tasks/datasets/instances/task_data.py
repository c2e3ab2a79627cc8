"""The objects that a task trains on and finds, from the options of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.datasets.annotated import AnnotatedData
from tasks.datasets.instances.dataset import InstanceDataset
from tasks.datasets.instances.described import InstancesDescription

if TYPE_CHECKING:
    from tasks.datasets.instances.types import InstanceSet


@dataclass(frozen=True)
class InstanceData(AnnotatedData):
    """A data set of objects and the part that a task evaluates."""

    whole: InstanceDataset

    @classmethod
    def of(cls, dataset: InstanceDataset | InstancesDescription, options: Mapping[str, Any]) -> InstanceData:
        """`options`: fields of the task, by name: `evaluate`, and `manifests` and `sizes` where planned."""
        whole = dataset.dataset() if isinstance(dataset, InstancesDescription) else dataset
        return cls(whole, **cls.options_of(options))

    def read(self, root: Path, folders: Sequence[Path] = ()) -> tuple[InstanceSet, InstanceSet]:
        """What is trained on and what is evaluated. Raises DataError when they are missing, or not those that the trial
        was planned with."""
        self.check_planned(root, folders)
        self.whole.class_names(root)  # both parts have the same
        return self.whole.open(root, "train"), self.whole.open(root, self.evaluate)
