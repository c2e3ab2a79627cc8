"""Opens a part of a set of class maps: images and maps from files."""

from __future__ import annotations

from pathlib import Path

from tasks.datasets.class_maps.maps import read_map
from tasks.datasets.class_maps.types import ClassMapSet, Part, Pixels
from tasks.datasets.files import SUFFIXES, first_few, ignored
from tasks.datasets.images.decode import Unreadable
from tasks.datasets.images.source import Files, StringTable
from tasks.errors import DataError

MAP_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
"""In lower case; of formats that keep numbers."""


class OpenedMaps(ClassMapSet):
    """A part as its folders have it."""

    def __init__(
        self,
        name: str,
        root: Path,
        part: Part,
        pairs: tuple[list[str], list[str]],
        classes: tuple[str, ...],
        palette: Pixels,
        zero_ignored: bool,
    ) -> None:
        """`root`: the folder of the data set; `pairs`: images and maps below it."""
        self.name, self.root, self.part, self.classes, self.palette = name, root, part, classes, palette
        images, maps = pairs
        self.images = Files(name, root, [root / image for image in images])
        self._names, self._maps, self._zero_ignored = StringTable(images), StringTable(maps), zero_ignored

    def __len__(self) -> int:
        return len(self._names)

    def image_name(self, index: int) -> str:
        return self._names[index]

    def load(self, index: int) -> tuple[Pixels, Pixels]:
        path = self.root / self._maps[index]
        classes = read_map(path, self.name, len(self.classes), self._zero_ignored)
        image = self.images.pixels(index)
        if image.shape[:2] != classes.shape:
            raise Unreadable(
                f"{self.name}: image {self._names[index]} has {image.shape[0]} x {image.shape[1]} pixels and its map "
                f"{self._maps[index]} {classes.shape[0]} x {classes.shape[1]} (height x width): these do not belong "
                "together; correct the files"
            )
        return image, classes


def pairs(name: str, base: Path, images: str, maps: str) -> tuple[list[str], list[str]]:
    """The files of both folders, below `base`, an image and its map at the same place. Raises DataError."""
    found = _by_stem(name, base / images, SUFFIXES), _by_stem(name, base / maps, MAP_SUFFIXES)
    if not found[0]:
        raise DataError(f"{name}: no images in {base / images}; put them there, and their maps into {base / maps}")
    for files, others, what, other in ((*found, "images", "class map"), (*found[::-1], "class maps", "image")):
        alone = sorted(files[stem] for stem in files.keys() - others.keys())
        if alone:
            place = base / (maps if other == "class map" else images)
            raise DataError(
                f"{name}: {len(alone):,} of {len(files):,} {what} have no {other} of the same name in {place}: "
                f"{first_few(alone)}; add them, or remove these"
            )
    stems = sorted(found[0])
    return [f"{images}/{found[0][stem]}" for stem in stems], [f"{maps}/{found[1][stem]}" for stem in stems]


def _by_stem(name: str, folder: Path, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Name without ending -> name."""
    try:
        files = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise DataError(
            f"{name}: cannot read the folder {folder} ({error.strerror or error}); put the files there"
        ) from error
    found: dict[str, str] = {}
    for file in files:
        if not file.lower().endswith(suffixes) or ignored(file):
            continue
        stem = file.rpartition(".")[0]
        if stem in found:
            raise DataError(f"{name}: {folder} has {found[stem]} and {file}; keep one of them")
        found[stem] = file
    return found
