"""Data sets, by what they hold; the one list of all that are known; and those that a path and a kind describe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from tasks.datasets.class_maps.catalog import CLASS_MAPS
from tasks.datasets.class_maps.described import ClassMaps
from tasks.datasets.depth_pairs.dataset import DEPTH_SETS
from tasks.datasets.depth_pairs.described import DepthPairs
from tasks.datasets.described import DatasetDescription
from tasks.datasets.files import list_lines
from tasks.datasets.info import DatasetInfo
from tasks.datasets.instances.catalog import INSTANCES
from tasks.datasets.instances.described import InstancesDescription
from tasks.datasets.labelled.catalog import LABELLED
from tasks.datasets.labelled.kinds import KINDS, kind_of_path
from tasks.datasets.persons.catalog import POSE
from tasks.datasets.persons.described import CocoDescription
from tasks.datasets.photo_tiles import PHOTO_TILES
from tasks.datasets.sequences.catalog import SEQUENCES
from tasks.datasets.sequences.described import SequencesDescription
from tasks.spelling import nearest

DATASETS: dict[str, DatasetInfo] = {
    info.name: info for info in (*LABELLED, PHOTO_TILES, *POSE, *DEPTH_SETS, *SEQUENCES, *INSTANCES, *CLASS_MAPS)
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
    **KINDS, "coco": CocoDescription, "depth_pairs": DepthPairs, "sequences": SequencesDescription,
    "coco_instances": InstancesDescription, "class_maps": ClassMaps,
}  # fmt: skip
"""Every kind of data set that a spec describes; the `data` commands take these by their path. Two tasks have the kind
coco: that of objects is coco_instances here."""
_DEPTH_FILES = (".png", ".tif", ".tiff")


def _looks_like(path: Path) -> str:
    """The kind of the data at a path: annotations in COCO's place, maps in ADE20K's, a folder of frames with boxes.txt,
    a train.txt that names depth maps, or labels."""
    from tasks.datasets.sequences.layouts import BOXES  # late: it needs NumPy, which specs are read without

    marks = {
        "coco": "annotations/person_keypoints_*.json", "coco_instances": "annotations/instances_*.json",
        "class_maps": "annotations/*/*.png", "sequences": f"*/*/{BOXES}",
    }  # fmt: skip
    for kind, pattern in marks.items():
        if next(path.glob(pattern), None):
            return kind
    try:
        first = next((line for _, line in list_lines(path / DepthPairs.model_fields["train"].default)), "")
    except (OSError, ValueError):
        first = ""
    words = first.split()
    return "depth_pairs" if len(words) > 1 and words[1].lower().endswith(_DEPTH_FILES) else kind_of_path(path)


def describe(path: str, kind: str | None, fields: Mapping[str, str], root: Path) -> DatasetInfo:
    """The data at a path (absolute, below the home folder or below `root`, the data root), as `task.dataset: {kind: ..,
    path: .., fields}` of a spec describes them. `kind`: one of DESCRIBED; None: as the files look.

    Raises ValueError naming a field that is wrong.
    """
    kind = kind or _looks_like(root / Path(os.path.expanduser(path)))
    try:
        described = DESCRIBED[kind].model_validate({"kind": kind.removesuffix("_instances"), "path": path, **fields})
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(str(part) for part in wrong["loc"])
        near = nearest(place, DESCRIBED[kind].model_fields) if wrong["type"] == "extra_forbidden" else []
        words = f"{wrong['msg'].removeprefix('Value error, ')}{f'; nearest: {near[0]}' if near else ''}"
        raise ValueError(f"{place}: {words}" if place else words) from error
    return described.info(root)
