"""Tiles of the photographs inside packages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tasks.datasets import photo_tiles
from tasks.datasets.photo_tiles import PHOTOS, TILE, corners, sizes
from tasks.datasets.photographs import of_part
from tasks.errors import DataError


def test_tiles_lie_inside_their_photograph_and_cover_nearly_all_of_it() -> None:
    for photo in (photo for photos in PHOTOS.values() for photo in photos):
        for scale, (width, height) in enumerate(sizes(photo)):
            seen = np.zeros((height, width), dtype=bool)
            for _, left, top in (corner for corner in corners(photo) if corner[0] == scale):
                assert 0 <= left <= width - TILE
                assert 0 <= top <= height - TILE
                seen[top : top + TILE, left : left + TILE] = True
            if min(width, height) >= TILE:
                assert seen.mean() > 0.6


def test_no_tile_shows_a_test_photograph() -> None:
    """motorcycle_left was trained on once: depth is tested on it."""
    opened = {photo.file for photos in PHOTOS.values() for photo in photos}
    assert not opened & {photo.file for photo in of_part("test")}
    assert {"motorcycle_left.png", "motorcycle_right.png"} <= {photo.file for photo in of_part("test")}


def test_a_tile_is_a_part_of_its_photograph() -> None:
    """The first tile of china.jpg, which is shrunk by 2.5, against means over its pixels."""
    from sklearn.datasets import load_sample_image

    train = PHOTOS["train"]
    before = sum(len(corners(photo)) for photo in train[: [photo.file for photo in train].index("china.jpg")])
    tile = photo_tiles.pixels()[before].astype(float)
    whole = load_sample_image("china.jpg")[:160, :160].astype(float)
    coarse = whole.reshape(4, 40, 4, 40, 3).mean((1, 3))
    assert np.abs(tile.reshape(4, 16, 4, 16, 3).mean((1, 3)) - coarse).max() < 3


def test_another_release_of_a_photograph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    astronaut = PHOTOS["train"][0]
    monkeypatch.setattr(photo_tiles, "PHOTOS", {"train": (replace(astronaut, width=500),)})
    with pytest.raises(DataError, match=r"astronaut\.png has \(512, 512\) pixels, expected \(500, 512\)"):
        photo_tiles.pixels.__wrapped__()
    monkeypatch.setattr(photo_tiles, "PHOTOS", {"train": (replace(astronaut, file="cosmonaut.png"),)})
    with pytest.raises(DataError, match=r"no .*cosmonaut\.png"):
        photo_tiles.pixels.__wrapped__()


def test_other_photographs_are_another_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so another key: a trial on tiles of other photographs is never taken for one on these."""
    digest = photo_tiles.PHOTO_TILES.planned(photo_tiles.Path(), ())["manifests"]["photo-tiles/parts"]
    assert digest == photo_tiles._manifest().digest
    monkeypatch.setattr(photo_tiles, "PHOTOS", {"train": PHOTOS["val"], "val": PHOTOS["train"]})
    assert photo_tiles._manifest.__wrapped__().digest != digest
