"""Looks at labelled images before a first spec is written: how many, of how many classes, how large."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.datasets.labelled.own_manifest import read_listing

LOOKED_AT = 64
"""Images that are opened for their sizes, at even distances through the list."""


@dataclass(frozen=True)
class Overview:
    """What a first spec follows from."""

    classes: int
    images: int
    train: int
    """Of them, those that are for training and, where the data name no val, to be held out; without parts: all."""
    parts: frozenset[str]
    """Of train, val and test, those that the data themselves name; empty: none."""
    side: int
    """Median of the shorter sides of the images that were looked at, in pixels."""
    fewest: int
    most: int
    """Images of a class; both 0 where an image may be of several."""
    several_labels: bool = False


def overview(info: LabelledDataset, root: Path) -> Overview:
    """Looks at the data: reads their lists, and opens a few images. Raises DataError."""
    if info.own is not None:
        listing = read_listing(info.own, root)
        base = info.own.base(root)
        train = len(listing.images) if listing.parts is None else listing.parts.count("train")
        return Overview(
            len(listing.names), len(listing.images), train, frozenset(listing.parts or ()),
            _side(info.own.opened(base, _few(listing.images)), info, root),
            *_balance(listing.labels if not info.several_labels else ()), several_labels=info.several_labels,
        )  # fmt: skip
    parts = frozenset({"train", "test", *(["val"] if info.official_val else [])} if info.test else {"train", "val"})
    labels: Sequence[Any] = ()
    if info.source == "folder":
        paths, found = info.files(root)
        images: Any = _few(paths)
        labels = found or ()
    else:
        from tasks.datasets.labelled.bundled_images import load_bundled

        part = load_bundled(info, root)
        images, labels = part.images[:LOOKED_AT], part.labels.tolist()
    side = _side(images, info, root)
    return Overview(
        info.classes,
        info.trainval + info.test,
        info.train if info.official_val else info.trainval,
        parts,
        side,
        *_balance(labels),
        several_labels=info.several_labels,
    )


def _few(items: Sequence[Any]) -> list[Any]:
    rows = np.linspace(0, len(items) - 1, min(LOOKED_AT, len(items))).astype(int)
    return [items[row] for row in rows]


def _side(images: Any, info: LabelledDataset, root: Path) -> int:
    from tasks.datasets.images.open import open_images

    source = open_images(info.name, info.files_root(root), images)
    return int(np.median([min(source.image(i).size) for i in range(len(source))]))


def _balance(labels: Sequence[Any]) -> tuple[int, int]:
    counts = Counter(labels).values()
    return (min(counts), max(counts)) if counts else (0, 0)
