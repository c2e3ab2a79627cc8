"""Objects with boxes and masks that a spec describes: annotations in COCO's form in a folder of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Tag, field_validator

from tasks.bounds import FilePath, Label
from tasks.datasets.described import DatasetDescription, kind_of
from tasks.datasets.instances.dataset import InstanceDataset

_PART = "{part}"


class InstancesDescription(DatasetDescription):
    """Annotations and images below `path`, by default where COCO 2017 has them. `{part}` in a name stands for train,
    val and test; a part whose annotations are not there does not exist. Annotations have category_id, bbox, area,
    iscrowd and segmentation (polygons or RLE)."""

    kind: Literal["coco"]
    annotations: FilePath = "annotations/instances_{part}2017.json"
    images: FilePath = "{part}2017"
    """Folder of the images."""

    @field_validator("annotations", "images")
    @classmethod
    def _formats(cls, value: str) -> str:
        other = value.replace(_PART, "")
        if "{" in other or "}" in other or value.startswith(("/", "~")) or ".." in value.split("/"):
            raise ValueError(f"{value!r} must lie below path; the one name in braces is {_PART}")
        return value

    @field_validator("annotations")
    @classmethod
    def _names_the_part(cls, value: str) -> str:
        if _PART not in value:
            raise ValueError(f"{value!r} must name the part: write {_PART} where train, val or test stands")
        return value

    def info(self, root: Path) -> InstanceDataset:
        return self.dataset()

    def dataset(self) -> InstanceDataset:
        """The data as a data set like the named ones, without counts."""
        return InstanceDataset(
            name=self.name, title=self.name, source="folder", split="as the annotation files say", licence="",
            how_to_get=f"{self.path} must be a folder with annotations and images as COCO 2017 has them",
            annotations=self.annotations, images=self.images, folder="", counts={}, own=self,
        )  # fmt: skip


InstancesField: TypeAlias = Annotated[
    Annotated[Label, Tag("name")] | Annotated[InstancesDescription, Tag("coco")],
    Discriminator(
        kind_of,
        custom_error_type="dataset",
        custom_error_message="must be the name of a data set, or {kind: coco, path: ..}",
    ),
]
"""A data set by name, or a description."""
