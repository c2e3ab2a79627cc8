"""Reads lists of pairs: a line names an image and its depth map, as GLPDepth's and BTS's lists do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.datasets.depth_pairs.layout import DepthLayout, ListFile, Part
from tasks.datasets.files import first_few, list_lines, plain, repeated
from tasks.datasets.manifest import Manifest
from tasks.errors import DataError

ABSENT = "None"
"""What published lists of KITTI's Eigen split have in the place of a depth map that does not exist."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of a list, in its order; names are below the folder of the data set."""

    images: Sequence[str]
    depths: Sequence[str]
    without: int = 0
    """Further lines that name an image without a depth map."""

    def __len__(self) -> int:
        return len(self.images)


def read_pairs(name: str, base: Path, listed: ListFile) -> Pairs:
    """The pairs of a list: `image depth` in a line; what follows (in BTS the focal length) is not read. A leading
    slash, which published lists have, is dropped.

    Raises DataError for a list that is missing or empty, a line without two names, a name outside of the folder, and an
    image that is listed twice.
    """
    path = base / listed.file
    try:
        lines = list_lines(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: cannot read the list {path} ({error})") from error
    images, depths, without = [], [], 0
    for number, line in lines:
        words = line.split()
        if len(words) < 2:
            raise DataError(f"{name}: {path}, line {number}: {line!r} names no pair; write `image depth` in each line")
        if words[1] == ABSENT:
            without += 1
            continue
        try:
            image, depth = (plain(f"{listed.folder}/{plain(word.lstrip('/'))}") for word in words[:2])
        except ValueError as error:
            raise DataError(f"{name}: {path}, line {number}: {error}") from error
        images.append(image)
        depths.append(depth)
    if not images:
        raise DataError(f"{name}: the list {path} names no image with a depth map")
    twice = repeated(images)
    if twice:
        raise DataError(f"{name}: {path} names {len(twice)} images twice: {first_few(twice)}")
    return Pairs(images, depths, without)


def manifest(layout: DepthLayout) -> Manifest:
    """Which pair is train, val or test, by the lists that are there.

    Raises DataError as `read_pairs`, for a set without a training list, and for an image that two lists name.
    """
    if "train" not in layout.parts:
        raise DataError(f"{layout.name}: no list {layout.list_path('train')}")
    images: list[str] = []
    depths: list[dict[str, str]] = []
    parts: list[Part] = []
    for part in layout.parts:
        pairs = read_pairs(layout.name, layout.base, layout.lists[part])
        images += pairs.images
        depths += [{"depth": depth} for depth in pairs.depths]
        parts += [part] * len(pairs)
    twice = repeated(images)
    if twice:
        raise DataError(
            f"{layout.name}: {len(twice)} images are in two lists, so that the model would be measured on what it "
            f"learnt from: {first_few(twice)}"
        )
    return Manifest(f"{layout.name}/lists", images, depths, parts, rule="by the lists of pairs")


def file_name(name: str) -> str:
    """Of a manifest."""
    return f"{name}-lists.jsonl"
