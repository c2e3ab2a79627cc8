"""Seconds of COCO's evaluation of boxes and masks: ours against pycocotools, on the same detections."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from sides.turns import in_turns, row

from tasks.detection.evaluation import Found, figures_of
from tasks.detection.figures import METRICS
from tasks.detection.masks import encoded

SIZE, CLASSES, OBJECTS, DETECTIONS = (480, 640), 80, 7, 20
"""Height and width; objects and detections of an image."""


def _rectangle(box: list[int]) -> bytes:
    x, y, width, height = box
    return encoded(np.ones((height, width), bool), y, x, SIZE)


def data(images: int) -> tuple[list[Found], dict[str, Any]]:
    """Objects, and detections that are more or less far from them, or false."""
    random = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    found = []
    for image in range(1, images + 1):
        sides = np.exp(random.uniform(np.log(12), np.log(200), (OBJECTS, 2))).astype(int)
        places = (random.random((OBJECTS, 2)) * (np.array(SIZE[::-1]) - sides)).astype(int)
        boxes = np.concatenate([places, sides], 1)
        labels = random.integers(1, CLASSES + 1, OBJECTS)
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "category_id": label, "bbox": box, "iscrowd": 0,
                "area": box[2] * box[3], "segmentation": {"size": list(SIZE), "counts": _rectangle(box)},
            })  # fmt: skip
        of = random.integers(0, OBJECTS, DETECTIONS)
        near = boxes[of] + (random.normal(0, 0.15, (DETECTIONS, 4)) * np.tile(sides[of], 2)).astype(int)
        near[:, :2] = near[:, :2].clip(0, np.array(SIZE[::-1]) - 8)
        near[:, 2:] = near[:, 2:].clip(4, np.array(SIZE[::-1]) - near[:, :2])
        wrong = random.random(DETECTIONS) < 0.3
        ids = np.where(wrong, random.integers(1, CLASSES + 1, DETECTIONS), labels[of])
        scores = np.sort(random.random(DETECTIONS))[::-1]
        found.append(Found(image, SIZE, near.astype(float), scores, ids, [_rectangle(box) for box in near.tolist()]))
    known = [{"id": number, "height": SIZE[0], "width": SIZE[1]} for number in range(1, images + 1)]
    categories = [{"id": number, "name": f"class {number}"} for number in range(1, CLASSES + 1)]
    return found, {"info": {}, "images": known, "annotations": annotations, "categories": categories}


def by_pycocotools(found: list[Found], truth: dict[str, Any]) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    stats: list[float] = []
    with contextlib.redirect_stdout(io.StringIO()):
        wanted = COCO()
        wanted.dataset = {**truth, "annotations": [dict(each) for each in truth["annotations"]]}
        wanted.createIndex()
        for kind, iou in (("box", "bbox"), ("mask", "segm")):
            rows = [entry for each in found for entry in each.rows(kind)]  # type: ignore[arg-type]
            evaluator = COCOeval(wanted, wanted.loadRes(rows), iou)
            evaluator.evaluate()
            evaluator.accumulate()
            evaluator.summarize()
            stats += [float(value) for value in evaluator.stats]
    return stats


def compare(images: int, rounds: int) -> dict[str, Any]:
    """Stops if any of the 24 figures differs."""
    found, truth = data(images)
    sides = {"ours": lambda: figures_of(found, truth)[0], "pycocotools": lambda: by_pycocotools(found, truth)}
    seconds, given = in_turns(sides, rounds)
    ours = [given["ours"][metric.name] for metric in METRICS]
    if not np.allclose(ours, given["pycocotools"], atol=1e-9):
        raise SystemExit(f"figures differ: {ours} and {given['pycocotools']}")
    made = row("evaluation", "seconds of COCO's evaluation of boxes and masks", seconds, None, "at most 1.0")
    return {**made, "images": images, "detections": DETECTIONS, "figures": given["ours"]}
