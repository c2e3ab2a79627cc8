"""Cuts the photographs inside packages into tiles without labels, for small pre-training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.datasets.info import DatasetInfo, Finding, Watch, unwatched
from tasks.datasets.manifest import Manifest
from tasks.datasets.photographs import LICENCE, SHOWS, Photograph, of_part, open_photograph
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

TilePart = Literal["train", "val"]
PHOTOS: Mapping[TilePart, tuple[Photograph, ...]] = {"train": of_part("pretrain", "train"), "val": of_part("val")}
"""The photographs of each part, all of which are larger than a tile. Whole photos are held out, not tiles: val shows
things that training never saw. Test photographs are not opened."""


def sizes(photo: Photograph) -> list[tuple[int, int]]:
    """(width, height) at both scales."""
    shrink = min(1.0, LONGEST / max(photo.width, photo.height))
    return [(round(photo.width * shrink / d), round(photo.height * shrink / d)) for d in (1, 2)]


def corners(photo: Photograph) -> list[tuple[int, int, int]]:
    """(scale, left, top) of every tile; a scale at which the photo is smaller than a tile has none."""
    return [
        (scale, left, top)
        for scale, (width, height) in enumerate(sizes(photo))
        for top in range(0, height - TILE + 1, STRIDE)
        for left in range(0, width - TILE + 1, STRIDE)
    ]


@dataclass(frozen=True, kw_only=True)
class PhotoTiles(DatasetInfo):
    """The tiles as a data set: no labels, a fixed split, nothing to download."""

    def samples(self, part: TilePart) -> int:
        """How many tiles all photos of this part give."""
        return sum(len(corners(photo)) for photo in PHOTOS[part])

    @property
    def caveats(self) -> tuple[str, ...]:
        """See Task.caveats."""
        return ()

    def opens(self, reads_test: bool) -> Mapping[str, str]:
        """See TaskData.opens."""
        return {} if reads_test else self.shown

    @property
    def manifest_names(self) -> tuple[str, ...]:
        """See Task.manifest_names."""
        return (_CUT,)

    def planned(self, root: Path, folders: Sequence[Path]) -> Mapping[str, Mapping[str, Any]]:
        """See Task.planned_fields: a trial's key says which photographs are train and val."""
        return {"manifests": {_CUT: _manifest().digest}}

    def check_planned(self, manifests: Mapping[str, str]) -> None:
        """Raises DataError when a trial was planned for other tiles."""
        digest = _manifest().digest
        if manifests.get(_CUT, digest) != digest:
            raise DataError(
                f"{self.name}: the split {_CUT} has SHA-256 {digest}, and this trial was planned for "
                f"{manifests[_CUT]}: other photographs than where the job was submitted; install the same version"
            )

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
        pixels()
        return _manifest(), f"{_CUT.replace('/', '-')}.jsonl"

    def check(
        self, root: Path, choices: Mapping[str, Any], folders: Sequence[Path], images: bool, watch: Watch = unwatched
    ) -> Finding:
        """Opens all photographs: their number and sizes. (JPEG is decoded a little differently from one release of its
        library to the next, so no digest of pixels is compared.)"""
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
    split=f"none official: {len(PHOTOS['train'])} photographs are train, {len(PHOTOS['val'])} others val",
    how_to_get="Ships with scikit-image (skimage.data) and scikit-learn (sklearn.datasets).",
    licence=LICENCE,
    shows=SHOWS,
)
_CUT = f"{PHOTO_TILES.name}/parts"
"""Name of the split."""


@cache
def _manifest() -> Manifest:
    """Where each tile lies, and its part: the same everywhere."""
    tiles = [
        (part, {"photograph": photo.file, "scale": scale, "left": left, "top": top})
        for part in PHOTOS
        for photo in PHOTOS[part]
        for scale, left, top in corners(photo)
    ]
    places = [place for _, place in tiles]
    return Manifest(_CUT, range(len(tiles)), places, [part for part, _ in tiles], rule=PHOTO_TILES.split)


@cache
def pixels() -> NDArray[np.uint8]:
    """All tiles, train first: (n, 64, 64, 3); grey photos in three equal channels. Kept in memory (9 MB).

    Raises DataError when a file is not there or of another size than stated.
    """
    import numpy as np
    from PIL import Image

    tiles = []
    for photo in (photo for photos in PHOTOS.values() for photo in photos):
        image = open_photograph(photo, PHOTO_TILES.name)
        scales = [np.asarray(image.resize(size, Image.Resampling.BOX)) for size in sizes(photo)]
        tiles += [scales[scale][top : top + TILE, left : left + TILE] for scale, left, top in corners(photo)]
    return np.stack(tiles)
