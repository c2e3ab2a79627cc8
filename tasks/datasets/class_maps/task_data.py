"""The class maps that a task trains on and is measured on, from the options of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.datasets.annotated import AnnotatedData
from tasks.datasets.class_maps.dataset import ClassMapDataset
from tasks.datasets.class_maps.described import ClassMaps

if TYPE_CHECKING:
    from tasks.datasets.class_maps.types import ClassMapSet


@dataclass(frozen=True)
class ClassMapData(AnnotatedData):
    """A data set of class maps and the part that a task evaluates."""

    whole: ClassMapDataset

    @classmethod
    def of(cls, dataset: ClassMapDataset | ClassMaps, options: Mapping[str, Any]) -> ClassMapData:
        """`options`: fields of the task, by name: `evaluate`, and `manifests` and `sizes` where planned."""
        whole = dataset.dataset() if isinstance(dataset, ClassMaps) else dataset
        return cls(whole, **cls.options_of(options))

    def read(self, root: Path, folders: Sequence[Path] = ()) -> tuple[ClassMapSet, ClassMapSet]:
        """What is trained on and what is evaluated. Raises DataError when they are missing, or not those that the trial
        was planned with."""
        self.check_planned(root, folders)
        return self.whole.open(root, "train"), self.whole.open(root, self.evaluate)
