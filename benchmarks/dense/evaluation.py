"""Seconds of COCO's evaluation of poses: ours against pycocotools, in turns, on the same persons and poses."""

from __future__ import annotations

import contextlib
import io
import statistics
from typing import Any

import numpy as np
from sides.turns import in_turns

from tasks.pose import evaluation
from tasks.pose.joints import COCO

from . import made

FIGURES = ("ap", "ap50", "ap75", "apm", "apl", "ar")
"""In the order of pycocotools' stats, which have more."""
Persons = list[dict[str, Any]]


def data(boxes: int) -> tuple[list[evaluation.Truth], list[evaluation.Result]]:
    """What annotations say of images with 1 to 5 persons, `boxes` in all, and a pose for each of them, more or less
    far from it."""
    random = np.random.default_rng(0)
    truth: list[dict[str, Any]] = []
    found: list[evaluation.Result] = []
    while len(found) < boxes:
        image = len(truth) + 1
        count = min(int(random.integers(1, 6)), boxes - len(found))
        persons = [made.person(random, len(found) + i + 1, image) for i in range(count)]
        truth.append({"id": image, "crowd_index": None, "persons": persons})
        for person in persons:
            joints = np.array(person["keypoints"]).reshape(-1, 3)
            off = random.normal(0, random.uniform(0.005, 0.1) * person["area"] ** 0.5, (len(joints), 2))
            score = float(random.random())
            places = np.c_[joints[:, :2] + off, random.random(len(joints))].ravel().tolist()
            found.append({"image_id": image, "category_id": 1, "keypoints": places, "score": score})
    return truth, found


def ours(truth: list[evaluation.Truth], found: list[evaluation.Result]) -> list[float]:
    figures = evaluation.average_precision(found, truth, evaluation.Rules(COCO))
    return [figures[name] for name in FIGURES]


def by_pycocotools(truth: list[evaluation.Truth], found: list[evaluation.Result]) -> list[float]:
    from pycocotools.coco import COCO as Annotations
    from pycocotools.cocoeval import COCOeval

    wanted = Annotations()
    wanted.dataset = {
        "images": [{"id": image["id"]} for image in truth],
        "annotations": [dict(person) for image in truth for person in image["persons"]],
        "categories": [{"id": 1, "name": "person"}],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        wanted.createIndex()
        evaluator = COCOeval(wanted, wanted.loadRes([dict(each) for each in found]), "keypoints")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return [float(value) for value in evaluator.stats[: len(FIGURES)]]


def compare(boxes: int, rounds: int) -> dict[str, Any]:
    """Seconds of each (medians), and the ratio of each turn. Time of this process on its processors."""
    truth, found = data(boxes)
    sides = {"ours": lambda: ours(truth, found), "pycocotools": lambda: by_pycocotools(truth, found)}
    seconds, figures = in_turns(sides, rounds)
    if not np.allclose(figures["ours"], figures["pycocotools"], atol=1e-9):
        raise SystemExit(f"figures differ: {figures}")
    ratios = [one / other for one, other in zip(seconds["ours"], seconds["pycocotools"], strict=True)]
    return {
        "part": "coco", "what": "seconds of COCO's evaluation", "boxes": boxes, "images": len(truth), "joints": 17,
        "clock": "processor time", "ours": statistics.median(seconds["ours"]),
        "by_hand": statistics.median(seconds["pycocotools"]), "ratio": statistics.median(ratios), "ratios": ratios,
        "figures": dict(zip(FIGURES, figures["ours"], strict=True)), "aim": "at most 1.0",
    }  # fmt: skip
