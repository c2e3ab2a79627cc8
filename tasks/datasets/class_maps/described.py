"""Class maps that a spec describes: images and maps in folders of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Discriminator, Tag, field_validator

from tasks.bounds import FilePath, Label
from tasks.datasets.class_maps.dataset import ClassMapDataset
from tasks.datasets.described import DatasetDescription, kind_of

_PART = "{part}"


class ClassMaps(DatasetDescription):
    """Images, and a map of the same name for each (PNG, one channel, the number of a class in each pixel; 255 is
    ignored), below `path`. `{part}` in a folder stands for train, val and test; a part whose maps are not there does
    not exist."""

    kind: Literal["class_maps"]
    images: FilePath = "images/{part}"
    maps: FilePath = "annotations/{part}"
    classes: FilePath = "classes.txt"
    """List of the classes, below `path`: a name a line in the order of their numbers, and perhaps after a tab its
    colour as #rrggbb; or a table as ADE20K's objectInfo150.txt."""
    zero: Literal["class", "ignored"] = "class"
    """What 0 in a map is: the first class; or no class, so that 1 is the first one, as in ADE20K."""

    covered: ClassVar[frozenset[str]] = frozenset({"path", "images", "maps", "classes"})

    @field_validator("images", "maps", "classes")
    @classmethod
    def _formats(cls, value: str) -> str:
        other = value.replace(_PART, "")
        if "{" in other or "}" in other or value.startswith(("/", "~")) or ".." in value.split("/"):
            raise ValueError(f"{value!r} must lie below path; the one name in braces is {_PART}")
        return value

    @field_validator("images", "maps")
    @classmethod
    def _names_the_part(cls, value: str) -> str:
        if _PART not in value:
            raise ValueError(f"{value!r} must name the part: write {_PART} where train, val or test stands")
        return value

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
    Discriminator(
        kind_of,
        custom_error_type="dataset",
        custom_error_message="must be the name of a data set, or {kind: class_maps, path: ..}",
    ),
]
"""A data set by name, or a description."""
