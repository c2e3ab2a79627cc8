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

from tasks.datasets.coco_json import entries_of, image_entry, is_crowd, positions, read_json, whole
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

    def check_crowd_index(self, name: str) -> None:
        """Raises DataError for an image without a crowd index, which CrowdPose's figures need. `name`: the data set."""
        without = self.ids[np.isnan(self.crowd_index)]
        if len(without):
            raise DataError(
                f"{name}: {len(without):,} of {len(self.ids):,} images have no crowdIndex (first: image {without[0]}), "
                "which CrowdPose's easy, medium and hard need: set task.evaluator: coco, or take annotations with it"
            )

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
        images = [image_entry(each) for each in entries_of(content, "images")]
        crowd_index = [_crowd_index(each) for each in content["images"]]
        annotations = [each for each in entries_of(content, "annotations") if _is_person(each)] if labelled else []
        return _persons(images, crowd_index, annotations, joints, labelled)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = f"an entry has no {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{name}: {path}: {reason}") from error


def _crowd_index(entry: Mapping[str, Any]) -> float:
    """CrowdPose's; nan where it is not stated."""
    given = entry.get("crowdIndex")
    if given is None:
        return float("nan")
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < np.inf:
        raise ValueError(
            f"image {entry['id']}: crowdIndex {given!r} is no number from 0 on; leave it out, or write one"
        )
    return float(given)


def _is_person(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("category_id", PERSON) == PERSON)


def _persons(
    images: list[tuple[int, str, tuple[int, int]]],
    crowd_index: list[float],
    annotations: list[Mapping[str, Any]],
    joints: int,
    labelled: bool,
) -> Persons:
    position = positions(images)
    if labelled and not annotations:
        raise ValueError("no annotation is of a person")
    rows = [_person(entry, position, joints) for entry in annotations]
    rows.sort(key=lambda row: row[0])  # stable: the order of the file within an image
    found = Persons(
        files=[file for _, file, _ in images],
        ids=np.array([number for number, *_ in images], dtype=np.int64),
        sizes=np.array([size for *_, size in images], dtype=np.int64).reshape(-1, 2),
        crowd_index=np.array(crowd_index, dtype=np.float64),
        labelled=labelled,
        image_of=np.array([row[0] for row in rows], dtype=np.int64),
        person_ids=np.array([row[1] for row in rows], dtype=np.int64),
        boxes=np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
        joints=np.array([row[3] for row in rows], dtype=np.float64).reshape(-1, joints, 3),
        areas=np.array([row[4] for row in rows], dtype=np.float64),
        crowd=np.array([row[5] for row in rows], dtype=np.bool_),
    )
    if labelled:
        _check_places(found)
    return found


def _check_places(found: Persons) -> None:
    """Raises ValueError where nobody can be learnt from or found, and where joints or boxes of most persons are no
    pixels of their images: a model learns from those without a word."""
    if not found.shows_joints.any():
        raise ValueError(
            f"none of the {len(found.crowd)} persons has a labelled joint, so there is nothing to learn from"
        )
    usable = found.usable
    count = int(usable.sum())
    if not count:
        raise ValueError(
            f"none of the {len(usable):,} persons can be learnt from or found: each is a crowd (iscrowd 1), has no "
            "labelled joint, or a box without area in its image; bbox is x, y, width and height in pixels"
        )
    low, joints = found.boxes[usable][:, :2], found.joints[usable]
    high = low + found.boxes[usable][:, 2:]
    seen = joints[..., 2] > 0
    inside = ((joints[..., :2] >= low[:, None] - 1) & (joints[..., :2] <= high[:, None] + 1)).all(-1) & seen
    apart = int((2 * inside.sum(-1) < seen.sum(-1)).sum())
    if 2 * apart > count:
        raise ValueError(
            f"most joints of {apart:,} of {count:,} persons lie outside of their boxes: keypoints are x and y in pixels"
            " of the image, bbox is x, y, width and height in pixels; correct whichever is not"
        )
    sizes = found.sizes[found.image_of[usable]]
    beyond, exchanged = (int((high > sides + 1).any(-1).sum()) for sides in (sizes[:, ::-1], sizes))
    if 10 * beyond > count and 10 * exchanged < beyond:
        raise ValueError(
            f"the boxes of {beyond:,} of {count:,} persons end outside of their images, and of {exchanged:,} if height "
            "and width are exchanged, as CrowdPose's first files have them: get newer ones, or exchange the two in "
            "every entry of 'images'"
        )
    if 2 * beyond > count:
        raise ValueError(
            f"the boxes of {beyond:,} of {count:,} persons end outside of their images: bbox is x, y, width and height "
            "in pixels, and not two corners"
        )


def _person(entry: Mapping[str, Any], position: Mapping[int, int], joints: int) -> tuple[Any, ...]:
    """Image, id, box, joints, area, crowd."""
    of = f"annotation {entry['id']}"
    if "keypoints" not in entry:
        raise ValueError(
            f"{of} has no keypoints: this needs the annotations of joints (person_keypoints_*.json), not those of "
            "boxes or masks alone"
        )
    number, owner = (whole(entry, key, of) for key in ("id", "image_id"))
    if owner not in position:
        raise ValueError(f"{of} is of image {owner}, which the list of images lacks")
    places, box = (_numbers(entry, key, of) for key in ("keypoints", "bbox"))
    if len(places) != 3 * joints:
        raise ValueError(f"{of} has {len(places)} numbers in keypoints; {joints} joints have {3 * joints}")
    if len(box) != 4:
        raise ValueError(f"{of} has {len(box)} numbers in bbox; a box has 4: x, y, width, height")
    if not np.isfinite([*places, *box]).all():
        raise ValueError(f"{of} has a number that is not finite")
    return position[owner], number, box, places, _area(entry, of), is_crowd(entry, of)


def _numbers(entry: Mapping[str, Any], key: str, of: str) -> list[float]:
    given = entry.get(key)
    if not isinstance(given, list):
        raise ValueError(f"{of} has no {key}, or no list of numbers there; write one")
    try:
        return [float(value) for value in given]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{of}: {key} has something that is no number ({error})") from error


def _area(entry: Mapping[str, Any], of: str) -> float:
    """Square pixels; nan where it is not stated."""
    given = entry.get("area")
    if given is None:
        return float("nan")
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < np.inf:
        raise ValueError(f"{of}: area {given!r} is no number of square pixels; write one, or leave it out")
    return float(given)
