"""Cuts the photographs inside packages into tiles without labels, for small pre-training runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.datasets.info import DatasetInfo, Finding, Watch, unwatched
from tasks.datasets.manifest import Manifest
from tasks.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.datasets.labelled.loaders import LabelledImages

TILE = 64
"""Side of the squares that photos are cut into, in pixels."""
STRIDE = 32
"""Between neighbours, so that each pixel lies in about four of them."""
LONGEST = 256
"""A photo is first made smaller until its longer side is no longer than this; then once more to half of that."""


@dataclass(frozen=True)
class Photo:
    """A photograph that ships inside a package we depend on."""

    package: Literal["skimage/data", "sklearn/datasets/images"]
    file: str
    width: int
    height: int
    part: Literal["train", "val"] = "train"

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) at both scales."""
        shrink = min(1.0, LONGEST / max(self.width, self.height))
        return [(round(self.width * shrink / d), round(self.height * shrink / d)) for d in (1, 2)]

    @property
    def corners(self) -> list[tuple[int, int, int]]:
        """(scale, left, top) of every tile; a scale at which the photo is smaller than a tile has none."""
        return [
            (scale, left, top)
            for scale, (width, height) in enumerate(self.sizes)
            for top in range(0, height - TILE + 1, STRIDE)
            for left in range(0, width - TILE + 1, STRIDE)
        ]


PHOTOS = (
    Photo("skimage/data", "astronaut.png", 512, 512),
    Photo("skimage/data", "brick.png", 512, 512),
    Photo("skimage/data", "camera.png", 512, 512, "val"),
    Photo("skimage/data", "chelsea.png", 451, 300, "val"),
    Photo("skimage/data", "coffee.png", 600, 400, "val"),
    Photo("skimage/data", "coins.png", 384, 303),
    Photo("skimage/data", "grass.png", 512, 512),
    Photo("skimage/data", "gravel.png", 512, 512),
    Photo("skimage/data", "hubble_deep_field.jpg", 1000, 872),
    Photo("skimage/data", "ihc.png", 512, 512),
    Photo("skimage/data", "moon.png", 512, 512),
    Photo("skimage/data", "motorcycle_left.png", 741, 500),
    Photo("skimage/data", "page.png", 384, 191),
    Photo("skimage/data", "retina.jpg", 1411, 1411),
    Photo("skimage/data", "rocket.jpg", 640, 427),
    Photo("skimage/data", "text.png", 448, 172),
    Photo("sklearn/datasets/images", "china.jpg", 640, 427),
    Photo("sklearn/datasets/images", "flower.jpg", 640, 427, "val"),
)
"""The photographs in the wheels of scikit-image and scikit-learn that are larger than a tile; drawings, blurred and
empty frames and the second picture of the stereo pair are left out. Whole photos are held out, not tiles: val shows
things that training never saw. Licences: scikit-image's data folder; china and flower CC BY 2.0."""
SHOWS = ("textures", "photos")
"""Sets of `classify` made from the same photographs: weights trained here have seen their test images."""


@dataclass(frozen=True, kw_only=True)
class PhotoTiles(DatasetInfo):
    """The tiles as a data set: no labels, a fixed split, nothing to download."""

    def samples(self, part: Literal["train", "val"]) -> int:
        """How many tiles all photos of this part give."""
        return sum(len(photo.corners) for photo in PHOTOS if photo.part == part)

    @property
    def opens(self) -> Mapping[str, str]:
        """See Task.opens."""
        return dict.fromkeys(SHOWS, f"dataset: {self.name}")

    @property
    def manifest_names(self) -> tuple[str, ...]:
        return ()

    def planned(self, root: Path, folders: Sequence[Path]) -> Mapping[str, Mapping[str, Any]]:
        """See Task.planned_fields: none, so that keys stay those of trials before tiles had a manifest."""
        return {}

    def read(self, root: Path, train: Literal["train"], evaluate: Literal["val"]) -> LabelledImages:
        """All tiles, with one label for all. Raises DataError."""
        import numpy as np

        from tasks.datasets.labelled.loaders import LabelledImages
        from tasks.datasets.labelled.parts import LabelledPart

        images, count = pixels(), self.samples(train)
        first, second = (LabelledPart(part, np.zeros(len(part), np.int64)) for part in (images[:count], images[count:]))
        return LabelledImages(self.name, root, first, second, small=True)

    def facts(self) -> Mapping[str, Any]:
        return {"train": self.samples("train"), "val": self.samples("val"), "test": 0, "split": self.split}

    def manifest(self, root: Path, choices: Mapping[str, Any]) -> tuple[Manifest, str]:
        content, train = hashlib.sha256(pixels().tobytes()).hexdigest(), self.samples("train")
        images = range(len(pixels()))
        parts = ["train" if i < train else "val" for i in images]
        made = Manifest(f"{self.name}/official", images, [None] * len(images), parts, pixels=content, rule=self.split)
        return made, f"{self.name}-official.jsonl"

    def check(
        self, root: Path, choices: Mapping[str, Any], folders: Sequence[Path], images: bool, watch: Watch = unwatched
    ) -> Finding:
        """Opens all photographs: their number and sizes. (JPEG is decoded a little differently from one release of its
        library to the next, so there is no digest to compare with.)"""
        try:
            made, _ = self.manifest(root, choices)
        except DataError as error:
            return Finding([str(error).removeprefix(f"{self.name}: ")])
        total = self.samples("train") + self.samples("val")
        return Finding(counts=made.counts, digest=made.digest, split=made.cut, expected=total)


PHOTO_TILES = PhotoTiles(
    name="photo-tiles",
    title="Photo tiles",
    source="wheel",
    split="none official: 14 photographs are train, 4 others val",
    how_to_get="Ships with scikit-image (skimage.data) and scikit-learn (sklearn.datasets).",
    licence="scikit-image's data folder; china and flower CC BY 2.0",
)


@cache
def pixels() -> NDArray[np.uint8]:
    """All tiles, train first: (n, 64, 64, 3); grey photos in three equal channels. Kept in memory (9 MB).

    Raises DataError when a file is not there or of another size than stated.
    """
    import importlib.util

    import numpy as np
    from PIL import Image

    from tasks.datasets.images.decode import opened

    tiles = []
    for photo in sorted(PHOTOS, key=lambda photo: photo.part):
        package, _, below = photo.package.partition("/")
        spec = importlib.util.find_spec(package)
        path = Path(spec.origin).parent / below / photo.file if spec and spec.origin else Path(photo.file)
        if not path.is_file():
            raise DataError(f"{PHOTO_TILES.name}: no {path}; install the versions that pyproject.toml asks for")
        image = opened(path, PHOTO_TILES.name, str(path))
        if image.size != (photo.width, photo.height):
            stated = photo.width, photo.height
            raise DataError(f"{PHOTO_TILES.name}: {path} has {image.size} pixels, expected {stated}")
        scales = [np.asarray(image.resize(size, Image.Resampling.BOX)) for size in photo.sizes]
        tiles += [scales[scale][top : top + TILE, left : left + TILE] for scale, left, top in photo.corners]
    return np.stack(tiles)
