"""Reads boxes of persons that a detector found, in the form in which they are published for COCO and CrowdPose."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.coco_json import read_json
from tasks.datasets.persons.annotations import PERSON, Floats, Persons
from tasks.errors import DataError


@dataclass(frozen=True)
class Boxes:
    """Boxes of persons, by image."""

    image_of: NDArray[np.int64]
    """(n,): the position of each box's image in the `Persons` that they were read for, ascending."""
    boxes: Floats
    """(n, 4): x, y, width, height in pixels, as they are written: a detector's boxes are not clipped (public code)."""
    scores: Floats
    """(n,): how sure the detector is."""
    left_out: int = 0
    """Boxes without width or height, which hold no person."""

    @property
    def digest(self) -> str:
        """SHA-256 of all numbers."""
        parts = (self.image_of, self.boxes, self.scores)
        return hashlib.sha256(b"".join(np.asarray(p, dtype=np.float64).tobytes() for p in parts)).hexdigest()


def read_boxes(path: Path, name: str, part: str, persons: Persons) -> Boxes:
    """The boxes of persons in these images: a JSON list of {image_id, category_id, bbox, score}; other categories are
    passed over. Raises DataError, also for boxes of other images: then the file belongs to another data set or part.
    """
    content = read_json(path, name)
    position = {number: i for i, number in enumerate(persons.ids.tolist())}
    try:
        if not isinstance(content, list):
            raise ValueError("no list of boxes as detectors write them")
        rows = [_box(entry) for entry in content if entry["category_id"] == PERSON]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"a box without {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{name}: {path}: {reason}; needs a list of image_id, category_id, bbox and score") from error
    if not rows:
        raise DataError(f"{name}: {path} has no box of a person (category_id {PERSON})")
    strange = [number for number, *_ in rows if number not in position]
    if strange:
        raise DataError(
            f"{name}: {path}: {len(strange):,} of {len(rows):,} boxes are in images that {part} does not have "
            f"(first: image {strange[0]}): these are boxes of another data set or part; set task.boxes_file to those "
            f"of {name} {part}"
        )
    image_of = np.array([position[number] for number, *_ in rows], dtype=np.int64)
    boxes = np.array([box for _, box, _ in rows], dtype=np.float64)
    scores = np.array([score for *_, score in rows], dtype=np.float64)
    kept = np.flatnonzero((boxes[:, 2:] > 0).all(-1))
    order = kept[np.argsort(image_of[kept], kind="stable")]
    return Boxes(image_of[order], boxes[order], scores[order], len(rows) - len(kept))


def ground_truth(persons: Persons) -> Boxes:
    """The annotated boxes of the persons that have a labelled joint, with score 1."""
    rows = np.flatnonzero(persons.usable)
    without_area = int((~persons.crowd & persons.shows_joints & ~persons.has_area).sum())
    return Boxes(persons.image_of[rows], persons.clipped[rows], np.ones(len(rows)), without_area)


def _box(entry: Mapping[str, Any]) -> tuple[int, list[float], float]:
    box, score = [float(value) for value in entry["bbox"]], float(entry["score"])
    if len(box) != 4 or not np.isfinite([*box, score]).all():
        raise ValueError(f"a box of image {entry['image_id']} is no x, y, width, height and score: {entry['bbox']}")
    return int(entry["image_id"]), box, score
