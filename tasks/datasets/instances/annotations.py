"""Reads annotations of objects in COCO's form, and keeps them in a few arrays: boxes, classes, areas, masks as RLE."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tasks.datasets.coco_json import entries_of, image_entry, is_crowd, positions, read_json, whole
from tasks.datasets.files import repeated
from tasks.datasets.images.source import StringTable
from tasks.datasets.instances.types import Flags, Floats, Integers, Pixels, Rle
from tasks.errors import DataError

POLYGON = 6
"""Numbers of a polygon of three points; fewer enclose nothing and are left out, as in Detectron2 and mmdetection. (To
pycocotools four numbers are a box: a mask that nobody drew.)"""
FARTHEST = 1e6
"""Pixels: a number beyond it is no position in an image."""


@dataclass(frozen=True)
class Annotated:
    """The n images of one part and the m objects in them, in the order of the file, objects by image."""

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    """Of each class, ascending."""
    files: StringTable
    """(n): as the file names them, below the folder of images."""
    ids: Integers
    """(n,)"""
    sizes: Integers
    """(n, 2): height and width in pixels."""
    starts: Integers
    """(n + 1,): where the objects of each image begin, and those of the last one end."""
    given: Floats
    """(m, 4): x, y, width, height in pixels, as the file has them."""
    labels: Integers
    """(m,)"""
    crowd: Flags
    """(m,)"""
    area: Floats
    """(m,)"""
    drawn: Flags
    """(m,): the mask has a pixel."""
    apart: Flags
    """(m,): the box has an IoU below 0.5 with that of the mask, where there is one."""
    codes: Pixels
    """The RLE of all masks, one after the other."""
    ends: Integers
    """(m + 1,): where each begins, and the last one ends."""

    @property
    def image_of(self) -> Integers:
        """(m,): the position of each object's image."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.starts))

    def boxes(self, rows: slice, image: int) -> Floats:
        """(k, 4): left, top, right and lower edge of these objects, cut to their image."""
        height, width = self.sizes[image].tolist()
        boxes = self.given[rows].copy()
        boxes[:, 2:] += boxes[:, :2]
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
        return boxes

    @property
    def learnt(self) -> Flags:
        """(m,): see Instances.learnt."""
        limits = self.sizes[self.image_of][:, ::-1]
        low = np.maximum(self.given[:, :2], 0)
        high = np.minimum(self.given[:, :2] + self.given[:, 2:], limits)
        large = (self.given[:, 2:] >= 1).all(-1) & (self.area > 0)
        return np.asarray(~self.crowd & self.drawn & large & (high > low).all(-1))

    def rle(self, row: int, image: int) -> Rle:
        first, last = self.ends[row], self.ends[row + 1]
        return {"size": self.sizes[image].tolist(), "counts": self.codes[first:last].tobytes()}

    def entries(self) -> Iterator[dict[str, Any]]:
        """For each image what a manifest says of it: its id, and SHA-256 of its size and of all its objects."""
        categories = np.array(self.category_ids)
        for image in range(len(self.ids)):
            rows = slice(*self.starts[image : image + 2].tolist())
            numbers = (
                self.sizes[image], categories[self.labels[rows]], self.given[rows], self.area[rows], self.crowd[rows],
                np.diff(self.ends[rows.start : rows.stop + 1]),
            )  # fmt: skip
            content = b"".join(np.asarray(each, dtype=np.float64).tobytes() for each in numbers)
            content += self.codes[self.ends[rows.start] : self.ends[rows.stop]].tobytes()
            yield {"id": int(self.ids[image]), "objects": hashlib.sha256(content).hexdigest()}


def known_annotations(path: Path, name: str) -> Annotated:
    """As `read_annotations`; a file that did not change is read once in a process: COCO's has 450 MB."""
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{name}: {path}: {error.strerror or error}; get this file again") from error
    return _read_version(path, name, stat.st_mtime_ns, stat.st_size, stat.st_ino)


@lru_cache(maxsize=3)  # train, val and test
def _read_version(path: Path, name: str, *version: int) -> Annotated:
    return read_annotations(path, name)


def read_annotations(path: Path, name: str) -> Annotated:
    """The objects of an annotation file. Raises DataError, naming data set, file, entry and remedy."""
    content = read_json(path, name)
    try:
        classes = _classes(entries_of(content, "categories"))
        images = [image_entry(each) for each in entries_of(content, "images")]
        return _annotated(classes, images, entries_of(content, "annotations"))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = f"an entry has no {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{name}: {path}: {reason}") from error


def _classes(entries: list[Mapping[str, Any]]) -> dict[int, str]:
    """Names by id, in the order of ids."""
    if without := next((entry for entry in entries if entry.get("name") in (None, "")), None):
        raise ValueError(f"category {without['id']} has no name; write one")
    found = sorted((whole(entry, "id", f"category {entry['id']}"), str(entry["name"])) for entry in entries)
    if twice := repeated([str(number) for number, _ in found]) or repeated([word for _, word in found]):
        raise ValueError(f"two categories have the id or name {twice[0]}; give each its own")
    if not found:
        raise ValueError("the list 'categories' is empty; write an entry with id and name for each class")
    return dict(found)


@dataclass(frozen=True)
class _Object:
    image: int
    """Its position."""
    box: list[float]
    label: int
    crowd: bool
    area: float
    drawn: bool
    apart: bool
    code: bytes


def _annotated(
    classes: Mapping[int, str], images: list[tuple[int, str, tuple[int, int]]], annotations: list[Mapping[str, Any]]
) -> Annotated:
    position = positions(images)
    label = {number: i for i, number in enumerate(classes)}
    objects = [_object(entry, position, label, images) for entry in annotations]
    objects.sort(key=lambda each: each.image)  # stable: the order of the file within an image
    counts = np.bincount([each.image for each in objects], minlength=len(images))
    return Annotated(
        classes=tuple(classes.values()),
        category_ids=tuple(classes),
        files=StringTable([file for _, file, _ in images]),
        ids=np.array([number for number, *_ in images], dtype=np.int64),
        sizes=np.array([size for *_, size in images], dtype=np.int64).reshape(-1, 2),
        starts=np.cumsum([0, *counts.tolist()], dtype=np.int64),
        given=np.array([each.box for each in objects], dtype=np.float64).reshape(-1, 4),
        labels=np.array([each.label for each in objects], dtype=np.int64),
        crowd=np.array([each.crowd for each in objects], dtype=np.bool_),
        area=np.array([each.area for each in objects], dtype=np.float64),
        drawn=np.array([each.drawn for each in objects], dtype=np.bool_),
        apart=np.array([each.apart for each in objects], dtype=np.bool_),
        codes=np.frombuffer(b"".join(each.code for each in objects), dtype=np.uint8),
        ends=np.cumsum([0, *(len(each.code) for each in objects)], dtype=np.int64),
    )


def _object(
    entry: Mapping[str, Any],
    position: Mapping[int, int],
    label: Mapping[int, int],
    images: Sequence[tuple[int, str, tuple[int, int]]],
) -> _Object:
    from faster_coco_eval.core import mask

    number = entry["id"]
    owner, category = (whole(entry, key, f"annotation {number}") for key in ("image_id", "category_id"))
    if owner not in position:
        raise ValueError(f"annotation {number} is of image {owner}, which the list of images lacks")
    if category not in label:
        raise ValueError(f"annotation {number} has category_id {category}, which 'categories' lacks")
    image = position[owner]
    size = images[image][2]
    rle = _rle(entry, number, size)
    covered = int(mask.area(rle))
    box = _box(entry, number, size)
    return _Object(
        image, box, label[category], is_crowd(entry, f"annotation {number}"), _area(entry, number, covered),
        covered > 0, covered > 0 and _iou(box, mask.toBbox(rle).tolist()) < 0.5, rle["counts"],
    )  # fmt: skip


def _iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two boxes (x, y, width, height); of one without extent 0."""
    across, down = (max(0.0, min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i])) for i in (0, 1))
    both = across * down
    return both / (one[2] * one[3] + other[2] * other[3] - both) if both else 0.0


def _area(entry: Mapping[str, Any], number: Any, covered: int) -> float:
    """Square pixels as the file states them, or else those of the mask."""
    given = entry.get("area")
    area = _floats([covered if given is None else given])
    if not area or not 0 <= area[0] < np.inf:
        raise ValueError(f"annotation {number}: area {given!r} is no number of square pixels")
    return area[0]


def _floats(values: Any) -> list[float]:
    """Empty where one is no number."""
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        return []


def _box(entry: Mapping[str, Any], number: Any, size: tuple[int, int]) -> list[float]:
    if "bbox" not in entry:
        raise ValueError(f"annotation {number} has no bbox; write its x, y, width and height in pixels")
    box = _floats(entry["bbox"])
    if len(box) != 4 or not all(abs(value) <= FARTHEST for value in box) or min(box[2:]) < 0:
        raise ValueError(f"annotation {number}: bbox {entry['bbox']} is no x, y, width and height in pixels")
    (height, width), (x, y, wide, high) = size, box
    if x > width or y > height or x + wide < 0 or y + high < 0:  # one that touches the image is not learnt
        raise ValueError(
            f"annotation {number}: bbox {entry['bbox']} lies outside of its image of {width} x {height} pixels "
            "(width x height); correct it"
        )
    return box


def _rle(entry: Mapping[str, Any], number: Any, size: tuple[int, int]) -> Rle:
    from faster_coco_eval.core import mask

    given = entry.get("segmentation")
    if not given:
        raise ValueError(
            f"annotation {number} has no segmentation: masks are needed (polygons or RLE), not boxes alone; COCO's are "
            "in instances_*.json"
        )
    neither = f"annotation {number}: segmentation is neither polygons nor RLE in COCO's form"
    if isinstance(given, Mapping):
        try:
            return _given_rle(given, number, size)
        except (TypeError, KeyError) as error:
            raise ValueError(neither) from error
    try:
        polygons = [[float(value) for value in polygon] for polygon in given]
    except (TypeError, ValueError) as error:
        raise ValueError(neither) from error
    if wrong := next((each for each in polygons if len(each) % 2), None):
        raise ValueError(f"annotation {number}: a polygon of {len(wrong)} numbers; it has x and y of each point")
    if not all(abs(value) <= FARTHEST for polygon in polygons for value in polygon):
        raise ValueError(f"annotation {number}: a polygon has a number that is no position in pixels")
    kept = [polygon for polygon in polygons if len(polygon) >= POLYGON]
    if not kept:
        return _coded(mask.frPyObjects({"size": list(size), "counts": [size[0] * size[1]]}, *size))
    return _coded(mask.merge(mask.frPyObjects(kept, *size)))


def _given_rle(given: Mapping[str, Any], number: Any, size: tuple[int, int]) -> Rle:
    from faster_coco_eval.core import mask

    stated = tuple(int(value) for value in given["size"])
    if stated != size:
        raise ValueError(
            f"annotation {number}: its mask is of {' x '.join(map(str, stated))} pixels and its image of {size[0]} x "
            f"{size[1]} (height x width); draw it on the image itself"
        )
    counts = given["counts"]
    if isinstance(counts, str):
        rle = {"size": list(size), "counts": counts.encode()}
        try:
            mask.decode(rle)  # compares the sum of runs with the size
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"annotation {number}: its RLE is damaged ({error}); get this file again") from error
        return _coded(rle)
    runs = [int(value) for value in counts]
    if min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
        raise ValueError(
            f"annotation {number}: its RLE has runs of {sum(runs):,} pixels together, and its mask has "
            f"{size[0] * size[1]:,}; get this file again"
        )
    return _coded(mask.frPyObjects({"size": list(size), "counts": runs}, *size))


def _coded(rle: Mapping[str, Any]) -> Rle:
    return {"size": [int(value) for value in rle["size"]], "counts": bytes(rle["counts"])}
