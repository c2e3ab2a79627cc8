"""The class maps that a task trains on and is measured on, from the options of the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.datasets.annotated import AnnotatedData
from tasks.datasets.class_maps.dataset import ClassMapDataset

if TYPE_CHECKING:
    from tasks.datasets.class_maps.types import ClassMapSet


@dataclass(frozen=True)
class ClassMapData(AnnotatedData):
    """A data set of class maps and the part that a task evaluates."""

    whole: ClassMapDataset

    def read(self, root: Path, folders: Sequence[Path] = ()) -> tuple[ClassMapSet, ClassMapSet]:
        """What is trained on and what is evaluated. Raises DataError when they are missing, or not those that the trial
        was planned with."""
        self.check_planned(root, folders)
        return self.whole.open(root, "train"), self.whole.open(root, self.evaluate)
