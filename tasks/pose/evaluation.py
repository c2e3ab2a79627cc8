"""From the poses of all boxes to results, to COCO's and CrowdPose's figures, and to the file of a submission."""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.errors import DataError
from tasks.metrics import Measurement
from tasks.pose import scores
from tasks.pose.joints import Skeleton
from tasks.pose.scores import Floats

log = logging.getLogger(__name__)

Truth = Mapping[str, Any]
"""What annotations say of one image, see `loaders.truth`."""
Result = dict[str, Any]
"""One pose in COCO's form: image_id, category_id, keypoints (x, y, score of each joint), score."""
PERSON = 1
EASY, HARD = 0.2, 0.8
"""Crowd indices below which an image is easy, and from which it is hard: the official evaluator's. (Its paper says 0.1
and 0.8.)"""
SUBMISSION = "person_keypoints_test-dev2017_pose_results"
"""Name of the file for COCO's server, which asks for person_keypoints_[test set]_[algorithm]_results; the algorithm is
called `pose`."""
DECIMALS = {"places": 2, "scores": 6}
"""Of pixels and scores in a submission: all digits of test-dev's poses would fill some 300 MB; COCO recommends tenths
of a pixel."""
_ACCURACIES = {"ap50": 0.5, "ap75": 0.75}


@dataclass(frozen=True)
class Rules:
    """How poses are scored and chosen."""

    skeleton: Skeleton
    oks_limit: float = scores.OKS_LIMIT
    least_joint_score: float = scores.LEAST_JOINT_SCORE
    crowd: bool = False
    """CrowdPose's evaluator instead of COCO's."""


def results(parts: Sequence[Mapping[str, Any]], rules: Rules) -> list[Result]:
    """The poses that are kept of each image, best first, in the order in which images come.

    `parts`: for boxes of one or more images `image_ids` (n,), `scores` (n,) and `areas` (n,) of boxes, `places`
    (n, k, 2) in pixels of the photograph, and `joint_scores` (n, k).
    """
    names = ("image_ids", "scores", "areas", "places", "joint_scores")
    ids, box_scores, areas, places, joint_scores = (np.concatenate([part[name] for part in parts]) for name in names)
    values = scores.pose_scores(box_scores, joint_scores, rules.least_joint_score)
    kept: list[Result] = []
    by_image = np.argsort(ids, kind="stable")
    starts = np.flatnonzero(np.diff(ids[by_image], prepend=-1))
    for rows in np.split(by_image, starts[1:]):
        chosen = scores.oks_nms(places[rows], values[rows], areas[rows], rules.skeleton.sigmas, rules.oks_limit)
        kept += [_result(ids[i], places[i], joint_scores[i], values[i]) for i in rows[chosen]]
    return kept


def _result(image: Any, places: Floats, joint_scores: Floats, score: Any) -> Result:
    joints = np.concatenate([places, joint_scores[:, None]], 1)
    return {"image_id": int(image), "category_id": PERSON, "keypoints": joints.ravel().tolist(), "score": float(score)}


def average_precision(found: Sequence[Result], truth: Iterable[Truth], rules: Rules) -> dict[str, float]:
    """COCO's ap, ap50, ap75, apm, apl, ar; or CrowdPose's ap, ap50, ap75, ap_easy, ap_medium, ap_hard. Fractions.

    By faster-coco-eval, which follows the official evaluators. A figure over persons or images of which there are none
    (the evaluators print -1) is left out: so apl of scene-people, always. COCO calls a person large from 96 x 96 pixels
    of the image on that show it, and no figure of the generated images, at most 115 pixels high, covers so many.
    """
    truth = list(truth)
    if not rules.crowd:
        precision, recall = _accumulated(found, truth, rules)
        figures = {**_figures(precision), "apm": _mean(precision[:, :, :, 1]), "apl": _mean(precision[:, :, :, 2])}
        return _there({**figures, "ar": _mean(recall[:, :, 0])})
    figures = _figures(_accumulated(found, truth, rules)[0])
    for name, low, high in (("easy", -np.inf, EASY), ("medium", EASY, HARD), ("hard", HARD, np.inf)):
        images = [each for each in truth if low <= _crowd_index(each) < high]
        if images:
            ids = {each["id"] for each in images}
            of_these = [each for each in found if each["image_id"] in ids]
            figures[f"ap_{name}"] = _mean(_accumulated(of_these, images, rules)[0][:, :, :, 0])
    return _there(figures)


def _crowd_index(image: Truth) -> float:
    index = image["crowd_index"]
    if index is None:
        raise DataError(
            f"image {image['id']} has no crowdIndex, which CrowdPose's easy, medium and hard need: set "
            "task.evaluator: coco, or take annotations that have it"
        )
    return float(index)


def _figures(precision: Any) -> dict[str, float]:
    levels = np.linspace(0.5, 0.95, 10)
    at = {name: precision[np.flatnonzero(np.isclose(levels, level)), :, :, 0] for name, level in _ACCURACIES.items()}
    return {"ap": _mean(precision[:, :, :, 0]), **{name: _mean(values) for name, values in at.items()}}


def _mean(values: Any) -> float:
    """nan where there is nothing to measure, which the evaluators mark by -1."""
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


def _there(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if not np.isnan(value)}


def _accumulated(found: Sequence[Result], truth: Sequence[Truth], rules: Rules) -> tuple[Any, Any]:
    """Precision (accuracy, recall, category, size, 1) and recall (accuracy, category, size, 1)."""
    from faster_coco_eval import COCO, COCOeval_faster

    annotations = [
        {**person, "image_id": image["id"], "category_id": PERSON, "id": number}
        for number, (image, person) in enumerate(
            ((image, person) for image in truth for person in image["persons"] or ()), start=1
        )
    ]
    categories = [{"id": PERSON, "name": "person"}]
    images = [{"id": image["id"]} for image in truth]
    wanted = COCO({"images": images, "annotations": annotations, "categories": categories})
    got = wanted.loadRes([dict(each) for each in found])
    evaluator = COCOeval_faster(
        wanted, got, iouType="keypoints_crowd" if rules.crowd else "keypoints", print_function=log.debug,
        kpt_oks_sigmas=list(rules.skeleton.sigmas), use_area=not rules.crowd,
    )  # fmt: skip
    evaluator.params.catIds = [PERSON]
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator.eval["precision"][..., 0], evaluator.eval["recall"][..., 0]


def similarities(found: Iterable[Result], truth: Iterable[Truth], rules: Rules) -> list[Measurement]:
    """`oks` of each image with a labelled person: the mean over its persons of the OKS with the pose that is most like
    them, 0 without a pose. A pose may be the most like several persons."""
    by_image: dict[int, list[Floats]] = {}
    for each in found:
        by_image.setdefault(each["image_id"], []).append(np.array(each["keypoints"]).reshape(-1, 3)[:, :2])
    rows = []
    for image in truth:
        persons = [p for p in image["persons"] or () if p["num_keypoints"] and not p["iscrowd"]]
        if not persons:
            continue
        poses = np.stack(by_image[image["id"]]) if image["id"] in by_image else None
        values = [0.0 if poses is None else _best(poses, person, rules) for person in persons]
        rows.append(Measurement("oks", float(np.mean(values)), item=str(image["id"])))
    return rows


def _best(poses: Floats, person: Mapping[str, Any], rules: Rules) -> float:
    joints = np.array(person["keypoints"]).reshape(-1, 3)
    area = scores.CROWD_AREA * person["bbox"][2] * person["bbox"][3] if rules.crowd else person["area"]
    alike = scores.oks(poses, joints[:, :2], np.full(len(poses), area), rules.skeleton.sigmas, joints[:, 2])
    return float(alike.max())


def submission(found: Sequence[Result], images: Iterable[int], joints: int, name: str) -> bytes:
    """A zip file with the results, rounded, as one JSON file `name`, as COCO's server takes them. Raises DataError."""
    check_results(found, images, joints)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(name)  # with a fixed date, so that equal results give equal files
        entry.compress_type = zipfile.ZIP_DEFLATED
        rounded = [_rounded(each) for each in found]
        archive.writestr(entry, json.dumps(rounded, separators=(",", ":"), allow_nan=False))
    return content.getvalue()


def _rounded(result: Result) -> Result:
    decimals = (DECIMALS["places"], DECIMALS["places"], DECIMALS["scores"])
    joints = [round(value, decimals[place % 3]) for place, value in enumerate(result["keypoints"])]
    return {**result, "keypoints": joints, "score": round(result["score"], DECIMALS["scores"])}


def check_results(found: Any, images: Iterable[int], joints: int) -> None:
    """Compares results with the published format (cocodataset.org, format of results, keypoint detection): a list of
    {image_id, category_id, keypoints, score}, at most 20 of an image. Raises DataError with the first fault."""
    known, counts = set(images), dict[int, int]()
    for number, each in enumerate(found):
        if set(each) != {"image_id", "category_id", "keypoints", "score"}:
            raise DataError(
                f"result {number} has the fields {sorted(each)}; needs image_id, category_id, keypoints, score"
            )
        if each["image_id"] not in known:
            raise DataError(f"result {number} is of image {each['image_id']}, which the evaluated part does not have")
        numbers = [*each["keypoints"], each["score"]]
        if len(numbers) != 3 * joints + 1 or each["category_id"] != PERSON or not np.isfinite(numbers).all():
            raise DataError(
                f"result {number}: needs category_id {PERSON}, and {3 * joints} finite numbers in keypoints"
            )
        counts[each["image_id"]] = counts.get(each["image_id"], 0) + 1
        if counts[each["image_id"]] > scores.MOST_POSES:
            raise DataError(f"image {each['image_id']} has more than {scores.MOST_POSES} results")
