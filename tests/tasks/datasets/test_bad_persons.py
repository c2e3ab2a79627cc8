"""What is wrong with annotations of persons and with detected boxes is one line, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import person_trees as trees
import pytest
from data_commands import command
from person_trees import BOXES, TRAIN, VAL, data
from PIL import Image

from tasks.datasets import find_dataset
from tasks.datasets.persons.dataset import PoseDataset
from tasks.datasets.persons.task_data import PoseData
from tasks.errors import DataError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return trees.coco_tree(tmp_path / "people")


def of_all(content: Any, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes every annotation of a file."""
    for each in content["annotations"]:
        change(each)


def wide_as_tall(content: Any) -> None:
    """Everything twice as wide, and images that are said to be twice as tall."""
    for image in content["images"]:
        image["height"] *= 2
    for each in content["annotations"]:
        x, y, width, height = each["bbox"]
        rows = np.array(each["keypoints"]).reshape(-1, 3) * [2, 1, 1]
        each.update(bbox=[2 * x, y, 2 * width, height], keypoints=rows.ravel().tolist())


def corners(box: list[float]) -> list[float]:
    """Two corners of what is given as corner and size."""
    x, y, width, height = box
    return [x, y, x + width, y + height]


def moved(entry: dict[str, Any], factor: float, from_box: float) -> list[float]:
    """The keypoints, their places times a factor, less those of the box's corner."""
    rows = np.array(entry["keypoints"]).reshape(-1, 3)
    rows[:, :2] = rows[:, :2] * factor - from_box * np.array(entry["bbox"][:2])
    values: list[float] = rows.ravel().tolist()
    return values


MISTAKES: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "annotations of boxes": (
        TRAIN, lambda c: c["annotations"][3].pop("keypoints") and None,
        r"annotation 100003 has no keypoints: this needs the annotations of joints \(person_keypoints_\*\.json\)",
    ),
    "another skeleton": (
        TRAIN, lambda c: c["annotations"][0].update(keypoints=[1.0] * 42),
        r"42 numbers in keypoints; 17 joints have 51",
    ),
    "image id without entry": (
        TRAIN, lambda c: c["annotations"][0].update(image_id=999),
        r"annotation 100000 is of image 999, which the list of images lacks",
    ),
    "nan in a box": (
        TRAIN, lambda c: c["annotations"][0].update(bbox=[float("nan"), 0, 5, 5]),
        r"100000 has a number that is not finite",
    ),
    "box of two": (TRAIN, lambda c: c["annotations"][0].update(bbox=[1, 2]), r"2 numbers in bbox; a box has 4"),
    "no person": (
        TRAIN, lambda c: [each.update(category_id=2) for each in c["annotations"]] and None,
        r"no annotation is of a person",
    ),
    "all joints invisible": (
        TRAIN, lambda c: [each.update(keypoints=[0] * 51) for each in c["annotations"]] and None,
        r"none of the 39 persons has a labelled joint, so there is nothing to learn from",
    ),
    "no annotations": (TRAIN, lambda c: c.pop("annotations") and None, r"no list 'annotations', so these are no annot"),
    "a list": (TRAIN, lambda c: [c], r"no list 'images', so these are no annotations in COCO's form"),
    "image without height": (VAL, lambda c: c["images"][0].pop("height") and None, r"image 200 has no height; write a"),
    "image without file": (VAL, lambda c: c["images"][0].pop("file_name") and None, r"image 200 has no file_name; wri"),
    "image without id": (VAL, lambda c: c["images"][0].pop("id") and None, r"entry 1 of 'images' has no id; give each"),
    "image id with a fraction": (
        VAL, lambda c: c["images"][0].update(id=200.5), r"image 200\.5: id 200\.5 is no whole number"),
    "images twice": (VAL, lambda c: c["images"].append(c["images"][0]), r"two images have the id 200; give each its o"),
    "file twice": (
        VAL, lambda c: c["images"][0].update(file_name=c["images"][1]["file_name"]),
        r"1 files are of two images each: 000000000201\.png; name each once",
    ),
    "crowd index in words": (
        VAL, lambda c: c["images"][2].update(crowdIndex="easy"),
        r"image 202: crowdIndex 'easy' is no number from 0 on; leave it out, or write one",
    ),
    "annotation without id": (
        TRAIN, lambda c: c["annotations"][0].pop("id") and None, r"entry 1 of 'annotations' has no id; give each its"),
    "no object": (TRAIN, lambda c: c["annotations"].__setitem__(0, 5), r"entry 1 of 'annotations' is no object with"),
    "annotation without box": (
        TRAIN, lambda c: c["annotations"][0].pop("bbox") and None, r"annotation 100000 has no bbox, or no list of num"),
    "keypoints in words": (
        TRAIN, lambda c: c["annotations"][0].update(keypoints=["a"] * 51),
        r"annotation 100000: keypoints has something that is no number \(.*'a'\)",
    ),
    "negative area": (
        TRAIN, lambda c: c["annotations"][0].update(area=-4),
        r"annotation 100000: area -4 is no number of square pixels; write one, or leave it out",
    ),
    "crowd in words": (
        TRAIN, lambda c: c["annotations"][0].update(iscrowd="no"), r"100000: iscrowd 'no' is neither 0 nor 1"),
    "all crowds": (
        TRAIN, lambda c: of_all(c, lambda each: each.update(iscrowd=1)),
        r"none of the 39 persons can be learnt from or found: each is a crowd \(iscrowd 1\), has no labelled joint",
    ),
    "boxes as shares": (
        TRAIN, lambda c: of_all(c, lambda each: each.update(bbox=[v / trees.SIDE for v in each["bbox"]])),
        r"none of the 39 persons .* or a box without area in its image; bbox is x, y, width and height in pixels",
    ),
    "boxes as corners": (
        TRAIN, lambda c: of_all(c, lambda each: each.update(bbox=corners(each["bbox"]))),
        r"the boxes of 26 of 39 persons end outside of their images: bbox is .* in pixels, and not two corners",
    ),
    "height and width exchanged": (
        TRAIN, wide_as_tall,
        r"the boxes of 24 of 32 persons end outside of their images, and of 0 if height and width are exchanged, as "
        r"CrowdPose's first files have them: get newer ones, or exchange the two in every entry of 'images'",
    ),
    "joints as shares": (
        TRAIN, lambda c: of_all(c, lambda each: each.update(keypoints=moved(each, 1 / trees.SIDE, 0))),
        r"most joints of 39 of 39 persons lie outside of their boxes: keypoints are x and y in pixels of the image",
    ),
    "joints from the corner of the box": (
        TRAIN, lambda c: of_all(c, lambda each: each.update(keypoints=moved(each, 1, 1))),
        r"most joints of 29 of 39 persons lie outside of their boxes",
    ),
    "file outside": (VAL, lambda c: c["images"][0].update(file_name="../a.png"), r"'\.\./a\.png' names no file below"),
    "boxes of another part": (
        BOXES, lambda c: [each.update(image_id=1) for each in c[:2]] and None,
        r"2 of 21 boxes are in images that val does not have \(first: image 1\): these are boxes of another data set",
    ),
    "boxes of other images": (
        BOXES, lambda c: [each["bbox"].__setitem__(0, 500) for each in c] and None,
        r"21 of 21 boxes lie outside of their images \(first: \[500\.0, .*\] in image 200 of 96 x 96 pixels\), so "
        r"these are boxes of other images; set task\.boxes_file to those of people val, as x, y, width and height",
    ),
    "a box of another image": (
        BOXES, lambda c: c[4]["bbox"].__setitem__(0, 500), r"1 of 21 boxes lie outside of their images \(first: \[500"),
    "detected corners": (
        BOXES, lambda c: [each.update(bbox=corners(each["bbox"])) for each in c] and None,
        r"16 of 21 boxes end outside of their images, as two corners read as corner and size do; set task\.boxes_file",
    ),
    "detected shares": (
        BOXES, lambda c: [each.update(bbox=[v / trees.SIDE for v in each["bbox"]]) for each in c] and None,
        r"21 of 21 boxes are no larger than a pixel, as shares of an image are",
    ),
    "no detected area": (
        BOXES, lambda c: [each.update(bbox=[5, 5, 0, 0]) for each in c] and None,
        r"none of the 21 boxes has a width and a height; set task\.boxes_file",
    ),
    "image id of a box with a fraction": (
        BOXES, lambda c: c[0].update(image_id=200.7), r"box 1: image_id 200\.7 is no whole number"),
    "a box that is none": (BOXES, lambda c: c.__setitem__(1, 3), r"entry 2 is no object with fields; needs a list of"),
    "score in words": (
        BOXES, lambda c: c[0].update(score="high"), r"box 1 \(of image 200\) has something that is no number"),
    "boxes without score": (BOXES, lambda c: c[0].pop("score") and None, r"a box without 'score'; needs a list of"),
    "boxes in a mapping": (BOXES, lambda c: {"annotations": c}, r"no list of boxes as detectors write them"),
    "no box of a person": (BOXES, lambda c: [{**c[0], "category_id": 5}], r"has no box of a person \(cat"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_wrong_files_are_one_line_with_file_entry_and_reason(name: str, tree: Path) -> None:
    file, change, message = MISTAKES[name]
    trees.changed(tree / file, change)
    with pytest.raises(DataError, match=message) as caught:
        data(tree).read(tree)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("people: ")


def test_damaged_and_missing_files_are_named(tree: Path) -> None:
    (tree / TRAIN).write_text('{"images": [')
    with pytest.raises(DataError, match=r"people: .*train2017\.json is no JSON file .*; get this file again"):
        data(tree).read(tree)
    (tree / TRAIN).unlink()
    with pytest.raises(DataError, match=r"no .*train2017\.json, the annotations of train"):
        data(tree).read(tree)
    (tree / BOXES).unlink()
    with pytest.raises(DataError, match=r"no boxes .*: name one in task.boxes_file, or set task.boxes: ground_truth"):
        data(tree).read(tree)
    assert data(tree, boxes="ground_truth").missing(tree) is None


def test_an_image_id_without_file_is_found_before_training(tree: Path) -> None:
    (tree / "val2017" / "000000000203.png").unlink()
    with pytest.raises(DataError, match=r"1 of 8 images that the annotations of val name are not below .*203\.png"):
        data(tree).read(tree)


def test_images_of_another_size_are_found_before_training(tree: Path) -> None:
    """Their joints would lie elsewhere, without a word."""
    for path in (tree / "val2017").iterdir():
        Image.open(path).resize((48, 64)).save(path)
    line = r"8 of 8 images of val that were looked at have another size .*: val2017/\d+\.png \(64 x 48, not 96 x 96\)"
    with pytest.raises(DataError, match=line):
        data(tree).read(tree)
    checked = command(tree, "check", str(tree), "--kind", "coco")
    assert "8 images have another size than their annotations say: val2017/000000000200.png" in checked.stdout
    assert checked.exit_code == 1


def test_an_image_in_two_parts_is_refused(tmp_path: Path) -> None:
    root = trees.published_crowdpose(tmp_path)
    path = root / "crowdpose" / "json" / "crowdpose_test.json"
    trees.changed(path, lambda content: content["images"][0].update(file_name="000000000100.jpg"))
    chosen = {"train": "trainval", "evaluate": "test", "boxes": "ground_truth", "boxes_file": None}
    with pytest.raises(
        DataError, match=r"crowdpose: 1 images are in two parts, .*: crowdpose/images/000000000100\.jpg"
    ):
        PoseData.of(find_dataset("crowdpose", PoseDataset), chosen).planned(root, [])


def test_ids_and_crowds_may_be_written_as_text(tree: Path) -> None:
    plain = data(tree).planned(tree, [])
    trees.changed(
        tree / TRAIN, lambda c: of_all(c, lambda each: each.update(image_id=str(each["image_id"]), iscrowd="0"))
    )
    assert data(tree).planned(tree, []) == plain
