"""Figures of poses against plain loops over the evaluators' definition, and submissions against the published form."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest

from tasks.errors import DataError
from tasks.pose import scores
from tasks.pose.evaluation import Rules, average_precision, check_results, results, similarities, submission
from tasks.pose.joints import COCO, CROWDPOSE

THRESHOLDS = np.linspace(0.5, 0.95, 10)


def made_up(seed: int, joints: int = 17, images: int = 12) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Results and truth: persons, a crowd, a person without labels, images without persons, misses, false poses."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for image in range(images):
        persons = []
        for _ in range(rng.integers(0, 4)):
            corner, sides = rng.uniform(0, 200, 2), rng.uniform(30, 200, 2)
            places = corner + rng.uniform(0, 1, (joints, 2)) * sides
            seen = rng.choice([0, 1, 2], joints)
            crowd, silent = rng.random() < 0.1, rng.random() < 0.1
            seen = np.zeros_like(seen) if silent else np.maximum(seen, np.eye(joints, dtype=int)[0])
            persons.append(
                {
                    "id": 100 * image + len(persons), "bbox": [*corner, *sides], "iscrowd": int(crowd),
                    "keypoints": np.column_stack([places, seen]).ravel().tolist(), "area": float(np.prod(sides) * 0.6),
                    "num_keypoints": int((seen > 0).sum()),
                }
            )  # fmt: skip
            for _ in range(rng.integers(0, 3)):
                near = places + rng.normal(0, rng.choice([1, 4, 12, 40]), places.shape)
                found.append(pose(image, near, float(rng.random())))
        if rng.random() < 0.5:
            found.append(pose(image, rng.uniform(0, 300, (joints, 2)), float(rng.random())))
        truth.append({"id": image, "crowd_index": float(rng.random()), "persons": persons})
    return found, truth


def pose(image: int, places: Any, score: float) -> dict[str, Any]:
    joints = np.column_stack([places, np.ones(len(places))])
    return {"image_id": image, "category_id": 1, "keypoints": joints.ravel().tolist(), "score": score}


def similarity(each: dict[str, Any], person: dict[str, Any], rules: Rules) -> float:
    """OKS as the evaluators have it, with distances from a doubled box for a person without labels."""
    area = person["bbox"][2] * person["bbox"][3] * 0.53 if rules.crowd else person["area"]
    got, wanted = (np.array(x["keypoints"]).reshape(-1, 3) for x in (each, person))
    total = count = 0.0
    x, y, w, h = person["bbox"]
    for (gx, gy, _), (wx, wy, seen), sigma in zip(got, wanted, rules.skeleton.sigmas, strict=True):
        if person["num_keypoints"] and not seen:
            continue
        dx, dy = gx - wx, gy - wy
        if not person["num_keypoints"]:
            dx = max(0, x - w - gx) + max(0, gx - x - 2 * w)
            dy = max(0, y - h - gy) + max(0, gy - y - 2 * h)
        total += np.exp(-(dx**2 + dy**2) / (2 * sigma) ** 2 / (area + np.spacing(1)) / 2)
        count += 1
    return total / count


def by_hand(
    found: list[dict[str, Any]], truth: list[dict[str, Any]], rules: Rules, low: float = 0, high: float = 1e10
) -> tuple[dict[float, float], dict[float, float]]:
    """Threshold -> average precision and recall of persons of an area from low to high."""
    precision, recall = {}, {}
    for threshold in THRESHOLDS:
        rows, wanted = [], 0
        for image in truth:
            persons = [
                (p, bool(p["iscrowd"] or not p["num_keypoints"] or not low <= p.get("area", low) <= high))
                for p in image["persons"]
            ]
            persons.sort(key=lambda each: each[1])  # those that count first
            wanted += sum(not ignored for _, ignored in persons)
            poses = sorted((each for each in found if each["image_id"] == image["id"]), key=lambda each: -each["score"])
            taken: set[int] = set()
            for each in poses[:20]:
                best, match = min(threshold, 1 - 1e-10), None
                for number, (person, ignored) in enumerate(persons):
                    if number in taken and not person["iscrowd"]:
                        continue
                    if match is not None and not persons[match][1] and ignored:
                        break
                    alike = similarity(each, person, rules)
                    if alike >= best:
                        best, match = alike, number
                if match is not None:
                    taken.add(match)
                places = np.array(each["keypoints"]).reshape(-1, 3)[:, :2]
                area = float(np.prod(np.ptp(places, axis=0)))
                left_out = persons[match][1] if match is not None else not low <= area <= high
                rows.append((each["score"], match is not None, left_out))
        rows.sort(key=lambda row: -row[0])
        counted = [right for _, right, left_out in rows if not left_out]
        hits = np.cumsum(counted)
        at = hits / np.arange(1, len(hits) + 1)
        at = np.maximum.accumulate(at[::-1])[::-1]
        levels = np.linspace(0, 1, 101)
        places_ = np.searchsorted(hits / max(wanted, 1), levels, side="left")
        precision[threshold] = float(np.mean([at[i] if i < len(at) else 0 for i in places_]))
        recall[threshold] = float(hits[-1] / wanted) if len(hits) else 0.0
    return precision, recall


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_coco_figures_are_the_evaluators_definition(seed: int) -> None:
    rules = Rules(COCO)
    found, truth = made_up(seed)
    figures = average_precision(found, truth, rules)
    precision, recall = by_hand(found, truth, rules)
    assert set(figures) == {"ap", "ap50", "ap75", "apm", "apl", "ar"}
    assert figures["ap"] == pytest.approx(np.mean(list(precision.values())), abs=1e-9)
    assert figures["ap50"] == pytest.approx(precision[THRESHOLDS[0]], abs=1e-9)
    assert figures["ap75"] == pytest.approx(precision[THRESHOLDS[5]], abs=1e-9)
    assert figures["ar"] == pytest.approx(np.mean(list(recall.values())), abs=1e-9)
    medium, large = (by_hand(found, truth, rules, *area)[0] for area in ((32**2, 96**2), (96**2, 1e10)))
    assert figures["apm"] == pytest.approx(np.mean(list(medium.values())), abs=1e-9)
    assert figures["apl"] == pytest.approx(np.mean(list(large.values())), abs=1e-9)
    assert 0.05 < figures["ap"] < figures["ap50"] < 1


@pytest.mark.parametrize("seed", [3, 4])
def test_crowdpose_figures_are_those_of_the_official_cut(seed: int) -> None:
    rules = Rules(CROWDPOSE, crowd=True)
    found, truth = made_up(seed, joints=14, images=20)
    for image in truth:
        for person in image["persons"]:
            person["area"] = 1.0  # CrowdPose states none: whatever stands there is not read
    figures = average_precision(found, truth, rules)
    assert set(figures) == {"ap", "ap50", "ap75", "ap_easy", "ap_medium", "ap_hard"}
    assert figures["ap"] == pytest.approx(np.mean(list(by_hand(found, truth, rules)[0].values())), abs=1e-9)
    for name, low, high in (("easy", -1, 0.2), ("medium", 0.2, 0.8), ("hard", 0.8, 2)):
        images = [image for image in truth if low <= image["crowd_index"] < high]
        ids = {image["id"] for image in images}
        own = by_hand([each for each in found if each["image_id"] in ids], images, rules)[0]
        assert figures[f"ap_{name}"] == pytest.approx(np.mean(list(own.values())), abs=1e-9)


def test_missed_persons_and_images_without_persons_count() -> None:
    found, truth = made_up(5)
    whole = average_precision(found, truth, Rules(COCO))
    empty = next(image["id"] for image in truth if not image["persons"])
    wrong = pose(empty, np.random.default_rng(0).uniform(0, 100, (17, 2)), 2.0)
    assert average_precision([*found, wrong], truth, Rules(COCO))["ap"] < whole["ap"]
    shown = next(image for image in truth if any(p["num_keypoints"] and not p["iscrowd"] for p in image["persons"]))
    missed = average_precision([each for each in found if each["image_id"] != shown["id"]], truth, Rules(COCO))
    assert missed["ar"] < whole["ar"]


def test_figures_over_nobody_are_left_out() -> None:
    found, truth = made_up(0)
    for image in truth:
        for person in image["persons"]:
            person["area"] = 2000.0
    assert "apl" not in average_precision(found, truth, Rules(COCO))
    assert average_precision([], truth, Rules(COCO))["ap"] == 0
    nobody = [{"id": 1, "crowd_index": 0.5, "persons": []}]
    assert average_precision([], nobody, Rules(COCO)) == {}
    assert set(average_precision([], [*nobody, *truth], Rules(CROWDPOSE, crowd=True))) >= {"ap", "ap_medium"}


def test_crowd_cuts_need_a_crowd_index() -> None:
    with pytest.raises(DataError, match=r"image 3 has no crowdIndex, .* set task.evaluator: coco"):
        average_precision([], [{"id": 3, "crowd_index": None, "persons": []}], Rules(CROWDPOSE, crowd=True))


def boxes(**other: Any) -> dict[str, Any]:
    places = np.random.default_rng(0).uniform(0, 90, (3, 17, 2))
    places[1] = places[0] + 0.01  # the same person, in two boxes
    part = {
        "image_ids": np.array([4, 4, 9]), "scores": np.array([0.5, 0.9, 0.4]), "areas": np.full(3, 5000.0),
        "places": places, "joint_scores": np.full((3, 17), 0.8),
    }  # fmt: skip
    return {**part, **other}


def test_poses_of_one_person_are_one_result_with_score_of_box_times_joints() -> None:
    kept = results([boxes()], Rules(COCO))
    assert [each["image_id"] for each in kept] == [4, 9]
    assert [each["score"] for each in kept] == pytest.approx([0.9 * 0.8, 0.4 * 0.8])
    np.testing.assert_allclose(np.array(kept[0]["keypoints"]).reshape(-1, 3)[:, :2], boxes()["places"][1])
    assert np.array(kept[0]["keypoints"]).reshape(-1, 3)[:, 2].tolist() == [0.8] * 17
    weak = boxes(joint_scores=np.where(np.arange(17) < 3, 0.6, 0.1) * np.ones((3, 1)))
    assert [each["score"] for each in results([weak], Rules(COCO))] == pytest.approx([0.9 * 0.6, 0.4 * 0.6])
    assert len(results([boxes()], Rules(COCO, oks_limit=1))) == 3


def test_an_image_may_come_in_several_parts() -> None:
    whole = boxes()
    parts = [{name: value[rows] for name, value in whole.items()} for rows in (slice(0, 1), slice(1, 3))]
    assert results(parts, Rules(COCO)) == results([whole], Rules(COCO))


def test_similarities_are_those_of_the_most_alike_pose() -> None:
    found, truth = made_up(7)
    rows = similarities(found, truth, Rules(COCO))
    counted = {image["id"]: [p for p in image["persons"] if p["num_keypoints"] and not p["iscrowd"]] for image in truth}
    assert [row.item for row in rows] == [str(image) for image, persons in counted.items() if persons]
    for row in rows:
        own = [each for each in found if each["image_id"] == int(row.item)]
        best = [max([similarity(e, p, Rules(COCO)) for e in own], default=0) for p in counted[int(row.item)]]
        assert row.value == pytest.approx(np.mean(best))
    assert any(0 < row.value < 1 for row in rows)


def test_a_submission_is_a_zip_of_one_json_list() -> None:
    kept = results([boxes()], Rules(COCO))
    content = submission(kept, [4, 9, 11], 17, "person_keypoints_test-dev2017_x_results.json")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["person_keypoints_test-dev2017_x_results.json"]
        written = json.loads(archive.read(archive.namelist()[0]))
    assert [each["image_id"] for each in written] == [each["image_id"] for each in kept]
    for got, wanted in zip(written, kept, strict=True):
        np.testing.assert_allclose(got["keypoints"], wanted["keypoints"], rtol=0, atol=0.005)
        assert got["score"] == pytest.approx(wanted["score"], abs=5e-7)
        assert max(len(str(value)) for value in got["keypoints"]) < 10
    assert content == submission(kept, [4, 9, 11], 17, "person_keypoints_test-dev2017_x_results.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 5}, r"result 0 is of image 5, which the evaluated part does not have"),
        ({"keypoints": [1.0] * 42}, r"51 finite numbers in keypoints"),
        ({"score": float("nan")}, r"51 finite numbers in keypoints"),
        ({"category_id": 2}, r"needs category_id 1"),
        ({"bbox": []}, r"needs image_id, category_id, keypoints, score"),
    ],
)
def test_results_of_another_form_are_no_submission(change: dict[str, Any], message: str) -> None:
    kept = results([boxes()], Rules(COCO))
    with pytest.raises(DataError, match=message):
        submission([{**kept[0], **change}], [4, 9], 17, "x.json")


def test_more_results_than_are_looked_at_are_no_submission() -> None:
    many = [pose(4, np.full((17, 2), float(i)), 0.5) for i in range(scores.MOST_POSES + 1)]
    check_results(many[:-1], [4], 17)
    with pytest.raises(DataError, match="image 4 has more than 20 results"):
        check_results(many, [4], 17)
