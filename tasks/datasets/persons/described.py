"""Persons with joints that a spec describes: annotations in COCO's form in a folder of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Tag, field_validator

from tasks.bounds import FilePath, Label
from tasks.datasets.described import DatasetDescription, by_kind
from tasks.datasets.persons.dataset import PARTS, PartFiles, PoseDataset

_PART = "{part}"


class CocoDescription(DatasetDescription):
    """Annotations, images and detected boxes below `path`, by default where COCO 2017 has them. `{part}` in a file's
    name stands for train, val and test; a part whose annotations are not there does not exist."""

    layout: ClassVar[str] = "a folder with annotations, images and detections as COCO 2017 has them"

    kind: Literal["coco"]
    skeleton: Literal["coco", "crowdpose"] = "coco"
    """Joints of a person: COCO's 17, or CrowdPose's 14."""
    annotations: FilePath = "annotations/person_keypoints_{part}2017.json"
    images: FilePath = "{part}2017"
    """Folder of the images."""
    detections: FilePath = "person_detection_results/{part}2017_detections.json"

    @field_validator("annotations", "images", "detections")
    @classmethod
    def _formats(cls, value: str) -> str:
        if value.replace(_PART, "").count("{") or value.startswith(("/", "~")) or ".." in value.split("/"):
            raise ValueError(f"{value!r} must lie below path; the one name in braces is {_PART}")
        return value

    @field_validator("annotations")
    @classmethod
    def _names_the_part(cls, value: str) -> str:
        if _PART not in value:
            raise ValueError(f"{value!r} must name the part: write {_PART} where train, val or test stands")
        return value

    def info(self, root: Path) -> PoseDataset:
        return self.dataset()

    def dataset(self) -> PoseDataset:
        """The data as a data set like the named ones, without counts."""
        texts = (self.annotations, self.images, self.detections)
        files = {}
        for part in PARTS:
            annotations, images, detections = (text.replace(_PART, part) for text in texts)
            files[part] = PartFiles(annotations, images, detections)
        return PoseDataset(
            name=self.name, title=self.name, source="folder", split="as the annotation files say", licence="",
            how_to_get=f"{self.path} must be {self.layout}", skeleton=self.skeleton, part_files=files, optional=PARTS,
            own=self,
        )  # fmt: skip


PoseField: TypeAlias = Annotated[
    Annotated[Label, Tag("name")] | Annotated[CocoDescription, Tag("coco")],
    by_kind("coco"),
]
"""A data set by name, or a description."""
