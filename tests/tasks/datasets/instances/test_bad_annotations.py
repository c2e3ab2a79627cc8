"""Wrong annotations of objects: one line each that names file, entry, value and remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import instance_trees as trees
import pytest
from pydantic import ValidationError

from tasks.datasets.instances.annotations import read_annotations
from tasks.datasets.instances.described import InstancesDescription
from tasks.errors import DataError

Change = Callable[[dict[str, Any]], object]
WHOLE = trees.HEIGHT * trees.WIDTH


def of_first(**fields: Any) -> Change:
    """Changes the first annotation: 910, a crowd region of image 100; None removes a field."""

    def change(content: dict[str, Any]) -> None:
        content["annotations"][0].update(fields)
        for name in [name for name, value in fields.items() if value is None]:
            del content["annotations"][0][name]

    return change


WRONG: dict[str, tuple[Change, str]] = {
    "no segmentation": (of_first(segmentation=None), r"annotation 910 has no segmentation: masks are needed"),
    "empty segmentation": (of_first(segmentation=[]), r"annotation 910 has no segmentation: masks are needed"),
    "segmentation of another form": (of_first(segmentation="x"), r"annotation 910: segmentation is neither polygons"),
    "half a point": (of_first(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), r"annotation 910: a polygon of 7 numbers; it has"),
    "not finite": (of_first(segmentation=[[1, 2, 3, 4, 5, float("nan")]]), r"annotation 910: a polygon has a number"),
    "mask of another size": (
        of_first(segmentation={"size": [64, 48], "counts": [WHOLE]}),
        r"annotation 910: its mask is of 64 x 48 pixels and its image of 48 x 64 \(height x width\); draw it",
    ),
    "runs too short": (
        of_first(segmentation={"size": [48, 64], "counts": [5, 5]}),
        r"annotation 910: its RLE has runs of 10 pixels together, and its mask has 3,072; get",
    ),
    "damaged code": (
        of_first(segmentation={"size": [48, 64], "counts": "52200"}), r"annotation 910: its RLE is damaged \(.*\); get"
    ),
    "box outside": (
        of_first(bbox=[70, 5, 10, 10]),
        r"annotation 910: bbox \[70, 5, 10, 10\] lies outside of its image of 64 x 48 pixels \(width x height\)",
    ),
    "box before": (of_first(bbox=[-20, 5, 10, 10]), r"annotation 910: bbox \[-20, 5, 10, 10\] lies outside of its"),
    "box of three": (of_first(bbox=[1, 2, 3]), r"annotation 910: bbox \[1, 2, 3\] is no x, y, width and height"),
    "negative side": (of_first(bbox=[9, 9, -3, 3]), r"annotation 910: bbox \[9, 9, -3, 3\] is no x, y, width and"),
    "no box": (of_first(bbox=None), r"annotation 910 has no bbox; write its x, y, width and height"),
    "image that is not listed": (of_first(image_id=7), r"annotation 910 is of image 7, which the list of images lacks"),
    "unknown category": (of_first(category_id=2), r"annotation 910 has category_id 2, which 'categories' lacks"),
    "no category": (of_first(category_id=None), r"annotation 910 has no category_id; write a whole number"),
    "category by name": (of_first(category_id="dog"), r"annotation 910: category_id 'dog' is no whole number of at"),
    "half a category": (of_first(category_id=1.5), r"annotation 910: category_id 1.5 is no whole number"),
    "image by name": (of_first(image_id="a.jpg"), r"annotation 910: image_id 'a.jpg' is no whole number"),
    "image id as a word": (lambda c: c["images"][0].update(id="a"), r"image a: id 'a' is no whole number"),
    "image id too large": (lambda c: c["images"][0].update(id=10**30), r"image 10+: id 10+ is no whole number of at"),
    "crowd in words": (of_first(iscrowd="no"), r"annotation 910: iscrowd 'no' is neither 0 nor 1"),
    "area in words": (of_first(area="big"), r"annotation 910: area 'big' is no number of square pixels"),
    "negative area": (of_first(area=-2), r"annotation 910: area -2 is no number of square pixels"),
    "box in words": (of_first(bbox="1,2,3,4"), r"annotation 910: bbox 1,2,3,4 is no x, y, width and height"),
    "annotation without id": (lambda c: c["annotations"][0].pop("id"), r"entry 1 of 'annotations' has no id; give"),
    "image without height": (lambda c: c["images"][0].pop("height"), r"image 100 has no height; write a whole"),
    "category without name": (lambda c: c["categories"][0].pop("name"), r"category 90 has no name; write one"),
    "names alone": (lambda c: c.update(categories=["dog"]), r"entry 1 of 'categories' is no object with fields"),
    "image without file": (lambda c: c["images"][0].pop("file_name"), r"image 100 has no file_name; write the file"),
    "file outside": (lambda c: c["images"][0].update(file_name="../a.jpg"), r"'../a\.jpg' names no file below"),
    "two of one id": (lambda c: c["images"][1].update(id=100), r"two images have the id 100; give each its own"),
    "two of one file": (
        lambda c: c["images"][1].update(file_name=c["images"][0]["file_name"]),
        r"1 files are of two images each: 000000000100\.jpg; name each once",
    ),
    "image too large": (
        lambda c: c["images"][0].update(height=10**7), r"image 100 of 10000000 x 64 pixels, more than .*; make it"
    ),
    "image of no size": (lambda c: c["images"][0].update(height=0), r"image 100 of 0 x 64 pixels"),
    "two categories of one name": (
        lambda c: c["categories"][0].update(name="dog"), r"two categories have the id or name dog; give"
    ),
    "no categories": (lambda c: c.update(categories=[]), r"the list 'categories' is empty"),
    "not a COCO file": (lambda c: c.pop("images"), r"no list 'images', so these are no annotations in COCO's form"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_entry_is_one_line(tmp_path: Path, what: str) -> None:
    change, message = WRONG[what]
    content = trees.annotations("train", 6)
    change(content)
    path = trees.write_annotations(tmp_path, "train", content)
    with pytest.raises(DataError, match=rf"^own: {path}: {message}") as raised:
        read_annotations(path, "own")
    assert "\n" not in str(raised.value)


def test_numbers_as_text_are_numbers(tmp_path: Path) -> None:
    """Also "0" of iscrowd, which Python takes for true."""
    content = trees.annotations("train", 3)
    wanted = read_annotations(trees.write_annotations(tmp_path / "numbers", "train", content), "own")
    for each in (*content["images"], *content["annotations"], *content["categories"]):
        fields = {"id", "image_id", "category_id", "iscrowd", "area", "height"} & set(each)
        each.update({name: str(each[name]) for name in fields})
    found = read_annotations(trees.write_annotations(tmp_path / "text", "train", content), "own")
    assert found.crowd.tolist() == wanted.crowd.tolist()
    assert list(found.entries()) == list(wanted.entries())


def test_a_box_at_the_edge_of_its_image_is_not_learnt(tmp_path: Path) -> None:
    content = trees.annotations("train", 3)
    content["annotations"][-1].update(bbox=[trees.WIDTH, 5, 0, 10])
    found = read_annotations(trees.write_annotations(tmp_path, "train", content), "own")
    assert found.learnt.sum() == len(content["annotations"]) - 2  # the other one is a crowd region


def described(**fields: Any) -> InstancesDescription:
    return InstancesDescription.model_validate({"kind": "coco", "path": "own", **fields})


def test_boxes_as_shares_of_the_image_are_one_line(tmp_path: Path) -> None:
    content = trees.annotations("train", 2)
    for each in content["annotations"]:
        each.update(bbox=[0.1, 0.2, 0.5, 0.3])
    trees.write_annotations(tmp_path / "own", "train", content)
    with pytest.raises(DataError, match=r"none of its 3 objects is at least a pixel wide and high .* are in pixels"):
        described().dataset().read(tmp_path, "train")


def test_corners_in_place_of_width_and_height_are_one_line(tmp_path: Path) -> None:
    content = trees.annotations("train", 6)
    for each in content["annotations"]:
        x, y, wide, high = each["bbox"]
        each.update(bbox=[x, y, x + wide, y + high])
    trees.write_annotations(tmp_path / "own", "train", content)
    with pytest.raises(DataError, match=r"boxes of \d+ of 10 objects are not those of their masks .* two corners"):
        described().dataset().read(tmp_path, "train")


def test_a_check_says_which_boxes_and_sizes_do_not_fit(tmp_path: Path) -> None:
    base = trees.write_coco(tmp_path / "own", {"train": 6})
    content = trees.annotations("train", 6)
    content["annotations"][1].update(bbox=[0, 0, 9, 9])
    content["images"][0].update(height=50)
    for each in content["annotations"]:
        if isinstance(each["segmentation"], dict):
            each.update(segmentation={"size": [50, trees.WIDTH], "counts": [50 * trees.WIDTH - 9, 9]})
    trees.write_annotations(base, "train", content)
    for images in (False, True):
        finding = described().dataset().check(tmp_path, {}, [], images)
        assert finding.problems == [
            "1 images have another size than their annotations say: train2017/000000000100.jpg (48 x 64, not 50 x 64)"
        ]
        assert finding.notes[0].endswith("; 1 boxes have an IoU below 0.5 with their mask's")


def test_parts_with_other_categories_are_one_line(tmp_path: Path) -> None:
    trees.write_coco(tmp_path / "own", {"train": 2, "val": 2})
    content = trees.annotations("val", 2)
    content["categories"][0]["name"] = "comb"
    trees.write_annotations(tmp_path / "own", "val", content)
    with pytest.raises(DataError, match=r"own: .*instances_val2017\.json has other categories than .*train2017\.json "
                                        r"\(first: id 90, comb\); give both"):  # fmt: skip
        described().dataset().manifest_of(tmp_path)


def test_an_image_of_two_parts_is_one_line(tmp_path: Path) -> None:
    trees.write_coco(tmp_path / "own", {"train": 2})
    trees.write_annotations(tmp_path / "own", "val", trees.annotations("train", 2))
    with pytest.raises(DataError, match=r"own: 2 images are in two parts, so that the model would be measured on what"):
        described(images="train2017").dataset().manifest_of(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"annotations": "instances.json"}, r"must name the part: write \{part\} where train, val or test stands"),
        ({"images": "/data/{part}"}, r"must lie below path; the one name in braces is \{part\}"),
        ({"images": "{split}"}, r"must lie below path; the one name in braces is \{part\}"),
    ],
)
def test_a_wrong_pattern_is_one_message(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        described(**fields)
