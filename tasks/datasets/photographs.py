"""The photographs inside packages, and the one part of each: what trains on it, what is chosen by it, what tests on it.

Photo tiles and all generated scenes take their pixels from here, for backgrounds and cut-outs alike. A photograph is in
one part for all tasks, so no weights of theirs have seen a photograph that another of them is tested on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tasks.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

PhotoPart = Literal["pretrain", "train", "val", "test"]


@dataclass(frozen=True)
class Photograph:
    """A photograph that ships inside a package we depend on."""

    package: Literal["skimage/data", "sklearn/datasets/images"]
    file: str
    width: int
    height: int
    part: PhotoPart


PHOTOGRAPHS = (
    Photograph("skimage/data", "astronaut.png", 512, 512, "pretrain"),
    Photograph("skimage/data", "brick.png", 512, 512, "train"),
    Photograph("skimage/data", "camera.png", 512, 512, "val"),
    Photograph("skimage/data", "chelsea.png", 451, 300, "test"),
    Photograph("skimage/data", "coffee.png", 600, 400, "val"),
    Photograph("skimage/data", "coins.png", 384, 303, "pretrain"),
    Photograph("skimage/data", "grass.png", 512, 512, "pretrain"),
    Photograph("skimage/data", "gravel.png", 512, 512, "train"),
    Photograph("skimage/data", "hubble_deep_field.jpg", 1000, 872, "pretrain"),
    Photograph("skimage/data", "ihc.png", 512, 512, "pretrain"),
    Photograph("skimage/data", "moon.png", 512, 512, "train"),
    Photograph("skimage/data", "motorcycle_left.png", 741, 500, "test"),
    Photograph("skimage/data", "motorcycle_right.png", 741, 500, "test"),
    Photograph("skimage/data", "page.png", 384, 191, "train"),
    Photograph("skimage/data", "retina.jpg", 1411, 1411, "pretrain"),
    Photograph("skimage/data", "rocket.jpg", 640, 427, "train"),
    Photograph("skimage/data", "text.png", 448, 172, "train"),
    Photograph("sklearn/datasets/images", "china.jpg", 640, 427, "pretrain"),
    Photograph("sklearn/datasets/images", "flower.jpg", 640, 427, "train"),
)
"""All usable photographs in the wheels of scikit-image and scikit-learn; drawings, and blurred and nearly empty frames
(cell, clock_motion, microaneurysms) are left out. The stereo pair shows one scene, of which the true depth is known: it
is test, as a real test image of depth estimation. Licences: scikit-image's data folder; china and flower CC BY 2.0."""
LICENCE = "scikit-image's data folder; china and flower CC BY 2.0"
SHOWS = ("textures", "photos")
"""Sets of `classify` cut from the same photographs, where a photograph is in train, val and test at once: weights
trained on any other set made from PHOTOGRAPHS have seen their test images."""
SCENES = (
    "scene-people", "scene-rooms", "scene-tracks", "scene-tracks-small", "scene-objects", "scene-objects-small",
    "scene-maps", "scene-maps-small",
)  # fmt: skip
"""Generated sets with test images. `photos` shows them in turn: all of its parts have patches of test photographs."""


def of_part(*parts: PhotoPart) -> tuple[Photograph, ...]:
    """The photographs of these parts, in the order of the table."""
    return tuple(photo for photo in PHOTOGRAPHS if photo.part in parts)


def open_photograph(photo: Photograph, name: str) -> Image.Image:
    """The photograph in RGB. `name`: of the data set made from it. Raises DataError when the file is not there or of
    another size than stated."""
    from tasks.datasets.images.decode import opened

    path = packaged(photo.package, photo.file, name)
    image = opened(path, name, str(path))
    if image.size != (photo.width, photo.height):
        raise DataError(f"{name}: {path} has {image.size} pixels, expected {(photo.width, photo.height)}")
    return image


def packaged(package: str, file: str, name: str) -> Path:
    """The path of a file inside a package. `package`: its name, and the folder in it. Raises DataError when it is not
    there."""
    import importlib.util

    module, _, below = package.partition("/")
    spec = importlib.util.find_spec(module)
    path = Path(spec.origin).parent / below / file if spec and spec.origin else Path(file)
    if not path.is_file():
        raise DataError(f"{name}: no {path}; install the versions that pyproject.toml asks for")
    return path
