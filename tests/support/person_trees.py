"""Writes small data sets of persons in the published layouts of COCO 2017 and CrowdPose."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from shared_folders import shared_folder

from tasks.datasets.persons.described import CocoDescription
from tasks.datasets.persons.task_data import PoseData

SIDE = 96
IMAGES = {"train": 14, "val": 8, "test": 5}
CATEGORY = {"coco": ("person", 17), "crowdpose": ("person", 14)}
EMPTY = 1
"""Position of an image in each part that shows nobody."""
TRAIN = "annotations/person_keypoints_train2017.json"
VAL = "annotations/person_keypoints_val2017.json"
BOXES = "person_detection_results/val2017_detections.json"
"""Files of a tree in COCO's layout."""


def data(base: Path, **options: Any) -> PoseData:
    """The data of a task on a tree in COCO's layout: detected boxes, unless the options say otherwise."""
    whole = CocoDescription.model_validate({"kind": "coco", "path": str(base)})
    chosen = {"train": "train", "evaluate": "val", "boxes": "detections", "boxes_file": None}
    return PoseData.of(whole, {**chosen, **options})


def person(rng: np.random.Generator, number: int, image: int, joints: int, area: bool) -> dict[str, Any]:
    """An annotation: joints within a box, a few of them not labelled."""
    width, height = rng.uniform(24, 60, 2)
    x, y = rng.uniform(0, SIDE - width), rng.uniform(0, SIDE - height)
    places = np.stack([rng.uniform(x, x + width, joints), rng.uniform(y, y + height, joints)], 1).round(2)
    seen = rng.choice([0, 1, 2], joints, p=[0.1, 0.2, 0.7])
    seen[0] = 2
    places[seen == 0] = 0
    entry = {
        "id": number, "image_id": image, "category_id": 1, "iscrowd": 0,
        "bbox": [round(float(v), 2) for v in (x, y, width, height)],
        "keypoints": np.column_stack([places, seen]).ravel().tolist(),
        "num_keypoints": int((seen > 0).sum()),
    }  # fmt: skip
    if area:  # large and medium persons in COCO's sense, whatever the size of these images
        entry["area"] = 10_000.0 if number % 2 else 2_000.0
    return entry


def annotations(part: str, kind: str, images: int, suffix: str = "png") -> dict[str, Any]:
    """The content of an annotation file. The same for the same arguments."""
    rng = np.random.default_rng([len(part), images, len(kind)])
    start = {"train": 100, "val": 200, "test": 300}[part]
    entries, persons = [], []
    for number in range(images):
        entry = {"id": start + number, "file_name": f"{start + number:012d}.{suffix}", "height": SIDE, "width": SIDE}
        entries.append({**entry, "crowdIndex": round(number / max(images - 1, 1), 2)})
        for _ in range(0 if number == EMPTY else 3):
            persons.append(person(rng, 1000 * start + len(persons), start + number, CATEGORY[kind][1], kind == "coco"))
    name, joints = CATEGORY[kind]
    category = {"id": 1, "name": name, "keypoints": [f"joint{j}" for j in range(joints)], "skeleton": []}
    return {"images": entries, "annotations": persons, "categories": [category]}


def detections(content: Mapping[str, Any], seed: int = 0) -> list[dict[str, Any]]:
    """Boxes near the annotated ones, with scores, in the published form; one of another category."""
    rng = np.random.default_rng(seed)
    found = [
        {
            "image_id": each["image_id"], "category_id": 1, "score": round(float(rng.uniform(0.3, 1)), 3),
            "bbox": [round(float(v), 2) for v in np.array(each["bbox"]) + rng.normal(0, 2, 4)],
        }
        for each in content["annotations"]
    ]  # fmt: skip
    return [*found, {**found[0], "category_id": 3}]


def paint(folder: Path, content: Mapping[str, Any]) -> None:
    """Noise with a bright spot at each labelled joint, as files of the images."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for entry in content["images"]:
        rng = np.random.default_rng(entry["id"])
        pixels = rng.integers(40, 120, (SIDE, SIDE, 3)).astype(np.uint8)
        for each in content["annotations"]:
            if each["image_id"] == entry["id"]:
                for x, y, seen in np.array(each["keypoints"]).reshape(-1, 3):
                    row, column = int(y), int(x)
                    pixels[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 255 if seen else 60
        Image.fromarray(pixels).save(folder / entry["file_name"])


def changed(path: Path, change: Callable[[Any], Any]) -> None:
    """Writes a JSON file again, changed in place or as `change` returns it."""
    content = json.loads(path.read_text())
    result = change(content)
    path.write_text(json.dumps(content if result is None else result))


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def coco_tree(base: Path, images: Mapping[str, int] = IMAGES, suffix: str = "png") -> Path:
    """COCO 2017's layout, test labelled."""
    for part, count in images.items():
        content = annotations(part, "coco", count, suffix)
        write(base / "annotations" / f"person_keypoints_{part}2017.json", content)
        write(base / "person_detection_results" / f"{part}2017_detections.json", detections(content))
        paint(base / f"{part}2017", content)
    return base


def published_coco(root: Path) -> Path:
    """coco-keypoints below a data root, JPEG, with the published names; test-dev without labels."""
    base = coco_tree(root / "coco", suffix="jpg")
    results = base / "person_detection_results"
    (results / "val2017_detections.json").rename(results / "COCO_val2017_detections_AP_H_56_person.json")
    (results / "test2017_detections.json").rename(results / "COCO_test-dev2017_detections_AP_H_609_person.json")
    labelled = base / "annotations" / "person_keypoints_test2017.json"
    content = json.loads(labelled.read_text())
    write(
        base / "annotations" / "image_info_test-dev2017.json", {k: v for k, v in content.items() if k != "annotations"}
    )
    labelled.unlink()
    return root


def published_crowdpose(root: Path) -> Path:
    """crowdpose below a data root."""
    for part, count in IMAGES.items():
        content = annotations(part, "crowdpose", count, "jpg")
        write(root / "crowdpose" / "json" / f"crowdpose_{part}.json", content)
        write(
            root / "crowdpose" / "person_detection_results" / f"crowdpose_{part}_detections.json", detections(content)
        )
        paint(root / "crowdpose" / "images", content)
    return root


@functools.cache
def shared_tree() -> Path:
    """A COCO tree that all tests of a run share; none may change it."""
    return coco_tree(shared_folder("persons") / "people")
