"""Data sets, by what they hold; the one list of all that are known; and those that a path and a kind describe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from tasks.datasets.depth_pairs.dataset import DEPTH_SETS
from tasks.datasets.described import DatasetDescription
from tasks.datasets.info import DatasetInfo
from tasks.datasets.labelled.catalog import LABELLED
from tasks.datasets.labelled.described import LabelledDescription
from tasks.datasets.labelled.kinds import KINDS, kind_of_path
from tasks.datasets.persons.catalog import POSE
from tasks.datasets.persons.described import CocoDescription
from tasks.datasets.photo_tiles import PHOTO_TILES
from tasks.datasets.sequences.catalog import SEQUENCES
from tasks.datasets.sequences.described import SequencesDescription
from tasks.spelling import nearest

DATASETS: dict[str, DatasetInfo] = {
    info.name: info for info in (*LABELLED, PHOTO_TILES, *POSE, *DEPTH_SETS, *SEQUENCES)
}

Info = TypeVar("Info", bound=DatasetInfo)


def find_dataset(name: str, *kinds: type[Info]) -> Info:
    """The data set of this name, of one of these kinds. Raises ValueError with the nearest and all their names."""
    info = DATASETS.get(name)
    if isinstance(info, kinds):
        return info
    known = [each.name for each in DATASETS.values() if isinstance(each, kinds)]
    near = "".join(f"nearest: {other!r}; " for other in nearest(name, known))
    raise ValueError(f"unknown data set {name!r}; {near}known: {', '.join(sorted(known))}")


DESCRIBED: dict[str, type[DatasetDescription]] = {
    **KINDS, "coco": CocoDescription, "sequences": SequencesDescription,
}  # fmt: skip
"""Kinds of data sets that the `data` commands take by their path."""


def describe(path: str, kind: str | None, fields: Mapping[str, str], root: Path) -> DatasetInfo:
    """The data at a path (absolute, below the home folder or below `root`, the data root), as `task.dataset: {kind: ..,
    path: .., fields}` of a spec describes them. `kind`: one of DESCRIBED; None: as the files look.

    Raises ValueError naming a field that is wrong.
    """
    kind = kind or kind_of_path(root / Path(path).expanduser())
    try:
        described = DESCRIBED[kind].model_validate({"kind": kind, "path": path, **fields})
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(str(part) for part in wrong["loc"])
        near = nearest(place, DESCRIBED[kind].model_fields) if wrong["type"] == "extra_forbidden" else []
        words = f"{wrong['msg'].removeprefix('Value error, ')}{f'; nearest: {near[0]}' if near else ''}"
        raise ValueError(f"{place}: {words}" if place else words) from error
    if isinstance(described, CocoDescription | SequencesDescription):
        return described.dataset()
    assert isinstance(described, LabelledDescription)
    return described.info(root)
