"""Objects with boxes and masks that a spec describes: annotations in COCO's form in a folder of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Tag

from tasks.bounds import Label
from tasks.datasets.described import DatasetDescription, PartPath, PathBelow, by_kind
from tasks.datasets.instances.dataset import InstanceDataset


class InstancesDescription(DatasetDescription):
    """Annotations and images below `path`, by default where COCO 2017 has them. `{part}` in a name stands for train,
    val and test; a part whose annotations are not there does not exist. Annotations have category_id, bbox, area,
    iscrowd and segmentation (polygons or RLE)."""

    kind: Literal["coco"]
    annotations: PartPath = "annotations/instances_{part}2017.json"
    images: PathBelow = "{part}2017"
    """Folder of the images."""

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
    by_kind("coco"),
]
"""A data set by name, or a description."""
