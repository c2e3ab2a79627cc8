"""What a set of class maps gives: images, the class of each pixel, names of classes and their colours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.images.source import Source

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
Pixels: TypeAlias = NDArray[np.uint8]
IGNORED = 255
"""In maps as they are read: no class. Such a pixel is neither trained on nor evaluated."""


class ClassMapSet(ABC):
    """The images of one part with a map each. Goes to worker processes (fork or pickle), where it does not grow."""

    name: str
    """Of the data set, for messages."""
    root: Path
    """Folder that the names of files are below."""
    part: Part
    images: Source
    """The images alone, for loaders; in the same order."""
    classes: tuple[str, ...]
    """Names, at most 255."""
    palette: Pixels
    """(classes, 3): the colour of each class in pictures, RGB."""
    ignore: int = IGNORED

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image_name(self, index: int) -> str:
        """The image's file, below `root`."""

    @abstractmethod
    def load(self, index: int) -> tuple[Pixels, Pixels]:
        """Image (height, width, 3) in RGB, and its map (height, width): classes from 0 on, IGNORED for none. Neither
        may be written to. Raises Unreadable for files that are missing, damaged, of different sizes, or with a number
        that is no class."""
