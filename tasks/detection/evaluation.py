"""From what is found in images to COCO's figures of boxes and masks, over all classes and for each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.detection.figures import IOU, Kind
from tasks.metrics import Measurement

log = logging.getLogger(__name__)

SIZES = ("all", "small", "medium", "large")
"""Of objects, by their area: below 32 x 32 pixels, below 96 x 96, and above."""


@dataclass(frozen=True)
class Found:
    """What is found in one image, best first."""

    image_id: int
    size: tuple[int, int]
    """Height and width of the image in pixels."""
    boxes: NDArray[np.float64]
    """(k, 4): x, y, width and height in pixels of the image."""
    scores: NDArray[np.float64]
    """(k,)"""
    category_ids: NDArray[np.int64]
    """(k,)"""
    masks: Sequence[bytes]
    """COCO's compressed RLE of each."""

    def rows(self, kind: Kind) -> Iterator[dict[str, Any]]:
        """Results in COCO's form. Those of masks have no box, so that their area is the mask's, as COCO defines it."""
        for row, (score, category) in enumerate(zip(self.scores.tolist(), self.category_ids.tolist(), strict=True)):
            entry = {"image_id": self.image_id, "category_id": category, "score": score}
            if kind == "box":
                yield {**entry, "bbox": self.boxes[row].tolist()}
            else:
                yield {**entry, "segmentation": {"size": list(self.size), "counts": self.masks[row]}}


def figures_of(found: Sequence[Found], truth: Mapping[str, Any]) -> tuple[dict[str, float], list[Measurement]]:
    """COCO's figures, fractions by name (see METRICS), and the AP of each class, as `ap_box` and `ap_mask`.

    `truth`: `images`, `annotations` and `categories` in COCO's form. By faster-coco-eval, which follows the official
    evaluator. A figure over objects of which there are none (the evaluator prints -1) is left out.
    """
    figures, rows = dict[str, float](), list[Measurement]()
    for kind in IOU:
        precision, recall = _accumulated(found, truth, kind)
        known = {f"{name}_{kind}": value for name, value in _named(precision, recall).items()}
        figures |= {name: value for name, value in known.items() if not np.isnan(value)}
        for place, category in enumerate(truth["categories"]):
            value = _mean(precision[:, :, place, 0, -1])
            if not np.isnan(value):
                rows.append(Measurement(f"ap_{kind}", value, item=str(category["name"])))
    return figures, rows


def _named(precision: Any, recall: Any) -> dict[str, float]:
    """Of precision (accuracy, recall, class, size, most) and recall (accuracy, class, size, most)."""
    of_all = precision[:, :, :, 0, -1]
    named = {"ap": _mean(of_all), "ap50": _mean(of_all[0]), "ap75": _mean(of_all[5])}
    for place, most in enumerate((1, 10, 100)):
        named[f"ar{most}"] = _mean(recall[:, :, 0, place])
    for place, size in enumerate(SIZES[1:], start=1):
        named[f"ap{size[0]}"] = _mean(precision[:, :, :, place, -1])
        named[f"ar{size[0]}"] = _mean(recall[:, :, place, -1])
    return named


def _mean(values: Any) -> float:
    """nan where there is nothing to measure, which the evaluator marks by -1."""
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


def _accumulated(found: Sequence[Found], truth: Mapping[str, Any], kind: Kind) -> tuple[Any, Any]:
    from faster_coco_eval import COCO, COCOeval_faster

    wanted = COCO(dict(truth))
    got = wanted.loadRes([row for each in found for row in each.rows(kind)])
    evaluator = COCOeval_faster(wanted, got, iouType=IOU[kind], print_function=log.debug)
    evaluator.params.imgIds = [image["id"] for image in truth["images"]]
    evaluator.params.catIds = [category["id"] for category in truth["categories"]]
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator.eval["precision"], evaluator.eval["recall"]


def together(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The truth of all images from that of parts: `truth`, a list of {image, annotations}, and `categories`."""
    images, annotations, categories = list[Any](), list[Any](), list[Any]()
    for part in parts:
        categories = part["categories"]
        for each in part["truth"]:
            images.append(each["image"])
            annotations += each["annotations"]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}
