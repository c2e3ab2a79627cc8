"""Class maps that a spec describes: images and maps in folders of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Tag

from tasks.bounds import Label
from tasks.datasets.class_maps.dataset import ClassMapDataset
from tasks.datasets.described import DatasetDescription, PartPath, PathBelow, by_kind


class ClassMaps(DatasetDescription):
    """Images, and a map of the same name for each (PNG, one channel, the number of a class in each pixel; 255 is
    ignored), below `path`. `{part}` in a folder stands for train, val and test; a part whose maps are not there does
    not exist."""

    kind: Literal["class_maps"]
    images: PartPath = "images/{part}"
    maps: PartPath = "annotations/{part}"
    classes: PathBelow = "classes.txt"
    """List of the classes, below `path`: a name a line in the order of their numbers, and perhaps after a tab its
    colour as #rrggbb; or a table as ADE20K's objectInfo150.txt."""
    zero: Literal["class", "ignored"] = "class"
    """What 0 in a map is: the first class; or no class, so that 1 is the first one, as in ADE20K."""

    covered: ClassVar[frozenset[str]] = frozenset({"path", "images", "maps", "classes"})

    def info(self, root: Path) -> ClassMapDataset:
        return self.dataset()

    def dataset(self) -> ClassMapDataset:
        """The data as a data set like the named ones, without counts."""
        return ClassMapDataset(
            name=self.name, title=self.name, source="folder", split="by the folders of the parts", licence="",
            how_to_get=f"{self.path} must have folders of images and maps, and a list of classes", images=self.images,
            maps=self.maps, part_names={}, zero_ignored=self.zero == "ignored", names_file=self.classes, folder="",
            counts={}, own=self,
        )  # fmt: skip


ClassMapsField: TypeAlias = Annotated[
    Annotated[Label, Tag("name")] | Annotated[ClassMaps, Tag("class_maps")],
    by_kind("class_maps"),
]
"""A data set by name, or a description."""
