"""Data sets of persons with joints: where their files lie, how they are split, and whether they are whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.datasets.checks import compare_manifest, look_at_files, other_sizes_below
from tasks.datasets.files import first_few, plain, repeated
from tasks.datasets.info import Finding, Watch, unwatched
from tasks.datasets.manifest import FOLDER, Manifest
from tasks.datasets.official import OfficialDataset
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.persons.annotations import Persons

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class PartFiles:
    """The files of one part, and how much is in them as its makers state it."""

    annotations: str
    """JSON below the base folder."""
    images: str
    """Folder below the base folder."""
    detections: str = ""
    """Boxes that a detector found, below the base folder; empty: none are published."""
    labelled: bool = True
    """False: labels are not public."""
    image_count: int = 0
    """Images that count: of train those with a person. 0: not stated."""
    persons: int = 0
    """Persons that are trained on, or found by ground-truth boxes."""
    boxes: int = 0
    """Detected boxes."""


@dataclass(frozen=True, kw_only=True)
class PoseDataset(OfficialDataset):
    """Persons in photographs with joints."""

    skeleton: Literal["coco", "crowdpose"]
    """Which joints are labelled, in which order."""
    part_files: Mapping[Part, PartFiles]
    optional: tuple[str, ...] = ()
    """Parts that need not be there."""

    @property
    def joints(self) -> int:
        return {"coco": 17, "crowdpose": 14}[self.skeleton]

    @property
    def labelled_parts(self) -> tuple[Part, ...]:
        """Parts with public labels, which the manifest is of."""
        return tuple(part for part in PARTS if part in self.part_files and self.part_files[part].labelled)

    def facts(self) -> Mapping[str, Any]:
        counts: dict[str, Any] = {p: self.part_files[p].image_count if p in self.part_files else 0 for p in PARTS}
        return {**counts, "split": self.split, "joints": self.joints, "persons": self._persons(), "metric": "AP"}

    def _persons(self) -> str:
        return ", ".join(f"{part} {files.persons:,}" for part, files in self.part_files.items() if files.persons)

    def read(self, root: Path, part: Part) -> Persons:
        """The images and persons of a part; of train those images alone that show a person. Raises DataError."""
        import numpy as np

        from tasks.datasets.persons.annotations import read_persons

        if part not in self.part_files:
            raise DataError(f"{self.name} has no part {part}; its parts: {', '.join(self.part_files)}")
        files = self.part_files[part]
        path = self.base(root) / files.annotations
        if not path.exists():
            raise DataError(f"{self.name}: no {path}, the annotations of {part}. {self.how_to_get}")
        persons = read_persons(path, self.name, self.joints, files.labelled)
        if part != "train":
            return persons
        return persons.taken(np.unique(persons.image_of[persons.usable]))

    def image_names(self, part: Part, persons: Persons) -> list[str]:
        """The files of the images of a part, below the base folder."""
        return [plain(f"{self.part_files[part].images}/{name}") for name in persons.files]

    def manifest_of(self, root: Path, known: Mapping[Part, Persons] | None = None) -> Manifest:
        """Every image of the labelled parts, with a digest of its persons. `known`: parts that were read already.
        Raises DataError."""
        images: list[str | int] = []
        annotations: list[Any] = []
        parts: list[str] = []
        base = self.base(root)
        for part in self.labelled_parts:
            if not (base / self.part_files[part].annotations).exists() and part in self.optional:
                continue
            persons = (known or {}).get(part) or self.read(root, part)
            names = self.image_names(part, persons)
            images += names
            annotations += persons.entries()
            parts += [part] * len(names)
        if not images:
            where = base / self.part_files[self.labelled_parts[0]].annotations
            raise DataError(f"{self.name}: no annotations of any part: {where}. {self.how_to_get}")
        if twice := repeated(images):
            raise DataError(
                f"{self.name}: {len(twice):,} images are in two parts, so that the model would be measured on what it "
                f"learnt from: {first_few(twice)}"
            )
        return Manifest(f"{self.name}/official", images, annotations, parts, rule=self.split)

    def check(
        self, root: Path, choices: Mapping[str, Any], folders: Sequence[Path], images: bool, watch: Watch = unwatched
    ) -> Finding:
        """Annotations, boxes and files of every part, and the counts of images that the makers state."""
        finding = Finding()
        if self.missing(root):
            finding.problems += [f"{root / name} is not there" for name in self.needs if not (root / name).exists()]
            return finding
        try:
            base = self.base(root)
            there = [part for part, files in self.part_files.items() if (base / files.annotations).exists()]
            persons = {part: self.read(root, part) for part in there}
            made = self.manifest_of(root, persons)
        except DataError as error:
            finding.problems.append(str(error).removeprefix(f"{self.name}: "))
            return finding
        finding.counts, finding.digest, finding.split = made.counts, made.digest, made.cut
        for part in self.labelled_parts:
            wanted, found = self.part_files[part].image_count, made.counts[part]
            if wanted and found != wanted and (found or part not in self.optional):
                finding.problems.append(f"{found:,} images of {part} that count, expected {wanted:,}")
        finding.expected = sum(self.part_files[part].image_count for part in self.labelled_parts) or None
        self._check_boxes(base, persons, finding)
        compare_manifest(self.name, self.manifest_file, [root / FOLDER, *folders], finding)
        look_at_files(self.name, base, made, images, watch, finding)
        self._check_sizes(base, persons, images, finding)
        return finding

    def _check_sizes(self, base: Path, persons: Mapping[Part, Persons], images: bool, finding: Finding) -> None:
        """Adds the images that have another size than their annotations: of a few, or with `images` of all."""
        wrong = list[str]()
        for part, each in persons.items():
            wrong += other_sizes_below(self.name, base, self.image_names(part, each), each.sizes, images)
        if wrong:
            finding.problems.append(
                f"{len(wrong):,} images have another size than their annotations say: {first_few(wrong)}"
            )

    def _check_boxes(self, base: Path, persons: Mapping[Part, Persons], finding: Finding) -> None:
        """Adds faults of the detected boxes that are there, and how much of them and of annotations is left out."""
        import numpy as np

        from tasks.datasets.persons.detections import ground_truth, read_boxes

        for part, each in persons.items():
            if without := ground_truth(each).left_out:
                finding.notes.append(f"{part}: {without:,} persons whose box has no area are left out")
            unstated = int(np.isnan(each.areas).sum())
            if unstated and self.skeleton == "coco":
                finding.notes.append(
                    f"{part}: {unstated:,} persons without area: OKS takes 0.53 of their box, as for CrowdPose"
                )
            detections = self.part_files[part].detections
            if not detections:
                continue
            if not (base / detections).exists():
                finding.notes.append(f"{part}: no {detections}, so task.boxes: ground_truth alone")
                continue
            try:
                boxes = read_boxes(base / detections, self.name, part, each)
            except DataError as error:
                finding.problems.append(str(error).removeprefix(f"{self.name}: "))
                continue
            left_out = f"; {boxes.left_out:,} without area are left out" if boxes.left_out else ""
            finding.notes.append(f"{part}: {len(boxes.scores):,} detected boxes in {detections}{left_out}")

    def files(self, root: Path) -> tuple[list[Path], list[int] | None]:
        base = self.base(root)
        parts = [(part, self.read(root, part)) for part in self.labelled_parts]
        return [base / name for part, persons in parts for name in self.image_names(part, persons)], None
