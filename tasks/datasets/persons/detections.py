"""Reads boxes of persons that a detector found, in the form in which they are published for COCO and CrowdPose."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.coco_json import read_json, whole
from tasks.datasets.persons.annotations import PERSON, Floats, Persons
from tasks.errors import DataError

BESIDE = 0.01
"""Detectors cut boxes to their image. Where more than this share of a file's boxes have their middle outside of it, the
file is of other images whose ids are the same."""


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
        rows = [_box(entry, place) for place, entry in enumerate(content, 1) if _is_person(entry, place)]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = f"a box without {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{name}: {path}: {reason}; needs a list of image_id, category_id, bbox and score") from error
    if not rows:
        raise DataError(f"{name}: {path} has no box of a person (category_id {PERSON})")
    remedy = f"set task.boxes_file to those of {name} {part}"
    strange = [number for number, *_ in rows if number not in position]
    if strange:
        raise DataError(
            f"{name}: {path}: {len(strange):,} of {len(rows):,} boxes are in images that {part} does not have "
            f"(first: image {strange[0]}): these are boxes of another data set or part; {remedy}"
        )
    image_of = np.array([position[number] for number, *_ in rows], dtype=np.int64)
    boxes = np.array([box for _, box, _ in rows], dtype=np.float64)
    scores = np.array([score for *_, score in rows], dtype=np.float64)
    kept = np.flatnonzero((boxes[:, 2:] > 0).all(-1))
    order = kept[np.argsort(image_of[kept], kind="stable")]
    found = Boxes(image_of[order], boxes[order], scores[order], len(rows) - len(kept))
    if problem := _in_images(found, persons):
        raise DataError(f"{name}: {path}: {problem}; {remedy}, as x, y, width and height in pixels")
    return found


def _in_images(found: Boxes, persons: Persons) -> str:
    """What shows that boxes are of other images, or in another unit than pixels; empty where nothing does."""
    count = len(found.scores)
    if not count:
        return f"none of the {found.left_out:,} boxes has a width and a height"
    sizes = persons.sizes[found.image_of][:, ::-1]
    low, sides = found.boxes[:, :2], found.boxes[:, 2:]
    middles = low + sides / 2
    beside = np.asarray(((middles < 0) | (middles > sizes)).any(-1))
    of_others = f"lie outside of their images{_first(found, persons, beside)}, so these are boxes of other images"
    faults = (
        (beside, 0.5, of_others),
        ((sides <= 1).all(-1), 0.5, "are no larger than a pixel, as shares of an image are"),
        (
            (low + sides > sizes + 1).any(-1),
            0.5,
            "end outside of their images, as two corners read as corner and size do",
        ),
        (beside, BESIDE, of_others),
    )
    wrong = ((int(rows.sum()), words) for rows, share, words in faults if rows.sum() > share * count)
    return next((f"{number:,} of {count:,} boxes {words}" for number, words in wrong), "")


def _first(found: Boxes, persons: Persons, rows: NDArray[np.bool_]) -> str:
    """Words for the first of these boxes; empty without any."""
    if not rows.any():
        return ""
    row = int(np.argmax(rows))
    image = int(found.image_of[row])
    height, width = persons.sizes[image].tolist()
    return f" (first: {found.boxes[row].tolist()} in image {int(persons.ids[image])} of {width} x {height} pixels)"


def ground_truth(persons: Persons) -> Boxes:
    """The annotated boxes of the persons that have a labelled joint, with score 1."""
    rows = np.flatnonzero(persons.usable)
    without_area = int((~persons.crowd & persons.shows_joints & ~persons.has_area).sum())
    return Boxes(persons.image_of[rows], persons.clipped[rows], np.ones(len(rows)), without_area)


def _is_person(entry: Any, place: int) -> bool:
    if not isinstance(entry, Mapping):
        raise ValueError(f"entry {place} is no object with fields")
    return bool(entry["category_id"] == PERSON)


def _box(entry: Mapping[str, Any], place: int) -> tuple[int, list[float], float]:
    of = f"box {place}"
    number = whole(entry, "image_id", of)
    try:
        box, score = [float(value) for value in entry["bbox"]], float(entry["score"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{of} (of image {number}) has something that is no number ({error})") from error
    if len(box) != 4 or not np.isfinite([*box, score]).all():
        raise ValueError(f"{of} (of image {number}) is no x, y, width, height and score: {entry['bbox']}")
    return number, box, score
