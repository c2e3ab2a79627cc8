"""Reads annotations of persons in COCO's form: a JSON file with images, and with boxes and joints in them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.coco_json import listed, read_json
from tasks.datasets.files import plain
from tasks.errors import DataError

PERSON = 1
"""COCO's number of the category person, and CrowdPose's only one."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Persons:
    """The images of one part and the persons in them, in the order of the file, persons by image."""

    files: Sequence[str]
    """Of each image (n): as the file names them, below the folder of images."""
    ids: NDArray[np.int64]
    """(n,) of the images."""
    sizes: NDArray[np.int64]
    """(n, 2): height and width in pixels."""
    crowd_index: Floats
    """(n,): CrowdPose's, from 0 to 1; nan where the file does not say."""
    labelled: bool
    """False: the file names images alone (image_info_test-dev2017.json), labels are not public."""
    image_of: NDArray[np.int64]
    """(p,): the position in `ids` of each person's image."""
    person_ids: NDArray[np.int64]
    """(p,)"""
    boxes: Floats
    """(p, 4): x, y, width, height in pixels."""
    joints: Floats
    """(p, k, 3): x, y in pixels, and v: 0 not labelled, 1 hidden, 2 visible."""
    areas: Floats
    """(p,): square pixels; nan where the file does not say (CrowdPose)."""
    crowd: NDArray[np.bool_]
    """(p,): a group of persons in one box, which is neither trained on nor a mistake to find."""

    @property
    def shows_joints(self) -> NDArray[np.bool_]:
        """(p,): some joint is labelled."""
        return np.asarray((self.joints[..., 2] > 0).any(-1))

    @cached_property
    def clipped(self) -> Floats:
        """(p, 4): boxes cut to their image, in the unit pixel minus one, as Simple Baseline's code and PCT's do it;
        without area where the annotation has none, or where nothing of the box lies in the image."""
        height, width = self.sizes[self.image_of].T
        low = np.maximum(self.boxes[:, :2], 0)
        limits = np.stack([width, height], -1) - 1
        high = np.minimum(limits, low + np.maximum(self.boxes[:, 2:] - 1, 0))
        sides = np.where((high > low).all(-1, keepdims=True), high - low, 0)
        sides[self.areas <= 0] = 0
        return np.concatenate([low, sides], -1)

    @property
    def has_area(self) -> NDArray[np.bool_]:
        """(p,): the clipped box has an area."""
        return np.asarray((self.clipped[:, 2:] > 0).all(-1))

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(p,): those that are trained on, and found by ground-truth boxes: one person, some joint labelled, a box with
        area, as in the public code."""
        return ~self.crowd & self.shows_joints & self.has_area

    def taken(self, images: NDArray[np.int64]) -> Persons:
        """These images alone, with their persons."""
        place = np.full(len(self.ids), -1)
        place[images] = np.arange(len(images))
        rows = np.flatnonzero(place[self.image_of] >= 0)
        found = self.only(rows[np.argsort(place[self.image_of[rows]], kind="stable")])
        return replace(
            found, files=[self.files[i] for i in images.tolist()], ids=self.ids[images], sizes=self.sizes[images],
            crowd_index=self.crowd_index[images], image_of=place[found.image_of],
        )  # fmt: skip

    def only(self, rows: NDArray[np.int64]) -> Persons:
        """These persons alone, with all images."""
        return replace(self, **{name: getattr(self, name)[rows] for name in _OF_PERSONS})

    def entries(self) -> Iterator[dict[str, Any]]:
        """For each image what a manifest says of it: its id, and SHA-256 of its size and of all persons."""
        starts = np.searchsorted(self.image_of, np.arange(len(self.ids) + 1))
        for image, (first, last) in enumerate(itertools.pairwise(starts)):
            rows = slice(first, last)
            numbers = (
                self.sizes[image], self.crowd_index[image : image + 1], self.person_ids[rows], self.boxes[rows],
                self.joints[rows], self.areas[rows], self.crowd[rows],
            )  # fmt: skip
            content = b"".join(np.asarray(each, dtype=np.float64).tobytes() for each in numbers)
            yield {"id": int(self.ids[image]), "persons": hashlib.sha256(content).hexdigest()}


_OF_PERSONS = ("image_of", "person_ids", "boxes", "joints", "areas", "crowd")
"""Fields of `Persons` with one row a person."""


def together(parts: Sequence[Persons]) -> Persons:
    """Several parts as one, in this order."""
    starts = np.cumsum([0, *(len(part.ids) for part in parts)])
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("ids", "sizes", "crowd_index", "person_ids", "boxes", "joints", "areas", "crowd")
    }
    return Persons(
        files=[file for part in parts for file in part.files],
        labelled=all(part.labelled for part in parts),
        image_of=np.concatenate([part.image_of + start for part, start in zip(parts, starts, strict=False)]),
        **joined,
    )


def read_persons(path: Path, name: str, joints: int, labelled: bool = True) -> Persons:
    """The persons of an annotation file. `joints`: that a person has. `labelled`: False where labels are not public.

    Raises DataError, naming data set, file, entry and remedy.
    """
    content = read_json(path, name)
    try:
        images = [_image(each) for each in listed(content, "images")]
        annotations = [each for each in listed(content, "annotations") if _is_person(each)] if labelled else []
        return _persons(images, annotations, joints, labelled)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{name}: {path}: {reason}") from error


def _image(entry: Mapping[str, Any]) -> tuple[str, int, tuple[int, int], float]:
    index = entry.get("crowdIndex")
    size = int(entry["height"]), int(entry["width"])
    if min(size) < 1:
        raise ValueError(f"image {entry['id']} of {size[0]} x {size[1]} pixels")
    return plain(entry["file_name"]), int(entry["id"]), size, float("nan") if index is None else float(index)


def _is_person(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("category_id", PERSON) == PERSON)


def _persons(images: list[Any], annotations: list[Mapping[str, Any]], joints: int, labelled: bool) -> Persons:
    position = {image[1]: i for i, image in enumerate(images)}
    if len(position) < len(images):
        raise ValueError("two images have one id")
    if labelled and not annotations:
        raise ValueError("no annotation is of a person")
    rows = [_person(entry, position, joints) for entry in annotations]
    rows.sort(key=lambda row: row[0])  # stable: the order of the file within an image
    found = Persons(
        files=[image[0] for image in images],
        ids=np.array([image[1] for image in images], dtype=np.int64),
        sizes=np.array([image[2] for image in images], dtype=np.int64).reshape(-1, 2),
        crowd_index=np.array([image[3] for image in images], dtype=np.float64),
        labelled=labelled,
        image_of=np.array([row[0] for row in rows], dtype=np.int64),
        person_ids=np.array([row[1] for row in rows], dtype=np.int64),
        boxes=np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
        joints=np.array([row[3] for row in rows], dtype=np.float64).reshape(-1, joints, 3),
        areas=np.array([row[4] for row in rows], dtype=np.float64),
        crowd=np.array([row[5] for row in rows], dtype=np.bool_),
    )
    if labelled and not found.shows_joints.any():
        raise ValueError(f"none of the {len(rows)} persons has a labelled joint, so there is nothing to learn from")
    return found


def _person(entry: Mapping[str, Any], position: Mapping[int, int], joints: int) -> tuple[Any, ...]:
    """Image, id, box, joints, area, crowd."""
    number = entry["id"]
    if "keypoints" not in entry:
        raise ValueError(
            f"annotation {number} has no keypoints: this needs the annotations of joints "
            "(person_keypoints_*.json), not those of boxes or masks alone"
        )
    if entry["image_id"] not in position:
        raise ValueError(f"annotation {number} is of image {entry['image_id']}, which the list of images lacks")
    places, box = [float(v) for v in entry["keypoints"]], [float(v) for v in entry["bbox"]]
    if len(places) != 3 * joints:
        raise ValueError(
            f"annotation {number} has {len(places)} numbers in keypoints; {joints} joints have {3 * joints}"
        )
    if len(box) != 4:
        raise ValueError(f"annotation {number} has {len(box)} numbers in bbox; a box has 4: x, y, width, height")
    if not np.isfinite([*places, *box]).all():
        raise ValueError(f"annotation {number} has a number that is not finite")
    area = entry.get("area")
    return (
        position[entry["image_id"]], int(number), box, places, float("nan") if area is None else float(area),
        bool(entry.get("iscrowd", 0)),
    )  # fmt: skip
