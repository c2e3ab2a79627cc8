"""Opens a part of a set of instances: objects from arrays in memory, images from files or tar archives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tasks.datasets.files import plain
from tasks.datasets.images.decode import Unreadable
from tasks.datasets.images.open import open_annotated
from tasks.datasets.images.source import StringTable
from tasks.datasets.instances.annotations import Annotated
from tasks.datasets.instances.types import Instances, InstanceSet, Part, Pixels


class OpenedInstances(InstanceSet):
    """A part as its annotation file has it."""

    def __init__(self, name: str, root: Path, part: Part, found: Annotated, path: Path, folder: str) -> None:
        """`root`: the folder of the data set; `path`: the annotation file; `folder`: of the images, below the root.
        Raises DataError for images that are not there."""
        self.name, self.root, self.part = name, root, part
        self.classes, self.category_ids = found.classes, found.category_ids
        self.ground_truth_path = path
        names = [plain(f"{folder}/{file}") for file in found.files]
        self.images = open_annotated(self.name, root, names, part)
        self._found, self._learnt = found, found.learnt
        self._names = StringTable(names)
        self.object_counts = np.bincount(found.image_of[self._learnt], minlength=len(found.ids)).astype(np.int64)

    def load(self, index: int) -> Instances:
        found = self._found
        first, last = found.starts[index : index + 2].tolist()
        rows = slice(first, last)
        height, width = found.sizes[index].tolist()
        return Instances(
            image_id=int(found.ids[index]), file=self._names[index], height=height, width=width,
            boxes=found.boxes(rows, index), labels=found.labels[rows],
            masks=tuple(found.rle(row, index) for row in range(first, last)),
            crowd=found.crowd[rows], area=found.area[rows], learnt=self._learnt[rows],
        )  # fmt: skip

    def image(self, index: int) -> Pixels:
        pixels = self.images.pixels(index)
        height, width = self._found.sizes[index].tolist()
        if pixels.shape[:2] != (height, width):
            raise Unreadable(
                f"{self.name}: image {self.images.where(index)} has {pixels.shape[0]} x {pixels.shape[1]} pixels, and "
                f"its annotations are for {height} x {width} (height x width); correct the file or the annotations"
            )
        return pixels

    def coco_json(self) -> dict[str, Any]:
        found = self._found
        sizes, ids = found.sizes.tolist(), found.ids.tolist()
        images = [
            {"id": number, "file_name": file, "height": height, "width": width}
            for number, file, (height, width) in zip(ids, found.files, sizes, strict=True)
        ]
        owners = found.image_of.tolist()
        rows = zip(found.given.tolist(), found.labels.tolist(), found.crowd.tolist(), found.area.tolist(), strict=True)
        annotations = [
            {
                "id": row + 1, "image_id": ids[owners[row]], "category_id": self.category_ids[label], "bbox": box,
                "area": area, "iscrowd": int(crowd), "segmentation": found.rle(row, owners[row]),
            }
            for row, (box, label, crowd, area) in enumerate(rows)
        ]  # fmt: skip
        categories = zip(self.category_ids, self.classes, strict=True)
        return {
            "info": {}, "images": images, "annotations": annotations,
            "categories": [{"id": number, "name": name} for number, name in categories],
        }  # fmt: skip
