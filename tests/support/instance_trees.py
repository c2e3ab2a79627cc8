"""Writes small data sets of objects in the published layout of COCO 2017's instances."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
CATEGORIES = {1: "person", 18: "dog", 90: "toothbrush"}
"""Ids with gaps, as COCO's."""
IMAGES = {"train": 6, "val": 4, "test": 3}
EMPTY = 1
"""Position of an image in each part that shows no object."""


def annotations(part: str, images: int, suffix: str = "jpg") -> dict[str, Any]:
    """The content of an annotation file: in each image a box-shaped polygon, an object of two polygons, and in the
    first a crowd region as uncompressed RLE. Categories are not in the order of their ids, and annotations not in that
    of images, as in COCO."""
    start = {"train": 100, "val": 200, "test": 300}[part]
    entries, objects = [], []
    for number in range(images):
        image = start + number
        entries.append({"id": image, "file_name": f"{image:012d}.{suffix}", "height": HEIGHT, "width": WIDTH})
        if number == EMPTY:
            continue
        x, y = 4.0 + number, 6.5
        square = [x, y, x + 20, y, x + 20, y + 10, x, y + 10]
        objects.append(entry(image, 18, [x, y, 20, 10], [square], 200.0))
        legs = [[40.0, 20, 44, 20, 44, 40, 40, 40], [50.0, 20, 54, 20, 54, 40, 50, 40]]
        objects.append(entry(image, 90, [40.0, 20, 14, 20], legs, 160.0))
    runs = [10 * HEIGHT, 30, HEIGHT * WIDTH - 10 * HEIGHT - 30]
    crowd = entry(start, 1, [10, 0, 1, 30], {"size": [HEIGHT, WIDTH], "counts": runs}, 30, iscrowd=1)
    objects.append(crowd)
    numbered = [{"id": 900 + number, **each} for number, each in enumerate(objects)]
    categories = [{"id": number, "name": name} for number, name in reversed(CATEGORIES.items())]
    return {"images": entries, "annotations": numbered[::-1], "categories": categories}


def entry(image: int, category: int, box: list[float], segmentation: Any, area: float, **more: Any) -> dict[str, Any]:
    return {
        "image_id": image, "category_id": category, "bbox": box, "segmentation": segmentation, "area": area,
        "iscrowd": 0, **more,
    }  # fmt: skip


def write_coco(base: Path, images: Mapping[str, int] = IMAGES, suffix: str = "jpg") -> Path:
    """COCO 2017's layout, with test too."""
    for part, count in images.items():
        content = annotations(part, count, suffix)
        write_annotations(base, part, content)
        folder = base / f"{part}2017"
        folder.mkdir(parents=True, exist_ok=True)
        for each in content["images"]:
            pixels = np.random.default_rng(each["id"]).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(pixels).save(folder / each["file_name"])
    return base


def write_annotations(base: Path, part: str, content: Any) -> Path:
    path = base / "annotations" / f"instances_{part}2017.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
