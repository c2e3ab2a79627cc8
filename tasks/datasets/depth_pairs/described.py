"""Pairs of images and depth maps that a spec describes, and the field that takes a name or such a description."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, Tag, model_validator

from tasks.bounds import FilePath, Label
from tasks.datasets.depth_pairs.dataset import DepthDataset
from tasks.datasets.depth_pairs.layout import DepthFormat, DepthLayout, ListFile, Part
from tasks.datasets.depth_pairs.window import Window
from tasks.datasets.described import DatasetDescription, by_kind
from tasks.errors import DataError

Metres = Annotated[float, Field(gt=0, le=1e6)]
MAX_PAIRS = 10**10


class DepthPairs(DatasetDescription):
    """Images and depth maps of your own, in lists: a line has an image and its depth map, with names below the folder.

    A depth map is a PNG or TIFF file with one channel of 16 bits (or 32, or floating point); 0 is not known.
    """

    kind: Literal["depth_pairs"]
    train: FilePath = "train.txt"
    """List of the training pairs, below `path`."""
    val: FilePath = "val.txt"
    """List of the pairs that settings are chosen on; it may be missing where no trial evaluates on val."""
    test: FilePath = "test.txt"
    """List of the pairs that figures are reported on; it may be missing where no trial evaluates on test."""
    steps_per_metre: float = Field(default=1000, gt=0, le=1e9)
    """Depth in metres is the number in the file divided by this: 1000 for millimetres, 256 for KITTI's files, 1 for
    metres."""
    shortest: Metres = 1e-3
    """Metres; nearer pixels are not evaluated."""
    longest: Metres = 10.0
    """Metres; pixels farther away are not evaluated, and the model predicts none."""
    window: Window = "whole"
    """The part of an image that is evaluated. `garg`, `eigen`: KITTI's. `nyu`: NYUv2's, where the Kinect's two cameras
    see the same."""
    kb_crop: bool = False
    """Take KITTI's usual part of image and depth map, 352 x 1216 at the bottom in the middle, before anything else."""

    @model_validator(mode="after")
    def _in_order(self) -> DepthPairs:
        if self.shortest >= self.longest:
            raise ValueError(f"shortest {self.shortest:g} m must be below longest {self.longest:g} m")
        return self

    @property
    def format(self) -> DepthFormat:
        return DepthFormat(self.steps_per_metre, self.shortest, self.longest, self.window, self.kb_crop)

    def layout(self, root: Path) -> DepthLayout:
        return DepthLayout(self.name, self.base(root), self._lists, self.format)

    @property
    def _lists(self) -> dict[Part, ListFile]:
        return {"train": ListFile(self.train), "val": ListFile(self.val), "test": ListFile(self.test)}

    def info(self, root: Path) -> DepthDataset:
        """The data set for the `data` commands; its counts are those of the lists that are there."""
        from tasks.datasets.depth_pairs.pairs import read_pairs

        layout, counts = self.layout(root), {}
        for part in layout.parts:
            try:
                counts[part] = len(read_pairs(self.name, layout.base, layout.lists[part]))
            except DataError:
                continue  # which `check` says
        return DepthDataset(
            name=self.name, title=self.name, source="folder", split="by the lists of pairs", licence="",
            how_to_get=f"{self.path} must be a folder with lists of pairs: `image depth` in each line",
            folder=os.path.expanduser(self.path), lists=self._lists, counts=counts, format=self.format,
            windows=None,
        )  # fmt: skip


class PairCounts(BaseModel):
    """Pairs of each part, as planning found them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    train: int = Field(ge=0, le=MAX_PAIRS)
    val: int = Field(default=0, ge=0, le=MAX_PAIRS)
    test: int = Field(default=0, ge=0, le=MAX_PAIRS)


DepthField: TypeAlias = Annotated[
    Annotated[Label, Tag("name")] | Annotated[DepthPairs, Tag("depth_pairs")],
    by_kind("depth_pairs"),
]
"""A data set by name, or a description."""
