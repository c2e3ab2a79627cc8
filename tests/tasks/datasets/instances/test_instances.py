"""Objects as COCO 2017 publishes them: boxes, masks, classes, crowd regions, parts, manifests and evaluation."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import instance_trees as trees
import numpy as np
import pytest
from data_commands import command, problems
from faster_coco_eval import COCO, COCOeval_faster
from PIL import Image

from tasks.datasets import find_dataset
from tasks.datasets.annotated import ImageCounts
from tasks.datasets.images.decode import Unreadable
from tasks.datasets.instances.catalog import COCO_INSTANCES, SCENE_OBJECTS_SMALL
from tasks.datasets.instances.dataset import InstanceDataset
from tasks.datasets.instances.described import InstancesDescription
from tasks.datasets.instances.task_data import InstanceData
from tasks.datasets.instances.types import InstanceSet
from tasks.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with COCO 2017's layout; none may change it."""
    folder = tmp_path_factory.mktemp("instances")
    trees.write_coco(folder / "coco")
    return folder


@pytest.fixture(scope="module")
def train(root: Path) -> InstanceSet:
    return COCO_INSTANCES.open(root, "train")


def own(path: str, **fields: Any) -> InstancesDescription:
    return InstancesDescription.model_validate({"kind": "coco", "path": path, **fields})


def planned(root: Path, path: str, evaluate: str = "val", **fields: Any) -> InstanceData:
    """Of data of one's own, with what planning found."""
    before = InstanceData.of(own(path, **fields), {"evaluate": evaluate})
    found = before.planned(root, [])
    sizes = {name: ImageCounts(**each) for name, each in found["sizes"].items()}
    return InstanceData.of(own(path, **fields), {"evaluate": evaluate, "manifests": found["manifests"], "sizes": sizes})


def test_classes_are_contiguous_in_the_order_of_their_ids(train: InstanceSet) -> None:
    assert train.classes == ("person", "dog", "toothbrush")
    assert train.category_ids == (1, 18, 90)
    assert sorted(train.load(0).labels.tolist()) == [0, 1, 2]


def test_boxes_and_masks_are_those_of_the_file(train: InstanceSet) -> None:
    image = train.load(2)
    assert (image.image_id, image.file) == (102, "train2017/000000000102.jpg")
    dog = image.labels.tolist().index(1)
    np.testing.assert_array_equal(image.boxes[dog], [6, 6.5, 26, 16.5])
    assert image.area[dog] == 200
    brush = image.labels.tolist().index(2)
    expected = np.zeros((trees.HEIGHT, trees.WIDTH), bool)
    expected[20:40, 40:44] = expected[20:40, 50:54] = True
    np.testing.assert_array_equal(image.mask(brush), expected)
    assert image.mask(brush).dtype == np.bool_


def test_a_crowd_region_is_read_and_not_learnt(train: InstanceSet) -> None:
    image = train.load(0)
    crowd = int(np.flatnonzero(image.crowd)[0])
    assert image.mask(crowd).sum() == 30
    assert image.mask(crowd)[:30, 10].all()
    assert image.learnt.tolist() == (~image.crowd).tolist()
    assert train.object_counts.tolist() == [2, 0, 2, 2, 2, 2]


def test_an_image_without_objects_is_an_image(train: InstanceSet) -> None:
    image = train.load(trees.EMPTY)
    assert (image.boxes.shape, len(image.masks), image.labels.dtype) == ((0, 4), 0, np.int64)
    assert train.image(trees.EMPTY).shape == (trees.HEIGHT, trees.WIDTH, 3)


def test_annotations_go_to_workers_as_a_few_arrays(train: InstanceSet) -> None:
    again = pickle.loads(pickle.dumps(train))
    assert again.load(3).masks == train.load(3).masks
    assert len(pickle.dumps(train)) < 12_000


def test_boxes_beyond_the_edge_are_cut_and_thin_ones_not_learnt(tmp_path: Path) -> None:
    content = trees.annotations("train", 2)
    mask = [[50.0, 40, 64, 40, 64, 48, 50, 48]]
    content["annotations"] = [
        {"id": 1, **trees.entry(100, 18, [-5.0, 40, 75, 20], mask, 112)},
        {"id": 2, **trees.entry(100, 18, [50.0, 40, 14, 0.5], mask, 112)},
        {"id": 3, **trees.entry(100, 18, [50.0, 40, 14, 0], mask, 112)},
        {"id": 4, **trees.entry(100, 18, [50.0, 40, 14, 8], mask, 0)},
        {"id": 5, **trees.entry(100, 18, [50.0, 40, 14, 8], [[50.0, 40, 64, 48]], 112)},
        {"id": 6, **trees.entry(100, 18, [50.0, 40, 14, 8], [[1.0, 1, 3, 3], *mask], 112)},
    ]
    trees.write_coco(tmp_path / "own", {"train": 2})
    trees.write_annotations(tmp_path / "own", "train", content)
    image = own("own").dataset().open(tmp_path, "train").load(0)
    np.testing.assert_array_equal(image.boxes[0], [0, 40, 64, 48])
    assert image.learnt.tolist() == [True, False, False, False, False, True]
    assert image.mask(4).sum() == 0  # a polygon of two points encloses nothing; to pycocotools it is a box
    assert image.mask(5).sum() == image.mask(0).sum() == 112


def test_evaluators_find_what_was_annotated(train: InstanceSet) -> None:
    """Every object detected at its place, none of the crowd: AP 1; crowd regions are neither found nor missed."""
    truth = train.coco_json()
    assert [each["id"] for each in truth["annotations"]] == list(range(1, len(truth["annotations"]) + 1))
    found = [
        {"image_id": i.image_id, "category_id": train.category_ids[label], "score": 0.9, "segmentation": rle,
         "bbox": [*box[:2], *(box[2:] - box[:2])]}
        for i in map(train.load, range(len(train)))
        for box, label, rle, learnt in zip(i.boxes, i.labels, i.masks, i.learnt, strict=True) if learnt
    ]  # fmt: skip
    for kind in ("bbox", "segm"):
        gold = COCO(truth)
        result = COCOeval_faster(gold, gold.loadRes(found), kind, print_function=lambda *_: None)
        result.run()
        assert result.stats[0] == pytest.approx(1)


def test_parts_and_counts(root: Path) -> None:
    assert find_dataset("coco-instances", InstanceDataset) is COCO_INSTANCES
    assert dict(COCO_INSTANCES.counts) == {"train": 118_287, "val": 5_000}
    data = InstanceData.of(COCO_INSTANCES, {"evaluate": "val"})
    assert (data.samples("train"), data.learnt, data.samples("val")) == (118_287, 117_266, 5_000)
    first, second = data.read(root)
    assert [each.part for each in (first, second)] == ["train", "val"]
    assert second.ground_truth_path == root / "coco" / "annotations" / "instances_val2017.json"
    no_test = InstanceData.of(COCO_INSTANCES, {"evaluate": "test"})
    (root / "elsewhere").mkdir(exist_ok=True)
    assert "coco-instances: not found under" in str(no_test.missing(root / "elsewhere"))


def test_a_named_set_is_planned_by_its_written_manifest(tmp_path: Path) -> None:
    trees.write_coco(tmp_path / "coco", {"train": 3, "val": 2})
    data = InstanceData.of(COCO_INSTANCES, {"evaluate": "val"})
    found = data.planned(tmp_path, [])
    assert set(found) == {"manifests"}
    (digest,) = found["manifests"].values()
    assert digest == COCO_INSTANCES.manifest_of(tmp_path).digest
    assert (tmp_path / "splits" / "coco-instances-official.jsonl").exists()
    assert data.planned(tmp_path, []) == found


def test_data_of_ones_own_are_planned_as_they_are(tmp_path: Path) -> None:
    trees.write_coco(tmp_path / "own")
    data = planned(tmp_path, "own", "test")
    assert (data.samples("train"), data.learnt, data.samples("test")) == (6, 5, 3)
    assert [len(each) for each in data.read(tmp_path)] == [6, 3]
    content = trees.annotations("train", 6)
    content["annotations"][0]["area"] += 1
    trees.write_annotations(tmp_path / "own", "train", content)
    assert planned(tmp_path, "own", "test").digest != data.digest
    with pytest.raises(DataError, match=r"own: the annotations are not those that the trial was planned with"):
        data.read(tmp_path)


def test_generated_data_are_planned_before_they_are_made(tmp_path: Path) -> None:
    data = InstanceData.of(SCENE_OBJECTS_SMALL, {"evaluate": "val"})
    assert data.planned(tmp_path, []) == {"manifests": {"scene-objects-small/official": SCENE_OBJECTS_SMALL.recipe()}}
    assert not list(tmp_path.iterdir())
    assert data.opens(reads_test=False) == {**SCENE_OBJECTS_SMALL.shown, "scene-objects-small": "the makers' parts"}
    assert data.opens(reads_test=True) == {"scene-objects-small": "the makers' parts"}
    assert data.caveats == ("the images are generated: compare with nothing published",)


def test_the_commands_know_objects_of_ones_own(tmp_path: Path) -> None:
    trees.write_coco(tmp_path / "own")
    result = command(tmp_path, "check", "own", "--images")
    assert result.exit_code == 0, result.output
    assert "parts    train 6, val 4, test 3" in result.stdout
    assert "train: 10 objects and 1 crowd regions; 1 images have no object to learn from" in result.stdout
    row = json.loads(command(tmp_path, "ls", tmp_path / "own", "--kind", "coco_instances", "-o", "json").stdout)
    assert (row["metric"], row["there"]) == ("AP", True)
    path, digest = command(tmp_path, "split", "own").stdout.splitlines()
    assert (Path(path).name, digest) == ("own-official.jsonl", planned(tmp_path, "own").digest)
    result = command(tmp_path, "check", "own", "--kind", "coco_instances", "--field", "annotation=x")
    assert (result.exit_code, "nearest: annotations" in result.output) == (2, True)


def test_counts_that_are_not_the_published_ones_are_faults(tmp_path: Path) -> None:
    trees.write_coco(tmp_path / "coco", {"train": 3, "val": 2})
    lines = problems(command(tmp_path, "check", "coco-instances"), "coco-instances")
    assert [line.partition(": ")[2] for line in lines][:2] == [
        "3 images of train, expected 118,287", "2 images of val, expected 5,000",
    ]  # fmt: skip
    assert "3 classes, expected 80" in lines[2]


def test_packed_images_are_the_same(tmp_path: Path) -> None:
    trees.write_coco(tmp_path / "own", suffix="png")
    before = own("own").dataset().open(tmp_path, "val").image(2)
    result = command(tmp_path, "pack", "own")
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(own("own").dataset().open(tmp_path, "val").image(2), before)


def test_an_image_of_another_size_is_one_line(tmp_path: Path) -> None:
    trees.write_coco(tmp_path / "own", {"train": 2}, suffix="png")
    Image.new("RGB", (60, 48)).save(tmp_path / "own" / "train2017" / "000000000101.png")
    with pytest.raises(Unreadable, match=r"own: image .*101\.png has 48 x 60 pixels, and its annotations are for 48 x "
                                         r"64 \(height x width\); correct"):  # fmt: skip
        own("own").dataset().open(tmp_path, "train").image(1)


def test_images_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    trees.write_coco(tmp_path / "own", {"train": 3})
    (tmp_path / "own" / "train2017" / "000000000102.jpg").unlink()
    with pytest.raises(DataError, match=r"own: 1 of 3 images that the annotations of train name are not below .*/own: "
                                        r"train2017/000000000102\.jpg; get them"):  # fmt: skip
        own("own").dataset().open(tmp_path, "train")
