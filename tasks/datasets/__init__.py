"""Data sets, by what they hold; and the one list of all that are known."""

from __future__ import annotations

from typing import TypeVar

from tasks.datasets.depth_pairs.dataset import DEPTH_SETS
from tasks.datasets.info import DatasetInfo
from tasks.datasets.labelled.catalog import LABELLED
from tasks.datasets.persons.catalog import POSE
from tasks.datasets.photo_tiles import PHOTO_TILES
from tasks.spelling import nearest

DATASETS: dict[str, DatasetInfo] = {info.name: info for info in (*LABELLED, PHOTO_TILES, *POSE, *DEPTH_SETS)}

Info = TypeVar("Info", bound=DatasetInfo)


def find_dataset(name: str, *kinds: type[Info]) -> Info:
    """The data set of this name, of one of these kinds. Raises ValueError with the nearest and all their names."""
    info = DATASETS.get(name)
    if isinstance(info, kinds):
        return info
    known = [each.name for each in DATASETS.values() if isinstance(each, kinds)]
    near = "".join(f"nearest: {other!r}; " for other in nearest(name, known))
    raise ValueError(f"unknown data set {name!r}; {near}known: {', '.join(sorted(known))}")
