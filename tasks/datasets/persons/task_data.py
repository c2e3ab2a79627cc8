"""The persons that a task trains on and the boxes that it evaluates, from the options of the task."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.datasets.manifest import check_planned, folders_of, saved_digest
from tasks.datasets.manifest import save as save_manifest
from tasks.datasets.persons.dataset import Part, PoseDataset
from tasks.datasets.persons.described import CocoDescription
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.images.source import Source
    from tasks.datasets.persons.annotations import Persons
    from tasks.datasets.persons.detections import Boxes

Learnt = Literal["train", "trainval"]
Measured = Literal["val", "test"]
BoxSource = Literal["ground_truth", "detections"]
PART_FIELDS = ("train", "evaluate", "boxes", "boxes_file")
"""Fields of a task that say which persons and boxes are used."""
BOXES = "boxes"
"""In the key: the name of the digest of detected boxes, wherever they lie."""


class Counts(BaseModel):
    """Persons of each part that are trained on or found by ground-truth boxes, or detected boxes, as planning found
    them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    train: int = Field(default=0, ge=0, le=10**10)
    val: int = Field(default=0, ge=0, le=10**10)
    test: int = Field(default=0, ge=0, le=10**10)


@dataclass(frozen=True)
class Opened:
    """One part, ready to be read."""

    images: Source
    persons: Persons
    boxes: Boxes


@dataclass(frozen=True)
class PoseData:
    """A data set and what a task uses of it."""

    whole: PoseDataset
    train: Learnt
    evaluate: Measured
    boxes: BoxSource
    boxes_file: str | None
    manifests: Mapping[str, str]
    sizes: Mapping[str, Counts]

    @classmethod
    def of(cls, dataset: PoseDataset | CocoDescription, options: Mapping[str, Any]) -> PoseData:
        """`options`: fields of the task, by name."""
        whole = dataset.dataset() if isinstance(dataset, CocoDescription) else dataset
        chosen = {name: options[name] for name in PART_FIELDS}
        return cls(whole, **chosen, manifests=options.get("manifests", {}), sizes=options.get("sizes", {}))

    @property
    def labelled(self) -> bool:
        """False where the evaluated part has no public labels."""
        files = self.whole.part_files.get(self.evaluate)
        return files is None or files.labelled

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def _place(self) -> str:
        return self.whole.own.path if self.whole.own else self.whole.name

    @property
    def _official(self) -> str:
        return f"{self._place}/official"

    @property
    def _detected(self) -> str:
        return f"{self._place}/{self.evaluate}/{self.boxes_file or 'published boxes'}"

    @property
    def caveats(self) -> tuple[str, ...]:
        """See Task.caveats."""
        return ("images are generated: compare with nothing published",) if self.whole.made else ()

    def opens(self, reads_test: bool) -> Mapping[str, str]:
        """See TaskData.opens."""
        own = {self._place: "the makers' parts"}
        return own if reads_test else {**self.whole.shown, **own}

    @property
    def manifest_names(self) -> tuple[str, ...]:
        """See Task.manifest_names: the annotations, and the detected boxes where those are used and not generated with
        the annotations."""
        both = self.boxes == "detections" and (not self.whole.made or self.boxes_file is not None)
        return (self._official, self._detected) if both else (self._official,)

    def in_key(self, manifests: Mapping[str, str]) -> dict[str, str]:
        """The digests by what they are of, so that places stay out of the key."""
        return {BOXES if name == self._detected else "annotations": value for name, value in manifests.items()}

    @property
    def train_samples(self) -> int:
        """Persons that are trained on, as stated or planned; 0 while nothing is known."""
        return sum(self._count(self._official, part, "persons") for part in self._learnt)

    @property
    def evaluation_samples(self) -> int:
        """Boxes that are evaluated, likewise."""
        if self.boxes == "detections":
            return self._count(self._detected, self.evaluate, "boxes")
        return self._count(self._official, self.evaluate, "persons")

    def _count(self, entry: str, part: Part, what: str) -> int:
        if entry in self.sizes:
            return int(getattr(self.sizes[entry], part))
        files = self.whole.part_files.get(part)
        return int(getattr(files, what)) if files else 0

    def boxes_path(self, root: Path) -> Path:
        """The file of detected boxes. Raises DataError where none is named or it is missing."""
        files = self.whole.part_files.get(self.evaluate)
        remedy = "name one in task.boxes_file, or set task.boxes: ground_truth"
        if self.boxes_file is not None:
            path = root / Path(os.path.expanduser(self.boxes_file))
        elif files is None or not files.detections:
            raise DataError(f"{self.whole.name} has no published boxes for {self.evaluate}: {remedy}")
        else:
            path = self.whole.base(root) / files.detections
        if not path.is_file():
            raise DataError(f"{self.whole.name}: no boxes {path} for {self.evaluate}: {remedy}")
        return path

    def missing(self, root: Path) -> str | None:
        """See Task.missing_data."""
        problem = self.whole.missing(root)
        if problem or self.whole.made:
            return problem
        try:
            if self.boxes == "detections":
                self.boxes_path(root)
        except DataError as error:
            return str(error)
        path = self.whole.base(root) / self.whole.part_files[self.evaluate].annotations
        if not path.exists():
            return f"{self.whole.name}: no {path}, the annotations of {self.evaluate}. {self.whole.how_to_get}"
        return None

    def planned(self, root: Path, folders: Sequence[Path]) -> Mapping[str, Mapping[str, Any]]:
        """See Task.planned_fields: `manifests`, and `sizes`. Nothing where the data are missing, unless described."""
        if self.whole.made and self.boxes_file is None:  # not made here: that takes minutes, and a plan none
            return {"manifests": {self._official: self.whole.recipe()}}
        problem = self.missing(root)
        if problem:
            if self.whole.own is not None:
                raise DataError(problem)
            return {}
        from tasks.datasets.persons.detections import ground_truth

        digest, persons = self._annotated(root, folders)
        manifests, sizes = {self._official: digest}, dict[str, dict[str, int]]()
        if persons:
            sizes[self._official] = {part: len(ground_truth(each).scores) for part, each in persons.items()}
        if self.boxes == "detections":
            evaluated = persons.get(self.evaluate) or self.whole.read(root, self.evaluate)
            found = self._boxes(root, evaluated)
            manifests[self._detected] = found.digest
            sizes[self._detected] = {self.evaluate: len(found.scores)}
        return {"manifests": manifests, "sizes": sizes}

    @property
    def _learnt(self) -> tuple[Part, ...]:
        return ("train",) if self.train == "train" else ("train", "val")

    def _read(self, root: Path) -> dict[Part, Persons]:
        """The parts that are used."""
        return {part: self.whole.read(root, part) for part in dict.fromkeys((*self._learnt, self.evaluate))}

    def _annotated(self, root: Path, folders: Sequence[Path]) -> tuple[str, Mapping[Part, Persons]]:
        """The digest of the annotations, and the parts that are used, where they were read for it.

        A written manifest of a named set is believed; without one it is made and written. Described data are always
        read, because they change.
        """
        if self.whole.made:
            return self.whole.recipe(), {}
        folders = folders_of(root, folders)
        saved = [folder / self.whole.manifest_file for folder in folders]
        path = next((each for each in saved if each.exists()), None)
        if path is not None and self.whole.own is None:
            return saved_digest(path), {}
        persons = self._read(root)
        made = self.whole.manifest_of(root, persons)
        if self.whole.own is None:
            save_manifest(made, self.whole.manifest_file, folders)
        return made.digest, persons

    def _boxes(self, root: Path, persons: Persons) -> Boxes:
        from tasks.datasets.persons.detections import ground_truth, read_boxes

        if self.boxes == "ground_truth":
            return ground_truth(persons)
        return read_boxes(self.boxes_path(root), self.whole.name, self.evaluate, persons)

    def read(self, root: Path) -> tuple[Opened, Opened]:
        """What is trained on, with annotated boxes, and what is evaluated. Raises DataError when they are missing, or
        not those that the trial was planned with."""
        from tasks.datasets.images.open import open_annotated
        from tasks.datasets.persons.annotations import together
        from tasks.datasets.persons.detections import ground_truth

        problem = self.missing(root)
        if problem:
            raise DataError(problem)
        persons = self._read(root)
        if self._official in self.manifests and not self.whole.made:
            found = self.whole.manifest_of(root, persons).digest
            check_planned(self.name, "annotations", self.manifests[self._official], found)
        learnt, evaluated = [persons[part] for part in self._learnt], persons[self.evaluate]
        boxes = self._boxes(root, evaluated)
        if self.boxes == "detections" and self._detected in self.manifests:
            check_planned(self.name, "detected boxes", self.manifests[self._detected], boxes.digest)
        if not len(boxes.scores):
            raise DataError(f"{self.whole.name}: no box of {self.evaluate} to evaluate")
        whole = together(learnt)
        names = [name for part in self._learnt for name in self.whole.image_names(part, persons[part])]
        base = self.whole.base(root)
        training = Opened(open_annotated(self.name, base, names, "train"), whole, ground_truth(whole))
        own = self.whole.image_names(self.evaluate, evaluated)
        measured = Opened(open_annotated(self.name, base, own, self.evaluate), evaluated, boxes)
        for part, opened, files in ((self.train, training, names), (self.evaluate, measured, own)):
            self._check_sizes(part, opened, files)
        return training, measured

    def _check_sizes(self, part: str, opened: Opened, names: Sequence[str]) -> None:
        """Raises DataError for images of another size than their annotations say, by a look at a few of them."""
        from tasks.datasets.checks import GLANCE, other_sizes, spread
        from tasks.datasets.files import first_few

        rows = spread(len(names), GLANCE)
        if wrong := other_sizes(opened.images, names, opened.persons.sizes, rows):
            raise DataError(
                f"{self.name}: {len(wrong)} of {len(rows)} images of {part} that were looked at have another size than "
                f"their annotations say: {first_few(wrong)}; boxes and joints are in pixels of the image: correct the "
                "files or the annotations"
            )
