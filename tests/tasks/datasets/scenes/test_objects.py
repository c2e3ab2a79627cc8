"""Generated objects: exact boxes and modal masks, occlusion, crowd regions, COCO's layout, the same on every call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.datasets.instances.catalog import SCENE_OBJECTS, SCENE_OBJECTS_SMALL
from tasks.datasets.instances.opened import OpenedInstances
from tasks.datasets.scenes import objects
from tasks.datasets.scenes.objects import CATEGORIES, LEAST_PIXELS, SIDE
from tasks.datasets.scenes.shapes import CLASSES as SHAPES

MADE = [objects.scene("train", index) for index in range(40)]


def test_a_scene_depends_on_its_part_and_index_alone() -> None:
    again = objects.scene("train", 3)
    assert np.array_equal(again.pixels, MADE[3].pixels)
    assert [each.box for each in again.objects] == [each.box for each in MADE[3].objects]
    assert not np.array_equal(again.pixels, objects.scene("val", 3).pixels)


def test_scenes_are_what_version_1_made() -> None:
    """Raise VERSIONS in made.py when this changes. Coarse, since JPEG and rounding differ a little between machines."""
    assert np.abs(np.array([made.pixels.mean() for made in MADE[:4]]) - np.array([88.4, 156.5, 150.8, 93.9])).max() < 1
    boxes = [list(each.box) for made in MADE[:2] for each in made.objects]
    assert (
        np.abs(
            np.array(boxes) - np.array([[36, 25, 34, 36], [49, 89, 17, 7], [57, 54, 33, 32], [33, 47, 25, 23]])
        ).max()
        <= 1
    )


def test_several_objects_hide_one_another_and_masks_do_not_overlap() -> None:
    found = [each for made in MADE for each in made.objects]
    assert {each.name for each in found} == set(CATEGORIES) <= set(SHAPES)
    assert {len(made.objects) for made in MADE} >= {0, 1, 2, 3}
    for made in MADE:
        if made.objects:
            assert np.sum([each.mask for each in made.objects], axis=0).max() == 1
    assert min(int(each.mask.sum()) for each in found) >= LEAST_PIXELS
    touching = [  # a box of one with pixels of another in it
        any(other.mask[top : top + height, left : left + width].any() for other in made.objects if other is not each)
        for made in MADE
        for each in made.objects
        for left, top, width, height in [each.box]
    ]
    assert 0.2 < np.mean(touching) < 0.8


def test_crowd_regions_are_heaps_in_few_images() -> None:
    heaps = [each for made in MADE for each in made.objects if each.crowd]
    assert 1 <= len(heaps) <= 10
    sizes = [int(each.mask.sum()) for each in heaps]
    assert 60 < np.mean(sizes) < 900


def test_the_mask_is_where_the_object_is() -> None:
    """Painted over black, pixels with colour are those of the masks, but for soft edges."""
    random = np.random.default_rng(0)
    textures = objects.Textures("train", "scene-objects")
    for name in CATEGORIES:
        piece = objects.cut_out(random, textures, name, 0.0, (50.0, 40.0), (12.0, 18.0))
        assert piece is not None
        canvas, kept = objects.drawn(np.zeros((SIDE, SIDE, 3), np.uint8), [[piece]])
        assert kept == [0]
        mask = canvas.owner == 1
        full = (canvas.pixels > 0).any(-1)
        assert full[mask].mean() > 0.98
        assert (full & ~mask).sum() < 0.35 * mask.sum()
        assert mask[40, 50] == (name != "ring")
    assert objects.cut_out(random, textures, "ring", 0.0, (-60.0, 40.0), (12.0, 18.0)) is None


def test_an_object_under_another_one_is_not_painted() -> None:
    random = np.random.default_rng(1)
    textures = objects.Textures("train", "scene-objects")
    below, above = (
        objects.cut_out(random, textures, "square", 100.0, (48.0, 48.0), (size, size + 0.1)) for size in (9.0, 19.0)
    )
    assert below is not None
    assert above is not None
    background = np.full((SIDE, SIDE, 3), 100, np.uint8)
    canvas, kept = objects.drawn(background, [[below], [above]])
    alone, _ = objects.drawn(background, [[above]])
    assert kept == [1]
    np.testing.assert_array_equal(canvas.pixels, alone.pixels)
    assert objects.drawn(background, [[above], [below]])[1] == [0, 1]


def test_the_small_set_is_the_beginning_of_the_large_one() -> None:
    for card, name in ((SCENE_OBJECTS, objects.NAME), (SCENE_OBJECTS_SMALL, objects.SMALL)):
        assert dict(card.counts) == objects.SETS[name]
    assert list(objects.SETS[objects.SMALL]) == list(objects.SETS[objects.NAME])
    first = [*MADE, *(objects.scene("train", index) for index in range(40, 48))]
    shown = [made for made in first if not all(each.crowd for each in made.objects)]
    assert len(shown) == SCENE_OBJECTS_SMALL.learnt


def test_the_layout_is_cocos_and_masks_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(objects.SETS, objects.SMALL, {"train": 6, "val": 1, "test": 1})
    for part in ("train", "val", "test"):
        (tmp_path / f"{part}2017").mkdir()
    (tmp_path / "annotations").mkdir()
    for share in range(3):
        objects.write_share(tmp_path, objects.SETS[objects.SMALL], share, 3)
    objects.gather(tmp_path, objects.SMALL, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations", "test2017", "train2017", "val2017"]
    found = objects_of(tmp_path)
    assert (found.classes, found.category_ids) == (("ring", "square", "star"), (3, 18, 44))
    for index, made in enumerate(MADE[:6]):
        read = found.load(index)
        np.testing.assert_array_equal(found.image(index), made.pixels)
        assert [found.classes[label] for label in read.labels] == [each.name for each in made.objects]
        for row, each in enumerate(made.objects):
            np.testing.assert_array_equal(read.mask(row), each.mask)
            left, top, width, height = each.box
            assert read.boxes[row].tolist() == [left, top, left + width, top + height]
            assert (read.area[row], read.crowd[row], read.learnt[row]) == (each.mask.sum(), each.crowd, not each.crowd)


def objects_of(folder: Path) -> OpenedInstances:
    """The generated train part in this folder."""
    from tasks.datasets.instances.annotations import read_annotations

    path = SCENE_OBJECTS_SMALL.place(folder, "train")
    found = read_annotations(path, "scene-objects-small")
    return OpenedInstances("scene-objects-small", folder, "train", found, path, "train2017")
