"""The depth data sets that are known by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.datasets.depth_pairs.layout import DepthFormat, DepthLayout, ListFile, Part
from tasks.datasets.info import NO_FOLDER, DatasetInfo, Finding, Watch, unwatched
from tasks.datasets.manifest import FOLDER, Manifest
from tasks.datasets.photographs import SHOWS
from tasks.datasets.scenes.made import made, recipe
from tasks.errors import DataError


@dataclass(frozen=True, kw_only=True)
class DepthDataset(DatasetInfo):
    """Images with a depth map each, in lists."""

    folder: str
    """Below the data root."""
    lists: Mapping[Part, ListFile]
    counts: Mapping[Part, int]
    """Pairs that the published lists have (0: there is no such list); for cost before data are there. Those of NYUv2
    and KITTI are the lines of GLPDepth's lists (vinvino02/GLPDepth, commit a048528)."""
    format: DepthFormat
    windows: int | None
    """Square windows along the width of an image that is evaluated (appendix E); None: as few as cover it."""
    apart: ListFile | None = None
    """A list of the set that is evaluated beside test, and whose figures stand apart."""
    apart_count: int = 0
    caveat: str = ""
    """Why nothing that is measured on it compares with published figures."""

    def layout(self, root: Path) -> DepthLayout:
        """Raises DataError when a generated set cannot be written."""
        return DepthLayout(self.name, self.base(root), self.lists, self.format)

    def base(self, root: Path) -> Path:
        return root / self.folder

    def missing(self, root: Path) -> str | None:
        path = self.base(root) / self.lists["train"].file
        if path.is_file():
            return None
        place = f"{root}{'' if root.is_dir() else NO_FOLDER}"
        return f"{self.name}: not found under {place}: {path}. {self.how_to_get}"

    def facts(self) -> Mapping[str, Any]:
        counts = {part: self.counts.get(part, 0) for part in ("train", "val", "test")}  # type: ignore[call-overload]
        return {**counts, "metric": "rmse", "split": self.split}

    def manifest(self, root: Path, choices: Mapping[str, Any]) -> tuple[Manifest, str]:
        from tasks.datasets.depth_pairs.pairs import file_name, manifest

        return manifest(self.layout(root)), file_name(self.name)

    def check(
        self, root: Path, choices: Mapping[str, Any], folders: Sequence[Path], images: bool, watch: Watch = unwatched
    ) -> Finding:
        from tasks.datasets.depth_pairs.checks import check

        problem = self.missing(root)
        if problem:
            return Finding([problem.removeprefix(f"{self.name}: ")])
        return check(self.layout(root), self.counts, [root / FOLDER, *folders], images, watch)

    def files(self, root: Path) -> tuple[list[Path], list[int] | None]:
        """Raises DataError: `data pack` has nothing to do here."""
        raise DataError(f"{self.name}: pairs of images and depth maps are read from single files, and are not packed")


@dataclass(frozen=True, kw_only=True)
class MadeRooms(DepthDataset):
    """The generated rooms: written below the data root when they are first opened."""

    recipe: Callable[[str], str]
    """Name -> SHA-256 (hex) of what the set is generated from."""
    make: Callable[[str, Path], Path]
    """(name, data root) -> the folder of the set, which it writes first if it is missing. Raises DataError."""

    @property
    def digest(self) -> str:
        """Stands for the pairs before they are written."""
        return self.recipe(self.name)

    def base(self, root: Path) -> Path:
        return self.make(self.name, root)

    def missing(self, root: Path) -> str | None:
        return None


NYUV2 = DepthDataset(
    name="nyuv2",
    title="NYUv2",
    source="folder",
    split="official: 464 scenes, of which 249 train and 215 test, by your lists; val only if you write a list of it",
    how_to_get=(
        "Get NYU Depth V2 as GLPDepth and BTS prepare it: the training pairs (24,231) in nyu_depth_v2/sync, the "
        "official test pairs (654) in nyu_depth_v2/official_splits/test, GLPDepth's train_list.txt and test_list.txt "
        "of nyudepthv2 in nyu_depth_v2; a val_list.txt of your own there names pairs in sync"
    ),
    licence="NYU Depth V2: research; GLPDepth's lists: non-commercial",
    folder="nyu_depth_v2",
    lists={
        "train": ListFile("train_list.txt", "sync"),
        "val": ListFile("val_list.txt", "sync"),
        "test": ListFile("test_list.txt", "official_splits/test"),
    },
    counts={"train": 24_231, "val": 0, "test": 654},
    format=DepthFormat(1000, 1e-3, 10, "nyu"),
    windows=2,
)
KITTI_EIGEN = DepthDataset(
    name="kitti-eigen",
    title="KITTI",
    source="folder",
    split="Eigen's, by your lists: of his 697 test images, which the paper counts, the 652 that have the improved "
    "ground truth; val only if you write a list of it",
    how_to_get=(
        "Get the raw images of KITTI and data_depth_annotated, both into kitti, and GLPDepth's lists "
        "eigen_benchmark/train_list.txt and test_list.txt as kitti/train_list.txt and test_list.txt; their names lie "
        "below kitti"
    ),
    licence="KITTI: CC BY-NC-SA 3.0; GLPDepth's lists: non-commercial",
    folder="kitti",
    lists={
        "train": ListFile("train_list.txt"),
        "val": ListFile("val_list.txt"),
        "test": ListFile("test_list.txt"),
    },
    counts={"train": 23_158, "val": 0, "test": 652},
    format=DepthFormat(256, 1e-3, 80, "garg", kb_crop=True),
    windows=16,
)
SCENE_ROOMS = MadeRooms(
    name="scene-rooms",
    title="Generated rooms",
    source="made",
    split="by photograph: surfaces of train, val and test show different ones",
    how_to_get="Generated on first use, below the data root, from photographs inside scikit-image and scikit-learn.",
    licence="the photographs': scikit-image's data folder; china and flower CC BY 2.0",
    folder="",
    lists={"train": ListFile("train.txt"), "val": ListFile("val.txt"), "test": ListFile("test.txt")},
    counts={"train": 2000, "val": 200, "test": 200},  # stated here too: listed without numpy
    format=DepthFormat(1000, 1e-3, 10),
    windows=None,
    apart=ListFile("stereo_motorcycle.txt"),
    apart_count=1,
    caveat="the rooms are generated: compare with nothing published",
    shows=SHOWS,
    recipe=recipe,
    make=made,
)
DEPTH_SETS: tuple[DepthDataset, ...] = (NYUV2, KITTI_EIGEN, SCENE_ROOMS)
