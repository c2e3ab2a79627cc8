"""Generated class maps: the surface or cut-out that each pixel shows, ADE20K's layout, the same on every call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.datasets.class_maps.catalog import SCENE_MAPS, SCENE_MAPS_SMALL
from tasks.datasets.class_maps.maps import read_map
from tasks.datasets.class_maps.names import read_names
from tasks.datasets.class_maps.opened import pairs
from tasks.datasets.scenes import maps
from tasks.datasets.scenes.maps import CLASSES, SIDE

MADE = [maps.mapped("train", index) for index in range(16)]


def test_a_map_depends_on_its_part_and_index_alone() -> None:
    again = maps.mapped("train", 3)
    assert np.array_equal(again.pixels, MADE[3].pixels)
    assert np.array_equal(again.classes, MADE[3].classes)
    assert not np.array_equal(again.pixels, maps.mapped("val", 3).pixels)


def test_maps_are_what_version_1_made() -> None:
    """Raise VERSIONS in made.py when this changes. Coarse, since JPEG and rounding differ a little between machines."""
    assert (
        np.abs(np.array([made.pixels.mean() for made in MADE[:4]]) - np.array([158.3, 169.0, 153.6, 150.9])).max() < 1
    )
    shares = np.array([np.bincount(made.classes.ravel(), minlength=8)[1:5] for made in MADE[:2]]) / SIDE**2
    assert np.abs(shares - np.array([[0.263, 0.332, 0.216, 0.071], [0.45, 0.455, 0.058, 0.009]])).max() < 0.01


def test_surfaces_lie_where_they_do_in_rooms() -> None:
    """Floor below ceiling, in every image that shows both; walls and boxes somewhere in most."""
    numbers = {name: 1 + CLASSES.index(name) for name in ("wall", "floor", "ceiling", "box")}
    rows = np.arange(SIDE)[:, None] * np.ones(SIDE)
    both = 0
    for made in MADE:
        floor, ceiling = (made.classes == numbers[name] for name in ("floor", "ceiling"))
        if floor.any() and ceiling.any():
            both += 1
            assert rows[floor].min() > rows[ceiling].max()
    assert both > 8
    for name in ("wall", "box"):
        assert np.mean([(made.classes == numbers[name]).any() for made in MADE]) > 0.8


def test_every_class_is_shown_and_little_is_other() -> None:
    counts = np.bincount(np.concatenate([made.classes.ravel() for made in MADE]), minlength=len(CLASSES) + 1)
    shares = counts / counts.sum()
    assert len(shares) == len(CLASSES) + 1
    assert (shares[1:] > 0.005).all()
    assert 0 < shares[0] < 0.05
    assert shares.max() < 0.6


def test_edges_of_the_map_are_edges_of_the_image() -> None:
    """Colours change more across a border of cut-outs than within a class."""
    across, within = [], []
    for made in MADE:
        step = np.abs(np.diff(made.pixels.astype(int), axis=1)).sum(-1)
        cut_out = made.classes > 4
        border = cut_out[:, 1:] != cut_out[:, :-1]
        across.append(step[border])
        within.append(step[~border])
    assert np.concatenate(across).mean() > 3 * np.concatenate(within).mean()


def test_the_small_set_is_the_beginning_of_the_large_one() -> None:
    for card, name in ((SCENE_MAPS, maps.NAME), (SCENE_MAPS_SMALL, maps.SMALL)):
        assert dict(card.counts) == maps.SETS[name]
        assert card.names == CLASSES
        assert dict(card.part_names) == maps.FOLDERS


def test_the_layout_is_ade20ks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(maps.SETS, maps.SMALL, {"train": 3, "val": 1, "test": 1})
    maps.prepare(tmp_path, maps.SMALL)
    for share in range(2):
        maps.write_share(tmp_path, maps.SETS[maps.SMALL], share, 2)
    images, classes = pairs("scene-maps-small", tmp_path, "images/training", "annotations/training")
    assert images == [f"images/training/ADE_train_{number:08d}.png" for number in (1, 2, 3)]
    read = read_map(tmp_path / classes[1], "scene-maps-small", len(CLASSES), zero_ignored=True)
    np.testing.assert_array_equal(read, np.where(MADE[1].classes == 0, 255, MADE[1].classes.astype(int) - 1))
    assert read_names(tmp_path / "objectInfo150.txt", "scene-maps-small", 254)[0] == CLASSES
