"""Writes small sets of objects in the layout of COCO 2017, and the smallest trials of detection on them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from shared_folders import shared_folder

from tasks.detection.task import Detection
from workers.trial import TrialSpec

HEIGHT, WIDTH = 100, 128
IMAGES = {"train": 15, "val": 9, "test": 5}
EMPTY = 1
"""Position of an image in each part that shows nothing."""
CATEGORIES = {2: "disc", 5: "square", 9: "bar"}
"""Ids have gaps."""
SIDES = (24, 50, 97)
"""Pixels of objects: small, medium and large by COCO's areas."""
SWIN: dict[str, Any] = {
    "model": "swinv2_tiny_window8_256", "image_size": 64,
    "args": {"patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
}  # fmt: skip
SMALL: dict[str, Any] = {
    "channels": 8, "anchor_scale": 4, "anchors": 32, "proposals_per_level": 60, "proposals": 30, "regions": 16,
    "box_channels": 16, "mask_channels": 8,
}  # fmt: skip


def annotated(part: str, images: int) -> dict[str, Any]:
    """The content of an annotation file. The same for the same arguments. Every fourth object is a crowd region."""
    rng = np.random.default_rng([len(part), images])
    start = {"train": 100, "val": 200, "test": 300}[part]
    entries, objects = [], list[dict[str, Any]]()
    for number in range(images):
        entries.append(
            {"id": start + number, "file_name": f"{start + number:012d}.png", "height": HEIGHT, "width": WIDTH}
        )
        for place in range(0 if number == EMPTY else 3):
            side = SIDES[(number + place) % 3]
            x, y = rng.uniform(0, WIDTH - side), rng.uniform(0, HEIGHT - side)
            category = list(CATEGORIES)[(number + 2 * place) % 3]
            high = side / 2 if category == 9 else side
            corners = [x, y, x + side, y, x + side, y + high, x, y + high]
            crowd = int(place == 2 and number % 4 == 3)
            objects.append({
                "id": 1000 * start + len(objects), "image_id": start + number, "category_id": category,
                "bbox": [round(float(v), 2) for v in (x, y, side, high)], "area": float(side * high), "iscrowd": crowd,
                "segmentation": _runs(x, y, side, high) if crowd else [[round(float(v), 2) for v in corners]],
            })  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
    return {"images": entries, "annotations": objects, "categories": categories}


def _runs(x: float, y: float, wide: float, high: float) -> dict[str, Any]:
    """COCO's code of a rectangle, as numbers, which crowd regions have."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[int(y) : int(y + high), int(x) : int(x + wide)] = True
    changes = np.flatnonzero(np.diff(mask.ravel(order="F").astype(np.int8))) + 1
    return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *changes.tolist(), mask.size]).tolist()}


def write(base: Path) -> Path:
    """A folder as COCO 2017's; images show each object in the colour of its category."""
    from PIL import Image, ImageDraw

    for part, images in IMAGES.items():
        content = annotated(part, images)
        (base / "annotations").mkdir(parents=True, exist_ok=True)
        (base / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))
        (base / f"{part}2017").mkdir(exist_ok=True)
        for entry in content["images"]:
            picture = Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90))
            pen = ImageDraw.Draw(picture)
            pen.point((entry["id"] % WIDTH, 0), fill="white")  # no two images are alike
            for each in content["annotations"]:
                if each["image_id"] == entry["id"]:
                    x, y, wide, high = each["bbox"]
                    colour = {2: "red", 5: "blue", 9: "yellow"}[each["category_id"]]
                    pen.rectangle((x, y, x + wide, y + high), fill=colour)
            picture.save(base / f"{part}2017" / entry["file_name"])
    return base


@functools.cache
def shared_tree() -> Path:
    """One tree for all tests of a process, which none changes."""
    return write(shared_folder("objects"))


def described(**fields: Any) -> dict[str, Any]:
    """The task on the shared tree."""
    dataset = {"kind": "coco", "path": str(shared_tree())}
    return {"kind": "detection", "dataset": dataset, "detector": SMALL, "augment": {"scale": [0.8, 1.2]}, **fields}


def detection() -> Detection:
    """The same, as it is planned: the sizes of described data are read from them."""
    fields = described()
    return Detection.model_validate(
        {**fields, "sizes": Detection.model_validate(fields).planned_fields(Path())["sizes"]}
    )


def detection_trial(
    task: dict[str, Any] | None = None, backbone: dict[str, Any] | None = None, may_test: bool = False, **other: Any
) -> TrialSpec:
    """One epoch in batches of 6, as planned, unless `other` says otherwise. `task`: all its fields."""
    fields = task or described()
    planned = Detection.model_validate(fields).planned_fields(Path())
    optim = {"lr": 1e-3, "batch": 6, "epochs": 1, "warmup_epochs": 0, "clip": 0, **other.pop("optim", {})}
    return TrialSpec.model_validate({
        "task": {**fields, **planned}, "backbone": {**SWIN, **(backbone or {})}, "optim": optim, "may_test": may_test,
        **other,
    })  # fmt: skip
