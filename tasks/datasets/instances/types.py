"""What a set of instances gives: images, the objects in them with boxes and masks, and the classes they are of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.images.source import Source

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]
Pixels: TypeAlias = NDArray[np.uint8]


class Rle(TypedDict):
    """COCO's compressed code of a mask, as faster_coco_eval and pycocotools take it."""

    size: list[int]
    """[height, width]"""
    counts: bytes


@dataclass(frozen=True)
class Instances:
    """An image with the n objects in it, in the order of the annotation file."""

    image_id: int
    """Of the annotation file."""
    file: str
    """Below the root of the set."""
    height: int
    width: int
    """Of the image, in pixels, as the annotation file states them; `InstanceSet.image` compares."""
    boxes: Floats
    """(n, 4): left, top, right and lower edge in pixels, cut to the image; 0 is the left or upper edge of the image."""
    labels: Integers
    """(n,): the place of each object's class in `InstanceSet.classes`."""
    masks: tuple[Rle, ...]
    """(n)"""
    crowd: Flags
    """(n,): a region of several objects: never trained on, and neither found nor missed in an evaluation."""
    area: Floats
    """(n,): square pixels as the file states them: by these COCO calls objects small, medium and large."""
    learnt: Flags
    """(n,): objects to train on: no crowd regions, with a mask, and whose box and area are not empty (in the image, a
    pixel wide and high at least), as mmdetection's reader selects them."""

    def mask(self, index: int) -> Flags:
        """(height, width): the pixels of an object."""
        from faster_coco_eval.core import mask

        pixels: NDArray[np.uint8] = mask.decode(self.masks[index])
        return pixels.view(np.bool_)  # of 0 and 1


class InstanceSet(ABC):
    """The images of one part with their objects. Goes to worker processes (fork or pickle), where it does not grow."""

    name: str
    """Of the data set, for messages."""
    root: Path
    """Folder that the names of images are below."""
    part: Part
    images: Source
    """The images alone, for loaders: their sizes are compared with those of the annotations by `image` only."""
    classes: tuple[str, ...]
    """Names, in the order of their ids in the annotation file."""
    category_ids: tuple[int, ...]
    """The id that the annotation file has for each class; there may be gaps."""
    ground_truth_path: Path
    """The annotation file as it is on disk. Evaluators take `coco_json` rather: COCO's matching loses an object whose
    id is 0."""
    object_counts: Integers
    """(images,): objects of each image that are trained on (`Instances.learnt`); 0 for images without any."""

    def __len__(self) -> int:
        return len(self.object_counts)

    @abstractmethod
    def load(self, index: int) -> Instances:
        """An image's objects, from arrays in memory."""

    @abstractmethod
    def image(self, index: int) -> Pixels:
        """(height, width, 3): the image in RGB. May not be written to. Raises Unreadable for one that is missing or
        damaged, or whose size the annotation file does not state."""

    @abstractmethod
    def coco_json(self) -> dict[str, Any]:
        """All objects in COCO's form for an evaluator: the file's boxes, areas and crowd flags, masks as RLE, its image
        and category ids, and ids of annotations from 1 on. A detection of class c has category_ids[c]."""
