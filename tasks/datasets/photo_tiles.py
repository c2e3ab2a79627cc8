"""The only place that cuts the photographs inside packages into tiles without labels, for small pre-training runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "photo-tiles"
"""As `Pretrain.dataset` calls them all together."""
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


def tiles(part: Literal["train", "val"]) -> int:
    """How many tiles all photos of this part give."""
    return sum(len(photo.corners) for photo in PHOTOS if photo.part == part)


@cache
def pixels() -> NDArray[np.uint8]:
    """All tiles, train first: (n, 64, 64, 3); grey photos in three equal channels. Kept in memory (9 MB).

    Raises DataError when a file is not there or of another size than stated.
    """
    import importlib.util

    import numpy as np
    from PIL import Image

    from tasks.errors import DataError

    found = []
    for photo in sorted(PHOTOS, key=lambda photo: photo.part):
        package, _, below = photo.package.partition("/")
        spec = importlib.util.find_spec(package)
        path = Path(spec.origin).parent / below / photo.file if spec and spec.origin else Path(photo.file)
        if not path.is_file():
            raise DataError(f"{NAME}: no {path}; install the versions that pyproject.toml asks for")
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        if image.size != (photo.width, photo.height):
            raise DataError(f"{NAME}: {path} has {image.size} pixels, expected {(photo.width, photo.height)}")
        scales = [np.asarray(image.resize(size, Image.Resampling.BOX)) for size in photo.sizes]
        found += [scales[scale][top : top + TILE, left : left + TILE] for scale, left, top in photo.corners]
    return np.stack(found)
