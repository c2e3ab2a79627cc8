"""Persons in the published layouts of COCO and CrowdPose: what is read, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import person_trees as trees
import pytest
from data_commands import command
from person_trees import BOXES, TRAIN, VAL, data

from tasks.datasets import find_dataset
from tasks.datasets.coco_json import read_json
from tasks.datasets.persons import annotations
from tasks.datasets.persons.annotations import Persons, read_persons, together
from tasks.datasets.persons.dataset import PoseDataset
from tasks.datasets.persons.described import CocoDescription
from tasks.datasets.persons.detections import ground_truth, read_boxes
from tasks.datasets.persons.task_data import PoseData
from tasks.errors import DataError
from tasks.pose.scores import CROWD_AREA


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return trees.coco_tree(tmp_path / "people")


def coco(name: str = "coco-keypoints") -> PoseDataset:
    return find_dataset(name, PoseDataset)


def one(box: list[float], size: tuple[int, int] = (80, 100), **other: Any) -> Persons:
    """One person in one image of this height and width."""
    seen = np.ones((1, 17, 3))
    fields = {
        "files": ["a.png"], "ids": np.array([7]), "sizes": np.array([size]), "crowd_index": np.array([np.nan]),
        "labelled": True, "image_of": np.array([0]), "person_ids": np.array([1]), "boxes": np.array([box]),
        "joints": seen, "areas": np.array([50.0]), "crowd": np.array([False]),
    }  # fmt: skip
    return Persons(**{**fields, **other})


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ([10, 20, 30, 40], [10, 20, 29, 39]),  # as PCT's code: the far corner is x + w - 1
        ([-5, 20, 30, 40], [0, 20, 29, 39]),  # and the width is kept where the near one is moved
        ([80, 20, 30, 40], [80, 20, 19, 39]),
        ([10, 60, 30, 40], [10, 60, 29, 19]),
    ],
)
def test_boxes_are_clipped_as_the_public_code_does_it(box: list[float], clipped: list[float]) -> None:
    np.testing.assert_array_equal(one(box).clipped, [clipped])


@pytest.mark.parametrize(
    "changes",
    [
        {"boxes": np.array([[10.0, 20, 0, 40]])},
        {"boxes": np.array([[100.0, 20, 30, 40]])},
        {"areas": np.array([0.0])},
        {"crowd": np.array([True])},
        {"joints": np.zeros((1, 17, 3))},
    ],
    ids=["no width", "beside the image", "no area", "crowd", "no joint labelled"],
)
def test_some_persons_are_neither_trained_on_nor_found_by_their_boxes(changes: dict[str, Any]) -> None:
    assert one([10, 20, 30, 40]).usable.tolist() == [True]
    assert one([10, 20, 30, 40], **changes).usable.tolist() == [False]


def test_an_area_that_is_not_stated_leaves_nobody_out() -> None:
    assert one([10, 20, 30, 40], areas=np.array([np.nan])).usable.all()


def test_persons_come_by_image_with_their_numbers(tree: Path) -> None:
    content = json.loads((tree / TRAIN).read_text())
    content["annotations"].reverse()
    (tree / TRAIN).write_text(json.dumps(content))
    found = read_persons(tree / TRAIN, "people", 17)
    assert list(found.ids) == [each["id"] for each in content["images"]]
    assert (np.diff(found.image_of) >= 0).all()
    by_id = {each["id"]: each for each in content["annotations"]}
    for row, number in enumerate(found.person_ids.tolist()):
        assert found.ids[found.image_of[row]] == by_id[number]["image_id"]
        np.testing.assert_array_equal(found.joints[row].ravel(), by_id[number]["keypoints"])
        np.testing.assert_array_equal(found.boxes[row], by_id[number]["bbox"])


def test_images_without_persons_are_not_trained_on_but_evaluated(tree: Path) -> None:
    whole = data(tree).whole
    assert len(whole.read(tree, "train").ids) == trees.IMAGES["train"] - 1
    val = whole.read(tree, "val")
    assert len(val.ids) == trees.IMAGES["val"]
    assert trees.EMPTY not in val.image_of


def test_parts_together_keep_each_person_with_its_image(tree: Path) -> None:
    whole = data(tree).whole
    parts = [whole.read(tree, part) for part in ("train", "val")]  # type: ignore[arg-type]
    both = together(parts)
    images = [part.ids[part.image_of] for part in parts]
    np.testing.assert_array_equal(both.ids[both.image_of], np.concatenate(images))


def test_boxes_are_read_of_persons_alone_in_the_order_of_images(tree: Path) -> None:
    persons = data(tree).whole.read(tree, "val")
    written = [each for each in json.loads((tree / BOXES).read_text()) if each["category_id"] == 1]
    trees.changed(tree / BOXES, lambda content: content[::-1])
    boxes = read_boxes(tree / BOXES, "people", "val", persons)
    assert len(boxes.scores) == len(written)
    assert (np.diff(boxes.image_of) >= 0).all()
    assert sorted(boxes.scores) == sorted(each["score"] for each in written)


def test_a_box_without_area_is_left_out_and_counted(tree: Path) -> None:
    persons = data(tree).whole.read(tree, "val")
    trees.changed(tree / BOXES, lambda content: content[0].update(bbox=[5, 5, 0, 20]))
    boxes = read_boxes(tree / BOXES, "people", "val", persons)
    assert (boxes.left_out, len(boxes.scores)) == (1, 20)
    trees.changed(tree / VAL, lambda content: content["annotations"][0].update(bbox=[5, 5, 0, 20]))
    found = ground_truth(data(tree).whole.read(tree, "val"))
    assert (found.left_out, len(found.scores)) == (1, 20)


def test_digests_follow_content_and_not_place(tree: Path, tmp_path: Path) -> None:
    first = data(tree).planned(tree, [tmp_path])
    other = trees.coco_tree(tmp_path / "elsewhere" / "people")
    assert list(first["manifests"].values()) == list(data(other).planned(other, [tmp_path])["manifests"].values())
    assert list(first["sizes"].values()) == [{"train": 39, "val": 21}, {"val": 21}]
    joints, boxes = first["manifests"].values()
    trees.changed(tree / VAL, lambda content: content["annotations"][0]["keypoints"].__setitem__(0, 1.0))
    assert [each == joints for each in data(tree).planned(tree, [tmp_path])["manifests"].values()] == [False, False]
    trees.changed(tree / BOXES, lambda content: content[0].update(score=0.111))
    assert boxes not in data(tree).planned(tree, [tmp_path])["manifests"].values()


def test_a_trial_refuses_other_data_than_it_was_planned_with(tree: Path, tmp_path: Path) -> None:
    manifests = data(tree).planned(tree, [tmp_path])["manifests"]
    data(tree, manifests=manifests).read(tree)
    trees.changed(tree / BOXES, lambda content: content[0].update(score=0.111))
    with pytest.raises(DataError, match=r"the detected boxes are not those that the trial was planned with"):
        data(tree, manifests=manifests).read(tree)
    trees.changed(tree / TRAIN, lambda content: content["annotations"][0].update(area=3.0))
    with pytest.raises(DataError, match=r"the annotations are not those .* put those back, or submit the job again"):
        data(tree, manifests=manifests).read(tree)


def test_data_check_says_what_is_left_out_and_what_is_assumed(tree: Path) -> None:
    trees.changed(tree / BOXES, lambda content: content[0].update(bbox=[5, 5, 0, 20]))
    trees.changed(tree / VAL, lambda content: content["annotations"][0].pop("area") and None)
    trees.changed(tree / VAL, lambda content: content["annotations"][1].update(bbox=[5, 5, 0, 20]))
    checked = command(tree, "check", str(tree), "--kind", "coco").stdout
    assert f"val: 20 detected boxes in {BOXES}; 1 without area are left out" in checked
    assert "val: 1 persons whose box has no area are left out" in checked
    assert f"val: 1 persons without area: OKS takes {CROWD_AREA} of their box, as for CrowdPose" in checked


def test_data_check_reads_each_file_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(path: Path, name: str) -> Any:
        read.append(path.name)
        return read_json(path, name)

    monkeypatch.setattr(annotations, "read_json", counted)
    assert command(tree, "check", str(tree), "--kind", "coco").exit_code == 0
    assert sorted(read) == sorted(path.name for path in (tree / "annotations").iterdir())


def test_a_written_manifest_is_believed(tmp_path: Path) -> None:
    root = trees.published_coco(tmp_path)
    chosen = {"train": "train", "evaluate": "val", "boxes": "ground_truth", "boxes_file": None}
    planned = PoseData.of(coco(), chosen).planned(root, [])
    (written,) = (root / "splits").iterdir()
    assert written.name == "coco-keypoints-official.jsonl"
    assert planned["sizes"] == {"coco-keypoints/official": {"train": 39, "val": 21}}
    (root / "coco" / TRAIN).write_text("it is not read again")
    assert PoseData.of(coco(), chosen).planned(root, []) == {"manifests": planned["manifests"], "sizes": {}}
    with pytest.raises(DataError, match="is no JSON file"):
        PoseData.of(coco(), chosen).read(root)


def test_a_folder_without_annotations_is_not_whole(tmp_path: Path) -> None:
    """Also one with those of objects, whose kind is coco in specs."""
    (tmp_path / "own" / "annotations").mkdir(parents=True)
    (tmp_path / "own" / "annotations" / "instances_train2017.json").write_text("{}")
    checked = command(tmp_path, "check", str(tmp_path / "own"), "--kind", "coco")
    assert checked.exit_code == 1
    assert "no annotations of any part: " in checked.stdout
    assert "person_keypoints_train2017.json" in checked.stdout


def test_the_commands_know_the_published_layouts(tmp_path: Path) -> None:
    assert command(tmp_path, "check", "coco-keypoints").exit_code == 4
    trees.published_coco(tmp_path)
    trees.published_crowdpose(tmp_path)
    checked = command(tmp_path, "check", "coco-keypoints", "--images")
    assert "13 images of train that count, expected 56,599" in checked.stdout  # these are not COCO's own
    assert "val: 21 detected boxes" in checked.stdout
    assert "opened   21 images" in checked.stdout
    assert checked.exit_code == 1
    assert "crowdpose/official" in command(tmp_path, "check", "crowdpose").stdout
    split = command(tmp_path, "split", "crowdpose")
    assert split.exit_code == 0
    assert "train 13, val 8, test 5" in split.output
    (tmp_path / "crowdpose" / "images" / "000000000300.jpg").write_bytes(b"no image")
    assert "1 of 26 images cannot be read" in command(tmp_path, "check", "crowdpose", "--images").stdout
    listed = json.loads(command(tmp_path, "ls", "crowdpose", "-o", "json").stdout)
    assert (listed["there"], listed["joints"], listed["test"]) == (True, 14, 8000)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"annotations": "a.json"}, r"must name the part: write \{part\}"),
        ({"annotations": "../{part}.json"}, r"must lie below path"),
        ({"images": "{set}/images"}, r"the one name in braces is \{part\}"),
    ],
)
def test_descriptions_name_their_parts(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CocoDescription.model_validate({"kind": "coco", "path": "x", **fields})
