"""Data sets of objects with boxes and masks: where their files lie, how they are split, and whether they are whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.datasets.annotated import PARTS, AnnotatedDataset, ImageCounts, Part
from tasks.datasets.checks import look_at_files, other_sizes_below
from tasks.datasets.files import first_few, plain
from tasks.datasets.info import Finding, Watch
from tasks.datasets.manifest import Manifest
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.instances.annotations import Annotated
    from tasks.datasets.instances.types import InstanceSet

COCO_CLASSES = 80


@dataclass(frozen=True, kw_only=True)
class InstanceDataset(AnnotatedDataset):
    """Objects with boxes and masks, annotated in COCO's form. `{part}` in a name stands for train, val and test."""

    annotations: str = "annotations/instances_{part}2017.json"
    images: str = "{part}2017"
    """Folder of the images."""
    classes: int = 0
    """As its makers state them; 0: the files say."""
    metric: str = "AP"

    @property
    def statable_classes(self) -> int:
        return self.classes

    def place(self, base: Path, part: Part) -> Path:
        return base / self.annotations.format(part=part)

    def has(self, base: Path, part: Part) -> bool:
        return self.place(base, part).exists()

    def read(self, root: Path, part: Part) -> Annotated:
        """Raises DataError."""
        from tasks.datasets.instances.annotations import known_annotations

        path = self.place(self.base(root), part)
        if not path.exists():
            raise DataError(f"{self.name}: no {path}, the annotations of {part}. {self.how_to_get}")
        found = known_annotations(path, self.name)
        if not found.learnt.any():
            raise DataError(
                f"{self.name}: {path}: none of its {len(found.labels):,} objects is at least a pixel wide and high "
                "with a mask, so there is nothing to learn or find; boxes and polygons are in pixels"
            )
        apart = int((found.apart & found.learnt).sum())
        if apart > found.learnt.sum() / 2:
            raise DataError(
                f"{self.name}: {path}: the boxes of {apart:,} of {int(found.learnt.sum()):,} objects are not those of "
                "their masks (IoU below 0.5): bbox is x, y, width and height in pixels, and not two corners"
            )
        return found

    def image_names(self, part: Part, found: Annotated) -> list[str]:
        """The files of the images of a part, below the base folder."""
        folder = self.images.format(part=part)
        return [plain(f"{folder}/{name}") for name in found.files]

    def entries(self, root: Path, part: Part, folders: Sequence[Path]) -> tuple[Sequence[str], Sequence[Any]]:
        found = self.read(root, part)
        return self.image_names(part, found), list(found.entries())

    def class_names(self, root: Path) -> Sequence[str]:
        """Raises DataError when two parts have other categories."""
        base = self.base(root)
        known: dict[Part, Annotated] = {part: self.read(root, part) for part in PARTS if self.has(base, part)}
        categories = {part: dict(zip(each.category_ids, each.classes, strict=True)) for part, each in known.items()}
        first = next(iter(categories))
        for part, each in categories.items():
            if each != categories[first]:
                differ = sorted(each.items() ^ categories[first].items())
                raise DataError(
                    f"{self.name}: {self.place(base, part)} has other categories than {self.place(base, first)} "
                    f"(first: id {differ[0][0]}, {differ[0][1]}); give both files the same list"
                )
        return known[first].classes

    def image_counts(self, root: Path, made: Manifest) -> ImageCounts:
        train = self.read(root, "train")
        learnt = len(set(train.image_of[train.learnt].tolist()))
        return ImageCounts(**made.counts, learnt=learnt)

    def open(self, root: Path, part: Part) -> InstanceSet:
        """Raises DataError for annotations that are missing or damaged, and for images that they name and that are not
        there."""
        from tasks.datasets.instances.opened import OpenedInstances

        base = self.base(root)
        folder = self.images.format(part=part)
        return OpenedInstances(self.name, base, part, self.read(root, part), self.place(base, part), folder)

    def look(self, root: Path, made: Manifest, finding: Finding, images: bool, watch: Watch) -> None:
        base = self.base(root)
        for part in PARTS:
            if not self.has(base, part):
                continue
            found = self.read(root, part)
            crowd, learnt = int(found.crowd.sum()), int(found.learnt.sum())
            empty = len(found.ids) - len(set(found.image_of[found.learnt].tolist()))
            without, apart = len(found.labels) - crowd - learnt, int((found.apart & found.learnt).sum())
            finding.notes.append(
                f"{part}: {learnt:,} objects and {crowd:,} crowd regions; {empty:,} images have no object to learn from"
                + (f"; {without:,} objects without area or mask are not learnt from" if without else "")
                + (f"; {apart:,} boxes have an IoU below 0.5 with their mask's" if apart else "")
            )
        if self.classes and made.classes != self.classes:
            finding.problems.append(f"{made.classes} classes, expected {self.classes}")
        look_at_files(self.name, base, made, images, watch, finding)
        if wrong := self._other_sizes(root, images):
            finding.problems.append(
                f"{len(wrong):,} images have another size than their annotations say: {first_few(wrong)}"
            )

    def _other_sizes(self, root: Path, images: bool) -> list[str]:
        """The images whose files have another size than the annotations state: of a few, or with `images` of all."""
        base, wrong = self.base(root), list[str]()
        for part in PARTS:
            if self.has(base, part):
                found = self.read(root, part)
                wrong += other_sizes_below(self.name, base, self.image_names(part, found), found.sizes, images)
        return wrong

    def files(self, root: Path) -> tuple[list[Path], list[int] | None]:
        base = self.base(root)
        there = [part for part in PARTS if self.has(base, part)]
        return [base / name for part in there for name in self.image_names(part, self.read(root, part))], None
