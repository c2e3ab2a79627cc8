"""Loaders of pose: persons to train on, boxes to evaluate, and with each batch of boxes what its images really show."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare
from tasks.datasets.loaders import Pipeline, SampleLoaders
from tasks.datasets.persons.annotations import Persons
from tasks.datasets.persons.detections import Boxes, ground_truth
from tasks.datasets.persons.task_data import Opened
from tasks.datasets.reader import Reader
from tasks.datasets.samples import ArrayTargets, Records
from tasks.datasets.transforms import Normalizing
from tasks.pose.joints import Skeleton
from tasks.pose.options import PoseAugment
from tasks.pose.samples import Cut, Warp, collate, rows
from tasks.pose.scores import CROWD_AREA, Floats

EVALUATED_AT_ONCE = 128
"""Boxes of one forward pass in evaluation."""
PICTURED = 256
"""Persons at even distances through the evaluated part, of which pictures show the worst and the best."""


@dataclass(frozen=True)
class PoseInput:
    """How persons become inputs."""

    padding: float
    skeleton: Skeleton
    augment: PoseAugment
    normalize: Normalizing


class PoseLoaders(SampleLoaders):
    """Training batches: `images`, `joints`, `visible`. Evaluation batches: see `samples.Warp`, and `truth`: what the
    annotations say of the images between the last one of the batch before and the last one of this, those without a box
    too, so that over all batches each image counts once."""

    def __init__(self, training: Opened, evaluated: Opened, how: PoseInput, context: DataContext) -> None:
        """Raises DataError as SampleLoaders does."""
        size = context.input_size
        persons, found = evaluated.persons, evaluated.boxes
        plain = Cut(size, how.padding, how.skeleton, PoseAugment.none())
        warp = Warp(size, how.normalize, how.augment.jitter_prob > 0, persons.ids[found.image_of])
        pipeline = Pipeline(
            Cut(size, how.padding, how.skeleton, how.augment), plain, collate, warp, evaluation_batch=EVALUATED_AT_ONCE
        )
        boxes = _unlabelled(evaluated, len(how.skeleton))
        super().__init__(_annotated(training), boxes, pipeline, context)
        self.digest = hashlib.sha256(f"{self.digest} {list(persons.entries())}".encode()).hexdigest()
        self._persons, self._image_of = persons, found.image_of
        self._shown = _pictured(evaluated)
        self._pictures = Reader(_annotated(self._shown), plain, collate, context)
        self._warp_pictures = Warp(size, how.normalize, False, persons.ids[self._shown.boxes.image_of])
        self.preprocessing = _left_out(training.boxes, evaluated.boxes)

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        for batch in super().evaluation(share):
            first = int(batch["item"])
            yield {**batch, "truth": self._truth(first, first + len(batch["images"]))}

    def _truth(self, first: int, end: int) -> list[dict[str, Any]]:
        """Of the images after that of box `first - 1` up to that of box `end - 1`; of all that are left at the end."""
        start = int(self._image_of[first - 1]) + 1 if first else 0
        stop = int(self._image_of[end - 1]) + 1 if end < len(self._image_of) else len(self._persons.ids)
        return truth(self._persons, start, stop)

    def pictured(self) -> Iterable[Batch]:
        """Annotated persons of the evaluated part, `PICTURED` at most, in their annotated boxes; `joints` and `visible`
        are where they belong; and the `area` (n,) of each person in square pixels of the photograph. None where labels
        are not public."""
        count = len(self._shown.boxes.scores)
        starts = range(0, count, EVALUATED_AT_ONCE)
        wanted = [[(0, i) for i in range(start, min(start + EVALUATED_AT_ONCE, count))] for start in starts]
        areas = _areas(self._shown.persons)
        for batch, indices in self._pictures.read(wanted):
            yield {**self._warp_pictures.evaluate(batch, indices), "person_areas": areas[indices.numpy()]}


def truth(persons: Persons, start: int, stop: int) -> list[dict[str, Any]]:
    """What annotations say of the images [start, stop), as JSON values: `id`, `crowd_index` (None: not stated) and
    `persons`, each as COCO's evaluator takes them; `persons` is None where labels are not public."""
    found: list[dict[str, Any]] = []
    first, last = np.searchsorted(persons.image_of, [start, stop])
    by_image: dict[int, list[dict[str, Any]]] = {image: [] for image in range(start, stop)}
    areas = _areas(persons, slice(first, last))
    for row, area in enumerate(areas.tolist(), int(first)):
        by_image[int(persons.image_of[row])].append(
            {
                "id": int(persons.person_ids[row]),
                "bbox": persons.boxes[row].tolist(),
                "keypoints": persons.joints[row].ravel().tolist(),
                "num_keypoints": int((persons.joints[row, :, 2] > 0).sum()),
                "area": area,
                "iscrowd": int(persons.crowd[row]),
            }
        )
    for image, shown in by_image.items():
        index = float(persons.crowd_index[image])
        found.append(
            {
                "id": int(persons.ids[image]),
                "crowd_index": None if np.isnan(index) else index,
                "persons": shown if persons.labelled else None,
            }
        )
    return found


def _areas(persons: Persons, rows: slice = slice(None)) -> Floats:
    """(p,) square pixels; that part of the box which CrowdPose's evaluator takes where the annotations say none."""
    areas, (width, height) = persons.areas[rows], persons.boxes[rows, 2:].T
    return np.where(np.isnan(areas), CROWD_AREA * width * height, areas)


def _usable(opened: Opened) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.flatnonzero(opened.persons.usable)


def _annotated(opened: Opened) -> Records:
    """Persons, where the boxes are the annotated ones."""
    found = opened.boxes
    targets = rows(found.boxes, found.scores, opened.persons.joints[_usable(opened)])
    return Records(opened.images, ArrayTargets(targets), found.image_of, pixels=True)


def _unlabelled(opened: Opened, joints: int) -> Records:
    """Boxes to evaluate, whoever is in them."""
    found = opened.boxes
    targets = rows(found.boxes, found.scores, np.zeros((len(found.scores), joints, 3)))
    return Records(opened.images, ArrayTargets(targets), found.image_of, pixels=True)


def _pictured(opened: Opened) -> Opened:
    """The persons that pictures may show, each in its annotated box."""
    persons, usable = opened.persons, _usable(opened)
    kept = usable[np.linspace(0, len(usable) - 1, min(PICTURED, len(usable))).round().astype(int)]
    some = persons.only(kept)
    return Opened(opened.images, some, ground_truth(some))


def _left_out(*boxes: Boxes) -> dict[str, int] | None:
    """How many boxes without area were left out of training and evaluation, for the record; None: none."""
    names = ("trained_boxes_without_area", "evaluated_boxes_without_area")
    found = {name: each.left_out for name, each in zip(names, boxes, strict=True) if each.left_out}
    return found or None
