"""Where the pairs of a depth data set lie, how its numbers become metres, and which pixels are evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tasks.datasets.depth_pairs.window import Window

Part = Literal["train", "val", "test"]

KB_CROP = (352, 1216)
"""Height and width of KITTI's usual part of an image: at the bottom, in the middle."""


@dataclass(frozen=True)
class DepthFormat:
    """What the numbers of a depth file mean. Source of NYUv2's and KITTI's: the paper's depth code,
    SwinTransformer/MIM-Depth-Estimation."""

    steps_per_metre: float = 1000
    """Depth in metres is the number in the file divided by this: 1000 for millimetres, 256 for KITTI, 1 for metres."""
    shortest: float = 1e-3
    """Metres; nearer pixels are not evaluated."""
    longest: float = 10
    """Metres; pixels farther away are not evaluated, and the model predicts none."""
    window: Window = "whole"
    kb_crop: bool = False
    """Take KB_CROP of image and depth map before anything else."""


@dataclass(frozen=True)
class ListFile:
    """A list of pairs, below the folder of the data set."""

    file: str
    folder: str = "."
    """Its names lie below this folder of the data set."""


@dataclass(frozen=True)
class DepthLayout:
    """A data set of pairs."""

    name: str
    base: Path
    """Folder of the data set."""
    lists: Mapping[Part, ListFile]
    format: DepthFormat = field(default_factory=DepthFormat)

    def list_path(self, part: Part) -> Path:
        return self.base / self.lists[part].file

    @property
    def parts(self) -> tuple[Part, ...]:
        """Those whose list is there."""
        return tuple(part for part in self.lists if self.list_path(part).is_file())
