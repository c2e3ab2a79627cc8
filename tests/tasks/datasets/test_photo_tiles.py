"""Tiles of the photographs inside packages."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.datasets import photo_tiles
from tasks.datasets.photo_tiles import PHOTOS, TILE, Photo
from tasks.errors import DataError


def test_tiles_lie_inside_their_photograph_and_cover_nearly_all_of_it() -> None:
    for photo in PHOTOS:
        for scale, (width, height) in enumerate(photo.sizes):
            seen = np.zeros((height, width), dtype=bool)
            for _, left, top in (corner for corner in photo.corners if corner[0] == scale):
                assert 0 <= left <= width - TILE
                assert 0 <= top <= height - TILE
                seen[top : top + TILE, left : left + TILE] = True
            if min(width, height) >= TILE:
                assert seen.mean() > 0.6


def test_a_tile_is_a_part_of_its_photograph() -> None:
    """The first tile of china.jpg, which is shrunk by 2.5, against means over its pixels."""
    from sklearn.datasets import load_sample_image

    train = [photo for photo in sorted(PHOTOS, key=lambda photo: photo.part) if photo.part == "train"]
    before = sum(len(photo.corners) for photo in train[: [photo.file for photo in train].index("china.jpg")])
    tile = photo_tiles.pixels()[before].astype(float)
    whole = load_sample_image("china.jpg")[:160, :160].astype(float)
    coarse = whole.reshape(4, 40, 4, 40, 3).mean((1, 3))
    assert np.abs(tile.reshape(4, 16, 4, 16, 3).mean((1, 3)) - coarse).max() < 3


def test_another_release_of_a_photograph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_tiles, "PHOTOS", (Photo("skimage/data", "astronaut.png", 500, 512),))
    with pytest.raises(DataError, match=r"astronaut\.png has \(512, 512\) pixels, expected \(500, 512\)"):
        photo_tiles.pixels.__wrapped__()
    monkeypatch.setattr(photo_tiles, "PHOTOS", (Photo("skimage/data", "cosmonaut.png", 512, 512),))
    with pytest.raises(DataError, match=r"no .*cosmonaut\.png"):
        photo_tiles.pixels.__wrapped__()
