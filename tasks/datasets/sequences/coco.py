"""Reads the boxes of COCO's instances, by image: those of single objects, with an area."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tasks.datasets.coco_json import read_json
from tasks.datasets.files import plain
from tasks.datasets.sequences.opened import Objects
from tasks.errors import DataError


def known_objects(path: Path, images: str, name: str) -> Objects:
    """As `read_objects`; a file that did not change is read once in a process: COCO's has 450 MB."""
    stat = path.stat()
    return _read_version(path, images, name, stat.st_mtime_ns, stat.st_size, stat.st_ino)


@lru_cache(maxsize=2)
def _read_version(path: Path, images: str, name: str, *version: int) -> Objects:
    return read_objects(path, images, name)


def read_objects(path: Path, images: str, name: str) -> Objects:
    """The objects of an annotation file (instances_train2017.json), in the order of its images; images without any are
    left out, and so are groups in one box (`iscrowd`), as in SwinTrack's reader.

    `images`: folder of the images, below that of the data set. Raises DataError naming data set, file and entry.
    """
    content = read_json(path, name)
    try:
        files = {int(entry["id"]): _image(entry) for entry in content["images"]}
        if len(files) < len(content["images"]):
            raise ValueError("two images have one id")
        found = [row for entry in content["annotations"] if (row := _object(entry, files)) is not None]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{name}: {path}: {reason}; this needs instances as COCO 2017 publishes them") from error
    if not found:
        raise DataError(f"{name}: {path} has no object with a box; this needs instances_train2017.json")
    order = {number: place for place, number in enumerate(files)}
    places = np.array([order[number] for number, _ in found])
    rows = np.argsort(places, kind="stable")
    shown, counts = np.unique(places, return_counts=True)
    names = list(files.values())
    return Objects(
        [plain(f"{images}/{names[place]}") for place in shown.tolist()],
        np.cumsum([0, *counts.tolist()], dtype=np.int64),
        np.array([found[row][1] for row in rows.tolist()], dtype=np.float64),
    )


def _image(entry: Mapping[str, Any]) -> str:
    return plain(str(entry["file_name"]))


def _object(entry: Mapping[str, Any], files: Mapping[int, str]) -> tuple[int, list[float]] | None:
    """Image and box; None for a group of objects, and for a box without area."""
    box, image = [float(value) for value in entry["bbox"]], int(entry["image_id"])
    if len(box) != 4 or not np.isfinite(box).all():
        raise ValueError(f"annotation {entry['id']}: bbox {entry['bbox']} is no x, y, width and height")
    if image not in files:
        raise ValueError(f"annotation {entry['id']} is of image {image}, which the list of images lacks")
    return None if entry.get("iscrowd", 0) or min(box[2:]) <= 0 else (image, box)
