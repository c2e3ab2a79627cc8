"""What a set of sequences gives: frames, boxes, which of them show the object, and how trackers are measured on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Part = Literal["train", "val", "test"]
Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]
Pixels: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class Protocol:
    """How trackers are measured on a part of a set."""

    kind: Literal["otb", "got10k"]
    """`otb`: one-pass evaluation; success, precision and normalised precision, a mean over sequences. `got10k`: average
    overlap over all counted frames of all sequences together."""
    public_labels: bool
    """False: boxes after the first are with the makers' server; results are written as a submission."""


@dataclass(frozen=True)
class Sequence:
    """One object in consecutive frames; or, still, all objects of one image."""

    name: str
    frames: tuple[str, ...]
    """Paths relative to the set's root."""
    boxes: Floats
    """(frames, 4): x, y, width, height in pixels; 0 is the left or upper edge of the image. One row (1, 4) where only
    the first box is public."""
    visible: Flags
    """(frames,): False where the object is absent, hidden or out of view, or its box has no area: such frames are never
    drawn for training."""
    counted: Flags
    """(frames,): frames that figures are over. `otb`: where the object is neither hidden nor out of view and its box
    has an area, the first one included, as SwinTrack's code has it. `got10k`: where some of it shows, without the first
    one, as the got10k toolkit has it."""
    fps: float
    """Frames per second."""
    still: bool = False
    """One image (COCO): `frames` names it once for each object in it, and a row is paired with itself."""


class SequenceSet(ABC):
    """The sequences of one part, opened. Goes to worker processes (fork or pickle), where it does not grow."""

    name: str
    """Of the data set, for messages."""
    root: Path
    """Folder that the names of frames are below."""
    part: Part
    protocol: Protocol
    lengths: NDArray[np.int64]
    """(sequences,): frames (of a still image: objects) of each; read when the set is opened, without its boxes."""

    def __len__(self) -> int:
        return len(self.lengths)

    @abstractmethod
    def sequence_name(self, index: int) -> str:
        """Unique within the set."""

    @abstractmethod
    def load(self, index: int) -> Sequence:
        """Reads the annotations of a sequence. Raises DataError naming file, value and remedy."""

    def image(self, path: str) -> Pixels:
        """(height, width, 3): a frame in RGB, in an array that may not be written to. Raises Unreadable for one that is
        missing or damaged."""
        from tasks.datasets.images.decode import opened_pixels

        return opened_pixels(self.root / path, self.name, str(self.root / path))
