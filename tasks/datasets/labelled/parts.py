"""What the reader of a data set gives: the images of a part, with their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.images.arrow import ArrowImages
from tasks.datasets.labelled.card import LabelledCard

Part = Literal["train", "val", "trainval", "test"]
Images: TypeAlias = Sequence[Path] | NDArray[np.uint8] | ArrowImages
"""Files; pixels, grey (n, height, width) or colour (n, height, width, 3); or images in Arrow files."""
Labels: TypeAlias = Sequence[Any] | NDArray[Any]
"""One class number for each image; or rows (n, classes) of 1, 0 and -1 (see LabelledCard.several_labels)."""
Read = tuple[Images, list[Any]]
"""Images and their labels."""
Reader = Callable[[LabelledCard, Path, Part, int], Read]
"""(card, data root, part, split seed) -> the part. A label comes from one mapping for all parts: never from a rank
among the classes of the part that is read, which is another one where a part lacks a class."""


class LabelledPart(NamedTuple):
    """Images with their labels."""

    images: Images
    labels: Labels
