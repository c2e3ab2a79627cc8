"""Figures and images of them: joints on their pixels, exact masks, areas and boxes, flags, mirrors, COCO's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.datasets.persons.catalog import SCENE_PEOPLE
from tasks.datasets.scenes import people
from tasks.datasets.scenes.figures import (
    FLIPPED,
    JOINTS,
    Canvas,
    Figure,
    drawn_figure,
    drawn_look,
    placed,
    placed_parts,
)
from tasks.datasets.scenes.people import Person
from tasks.datasets.scenes.textures import Textures
from tasks.pose.joints import COCO

SCENES = [people.scene("val", index) for index in range(25)]
PERSONS = [person for scene in SCENES for person in scene.persons]
GREY = np.full((128, 128, 3), 128, np.uint8)


def alone(figure: Figure) -> Canvas:
    canvas = Canvas(GREY)
    canvas.paint_figure(placed_parts(figure, 128, 128), None, 1)
    return canvas


def figures(count: int) -> list[Figure]:
    return [drawn_figure(np.random.default_rng(i), 90, (64, 60)) for i in range(count)]


def test_joints_are_cocos_and_pairs_are_mirrored() -> None:
    assert COCO.names == JOINTS
    assert list(FLIPPED) == COCO.flip_order
    edges: Any = people.CATEGORY["skeleton"]
    assert {frozenset(i - 1 for i in edge) for edge in edges} == {frozenset(edge) for edge in COCO.edge_indices}


def test_a_scene_depends_on_its_part_and_index_alone() -> None:
    again = people.scene("val", 3)
    assert np.array_equal(again.pixels, SCENES[3].pixels)
    assert np.array_equal(again.persons[0].figure.joints, SCENES[3].persons[0].figure.joints)
    assert not np.array_equal(again.pixels, people.scene("test", 3).pixels)


def test_scenes_are_what_version_1_made() -> None:
    """Raise VERSIONS in made.py when this changes. Coarse, since JPEG and rounding differ a little between machines."""
    means = np.array([scene.pixels.mean() for scene in SCENES[:4]])
    assert np.abs(means - np.array([103.3, 64.5, 126.0, 163.1])).max() < 1
    areas = [[person.mask.sum() for person in scene.persons] for scene in SCENES[:4]]
    golden = [[1816], [1462, 2618], [1691, 2329], [1129]]
    assert [len(found) for found in areas] == [len(found) for found in golden]
    assert np.abs(np.concatenate(areas) - np.concatenate(golden)).max() <= 5


def test_visible_joints_lie_on_their_figures_pixels() -> None:
    for person in PERSONS:
        for (x, y), flag in zip(person.figure.joints, person.flags, strict=True):
            column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
            inside = 0 <= column < people.SIDE and 0 <= row < people.SIDE
            assert inside == (flag > 0)
            if flag == 2:
                assert person.mask[row, column]
    flags = np.concatenate([person.flags for person in PERSONS])
    assert (np.bincount(flags, minlength=3) / len(flags) > [0.01, 0.1, 0.5]).all()


def test_every_joint_of_a_figure_alone_is_on_it() -> None:
    """Hidden by its own body at most: never beside it."""
    for figure in figures(60):
        canvas = alone(figure)
        columns, rows = np.floor(figure.joints + 0.5).astype(int).T
        inside = (columns >= 0) & (columns < 128) & (rows >= 0) & (rows < 128)
        assert (canvas.owner[rows[inside], columns[inside]] == 1).mean() > 0.98 or not figure.front
        assert ((canvas.visibility(figure, 1) > 0) == inside).all()


def test_a_thing_in_front_hides_joints() -> None:
    figure = figures(1)[0]
    canvas = alone(figure)
    before = canvas.visibility(figure, 1)
    thing = placed(np.array([[-1.0, -1], [128, -1], [128, 64], [-1, 64]]), 128, 128)
    assert thing is not None
    canvas.paint(thing, None, -1)
    after = canvas.visibility(figure, 1)
    above = figure.joints[:, 1] < 63
    assert (after[above] <= 1).all()
    assert (after[~above & (figure.joints[:, 1] > 66)] == before[~above & (figure.joints[:, 1] > 66)]).all()


def test_a_mirrored_figure_is_the_mirrored_image() -> None:
    """Left becomes right: pixels (but for rounding at edges) and flags are those of the mirrored image."""
    for figure in figures(8):
        mirrored = figure.mirrored(128)
        first, second = alone(figure), alone(mirrored)
        assert (first.owner[:, ::-1] != second.owner).mean() < 0.01
        order = list(FLIPPED)
        assert (first.visibility(figure, 1)[order] != second.visibility(mirrored, 1)).sum() <= 2  # of 17
        assert np.allclose(mirrored.mirrored(128).joints, figure.joints)


def test_left_and_right_limbs_differ_in_look() -> None:
    for seed in range(10):
        look = drawn_look(np.random.default_rng(seed), Textures("train", people.NAME), 64, 64)
        colours = [getattr(look, name).reshape(-1, 3).mean(axis=0) for name in ("torso", "left", "right")]
        assert min(np.abs(a - b).max() for a, b in zip(colours, colours[1:] + colours[:1], strict=True)) > 40


def test_area_box_and_mask_agree_and_masks_do_not_overlap() -> None:
    for scene in SCENES:
        covered = np.zeros((people.SIDE, people.SIDE), int)
        for person in scene.persons:
            entry = people.annotation(person, 1)
            left, top, width, height = entry["bbox"]
            assert entry["area"] == person.mask.sum() == person.mask[top : top + height, left : left + width].sum() > 0
            assert decoded(entry["segmentation"]).sum() == entry["area"]
            assert np.array_equal(decoded(entry["segmentation"]), person.mask)
            assert entry["num_keypoints"] == sum(flag > 0 for flag in entry["keypoints"][2::3]) > 0
            hidden = np.reshape(entry["keypoints"], (17, 3))[person.flags == 0]
            assert not hidden.any()
            covered += person.mask
        assert covered.max() <= 1


def decoded(code: dict[str, Any]) -> np.ndarray:
    bits = np.repeat(np.arange(len(code["counts"])) % 2, code["counts"])
    return bits.reshape(code["size"], order="F").astype(bool)


def test_some_images_have_no_person_several_and_crowds() -> None:
    counts = [len(people.scene("train", index).persons) for index in range(25)]
    assert {0, 1, 2} < set(counts)
    crowds = [people.crowd_index(scene.persons) for scene in SCENES]
    easy, hard = sum(crowd < 0.2 for crowd in crowds), sum(crowd > 0.7 for crowd in crowds)
    assert 0 < hard < len(crowds) - easy < easy


def test_the_crowd_index_is_that_of_its_definition() -> None:
    """Two persons: 3 of the 17 joints of the second lie in the first one's box, none of the first in the second's."""

    def person(places: list[tuple[float, float]], box: tuple[int, int, int, int]) -> Person:
        figure = figures(1)[0]
        joints = np.array(places + [places[-1]] * (17 - len(places)), float)
        mask = np.zeros((128, 128), bool)
        mask[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = True
        return Person(Figure(joints, figure.head, 50, True, (True, True), True), np.full(17, 2), mask)

    first = person([(5.0, 5.0)], (0, 0, 20, 20))
    second = person([(10.0, 10.0), (11.0, 11.0), (19.0, 19.0), (50.0, 50.0)], (30, 30, 40, 40))
    assert people.crowd_index([first, second]) == pytest.approx((3 / 17 + 0) / 2)
    assert people.crowd_index([first]) == people.crowd_index([]) == 0


def test_detections_are_scored_jittered_missed_and_false() -> None:
    each = [people.detections("val", index, scene.persons) for index, scene in enumerate(SCENES)]
    assert each == [people.detections("val", index, scene.persons) for index, scene in enumerate(SCENES)]
    found = [entry for entries in each for entry in entries]
    right, wrong, missed = [], [], 0
    for image, scene in enumerate(SCENES, 1):
        mine = [entry for entry in found if entry["image_id"] == image]
        overlaps = [max([iou(person.box, entry["bbox"]) for person in scene.persons], default=0.0) for entry in mine]
        right += [entry["score"] for entry, overlap in zip(mine, overlaps, strict=True) if overlap > 0.7]
        wrong += [entry["score"] for entry, overlap in zip(mine, overlaps, strict=True) if overlap < 0.3]
        missed += sum(all(iou(person.box, entry["bbox"]) < 0.3 for entry in mine) for person in scene.persons)
        for entry in mine:
            left, top, width, height = entry["bbox"]
            assert 0 <= left < left + width <= people.SIDE + 0.01
            assert 0 <= top < top + height <= people.SIDE + 0.01
            assert 0 < entry["score"] < 1
            assert entry["category_id"] == 1
    assert len(right) > 0.7 * len(PERSONS)
    assert wrong
    assert missed
    assert np.mean(right) > np.mean(wrong) + 0.3


def iou(first: Any, second: Any) -> float:
    wide = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    high = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    both = max(0, wide) * max(0, high)
    return float(both / (first[2] * first[3] + second[2] * second[3] - both))


def test_files_are_in_cocos_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    assert {part: SCENE_PEOPLE.part_files[part].image_count for part in ("val", "test")} == {"val": 300, "test": 300}
    assert people.COUNTS == {"train": 3000, "val": 300, "test": 300}
    monkeypatch.setattr(people, "COUNTS", {"train": 3, "val": 4, "test": 3})
    people.write(tmp_path)
    for part in ("train", "val", "test"):
        content = json.loads((tmp_path / "annotations" / f"person_keypoints_{part}2017.json").read_text())
        for entry in content["images"]:
            with Image.open(tmp_path / f"{part}2017" / entry["file_name"]) as image:
                assert (image.size, image.mode) == ((entry["width"], entry["height"]), "RGB")
            assert 0 <= entry["crowdIndex"] <= 1
        assert "Generated" in content["info"]["description"]
        assert content["categories"][0]["keypoints"] == list(COCO.names)
        ids = [entry["id"] for entry in content["annotations"]]
        assert len(set(ids)) == len(ids)
        assert {entry["image_id"] for entry in content["annotations"]} <= {entry["id"] for entry in content["images"]}
        detections = tmp_path / "person_detection_results" / f"{part}2017_detections.json"
        assert detections.exists() == (part != "train")


def test_cocos_evaluator_takes_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ground truth as result has AP 1; masks decode to the areas."""
    evaluator = pytest.importorskip("faster_coco_eval")
    monkeypatch.setattr(people, "COUNTS", {"train": 1, "val": 8, "test": 1})
    people.write(tmp_path)
    truth = evaluator.COCO(str(tmp_path / "annotations" / "person_keypoints_val2017.json"))
    whole = truth.loadAnns(truth.getAnnIds())
    assert [int(truth.annToMask(entry).sum()) for entry in whole] == [entry["area"] for entry in whole]
    fields = ("image_id", "category_id", "keypoints")
    results = truth.loadRes([{**{name: entry[name] for name in fields}, "score": 0.9} for entry in whole])
    run = evaluator.COCOeval_faster(truth, results, "keypoints")
    run.run()
    assert run.stats[0] == pytest.approx(1)
