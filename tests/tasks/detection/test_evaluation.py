"""COCO's figures of boxes and masks: their conventions, classes with gaps in their ids, objects of every size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from object_trees import CATEGORIES, annotated

from tasks.detection.evaluation import Found, figures_of, together
from tasks.detection.figures import METRICS
from tasks.detection.masks import encoded

SIZE = (100, 128)


def truth() -> dict[str, Any]:
    """The annotations of a small set, with masks as RLE."""
    from faster_coco_eval.core import mask

    content = annotated("val", 9)
    for each in content["annotations"]:
        segmentation = each["segmentation"]
        code = mask.frPyObjects(segmentation, *SIZE)
        each["segmentation"] = mask.merge(code) if isinstance(code, list) else code
    return content


def perfect(content: dict[str, Any]) -> list[Found]:
    found = []
    for image in content["images"]:
        objects = [a for a in content["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        found.append(Found(
            image["id"], SIZE, np.array([a["bbox"] for a in objects], dtype=float).reshape(-1, 4),
            np.linspace(0.9, 0.8, len(objects)), np.array([a["category_id"] for a in objects], dtype=np.int64),
            [bytes(a["segmentation"]["counts"]) for a in objects],
        ))  # fmt: skip
    return found


def test_what_is_annotated_is_found() -> None:
    content = truth()
    figures, rows = figures_of(perfect(content), content)
    assert figures == {metric.name: pytest.approx(1) for metric in METRICS}
    assert {(row.figure, row.item): row.value for row in rows} == {
        (f"ap_{kind}", name): pytest.approx(1) for kind in ("box", "mask") for name in CATEGORIES.values()
    }


def one(
    box: tuple[float, ...], score: float = 0.9, category: int = 2, mask: tuple[int, int, int, int] | None = None
) -> Found:
    left, top, right, bottom = mask or (round(box[0]), round(box[1]), round(box[0] + box[2]), round(box[1] + box[3]))
    code = encoded(np.ones((bottom - top, right - left), bool), top, left, SIZE)
    return Found(7, SIZE, np.array([box]), np.array([score]), np.array([category]), [code])


def image_with(*objects: dict[str, Any]) -> dict[str, Any]:
    entries = []
    for number, each in enumerate(objects, 1):
        x, y, wide, high = each["bbox"]
        code = encoded(np.ones((high, wide), bool), y, x, SIZE)
        entries.append({
            "id": number, "image_id": 7, "category_id": 2, "iscrowd": 0, "area": wide * high,
            "segmentation": {"size": list(SIZE), "counts": code}, **each,
        })  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
    return {
        "images": [{"id": 7, "height": SIZE[0], "width": SIZE[1]}],
        "annotations": entries,
        "categories": categories,
    }


def test_a_shifted_box_counts_up_to_its_iou() -> None:
    """IoU 0.6: found at 0.5, 0.55 and 0.6 of the ten thresholds, for the box and for the mask."""
    content = image_with({"bbox": [10, 10, 40, 20]})
    figures, _ = figures_of([one((10, 10, 40, 20), mask=(20, 10, 60, 30))], content)
    assert figures["ap_box"] == pytest.approx(1)
    assert (figures["ap_mask"], figures["ap50_mask"]) == (pytest.approx(0.3), pytest.approx(1))
    assert "ap75_mask" in figures
    assert figures["ap75_mask"] == 0


def test_figures_over_nothing_are_left_out() -> None:
    figures, rows = figures_of([one((10, 10, 40, 20))], image_with({"bbox": [10, 10, 40, 20]}))
    assert "aps_box" in figures
    assert not {"apm_box", "apl_box", "arm_mask", "arl_mask"} & set(figures)
    assert {row.item for row in rows} == {"disc"}


def test_the_size_of_a_found_mask_is_its_area_and_not_that_of_its_box() -> None:
    """COCO leaves unmatched detections of another size out. This one's box has 1,200 pixels (medium), its mask 600."""
    content = image_with({"bbox": [60, 60, 30, 20]})
    figures, _ = figures_of([one((10, 10, 40, 30), 0.95, mask=(10, 10, 30, 40)), one((60, 60, 30, 20), 0.9)], content)
    assert figures["aps_box"] == pytest.approx(1)  # the false box is medium: it does not count among small ones
    assert figures["aps_mask"] == pytest.approx(0.5)


def test_a_crowd_region_is_neither_found_nor_missed() -> None:
    content = image_with({"bbox": [60, 60, 30, 20]}, {"bbox": [0, 0, 50, 50], "iscrowd": 1})
    found = [one((5, 5, 20, 20), 0.95), one((20, 20, 20, 20), 0.94), one((60, 60, 30, 20), 0.9)]
    figures, _ = figures_of(found, content)
    assert figures["ap_box"] == figures["ap_mask"] == pytest.approx(1)


def test_nothing_found_is_zero() -> None:
    figures, _ = figures_of(
        [Found(7, SIZE, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), [])], image_with({"bbox": [1, 1, 9, 9]})
    )
    assert figures["ap_box"] == figures["ar100_mask"] == 0


def test_the_truth_of_parts_is_put_together() -> None:
    content = truth()
    by_image = [
        {"image": image, "annotations": [a for a in content["annotations"] if a["image_id"] == image["id"]]}
        for image in content["images"]
    ]
    parts = [
        {"truth": by_image[:4], "categories": content["categories"]},
        {"truth": by_image[4:], "categories": content["categories"]},
    ]
    whole = together(parts)
    assert {name: whole[name] for name in ("images", "annotations", "categories")} == content
