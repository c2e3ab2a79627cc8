"""Opens sequences: those in folders by their layout, and the objects in COCO's images as still ones."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from collections.abc import Sequence as Several
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.contents import Content, contents, remembered_in
from tasks.datasets.files import open_regular
from tasks.datasets.images.source import StringTable
from tasks.datasets.sequences.layout import FolderLayout, Place
from tasks.datasets.sequences.types import Flags, Floats, Part, Protocol, Sequence, SequenceSet
from tasks.errors import DataError


@dataclass(frozen=True)
class Surveyed:
    """The sequences of a part before they are opened."""

    names: Several[str]
    lengths: Several[int]
    """Frames of each; of still images, objects."""
    digests: Several[str]
    """Of each: SHA-256 (hex, its first half) of what its annotations come to."""


def survey(layout: FolderLayout, base: Path, root: Path, part: Part, folders: Several[Path], whole: bool) -> Surveyed:
    """Reads all annotation files of a part; once, after that they are known by size and time of their last change.

    `root`: the data root; `folders`: where else digests may be kept; `whole`: see SequenceDataset.surveyed. Raises
    DataError.
    """
    names = layout.names(base, part)
    if not names:
        return Surveyed((), (), ())
    places = [layout.place(part, name) for name in names]
    files = [[file for file in place.files if not layout.strict or (base / file).exists()] for place in places]
    if whole:
        for some, name in zip(files, names, strict=True):
            some += layout.read(base, part, name, look=True).frames
    flat = [file for some in files for file in some]
    read = contents(
        layout.name,
        base,
        flat,
        remembered_in(root, folders),
        counted_lines,
        f"sequences of {part}{' with frames' if whole else ''}",
    )
    known = dict(zip(flat, (each[0] for each in read), strict=True))
    digests = [_together(known[file][1] for file in some) for some in files]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # a network file system answers many questions at once
        lengths = list(pool.map(lambda place: _length(layout, base, part, place, known[place.boxes][0]), places))
    return Surveyed(names, lengths, digests)


def _length(layout: FolderLayout, base: Path, part: Part, place: Place, boxes: int) -> int:
    return len(layout.frames(base, place)) if part in layout.first_only else boxes


def counted_lines(path: Path) -> list[Content]:
    """Lines of a file that are not empty, and the first half of its SHA-256. Raises OSError."""
    with open_regular(path) as file:
        content = file.read()
    return [(sum(1 for line in content.split(b"\n") if line.strip()), hashlib.sha256(content).hexdigest()[:32])]


def _together(digests: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:32]


class FolderSet(SequenceSet):
    """Sequences in folders."""

    def __init__(self, layout: FolderLayout, base: Path, part: Part, surveyed: Surveyed) -> None:
        self.name, self.root, self.part, self.protocol = layout.name, base, part, layout.protocol(part)
        self.lengths = np.array(surveyed.lengths, dtype=np.int64)
        self._layout, self._names = layout, StringTable(surveyed.names)

    def sequence_name(self, index: int) -> str:
        return self._names[index]

    def load(self, index: int) -> Sequence:
        """Of train the frames are not looked for: a pair needs two of them, and says so itself if one is missing."""
        sequence = self._layout.read(self.root, self.part, self._names[index], look=self.part != "train")
        if len(sequence.frames) != self.lengths[index]:
            raise DataError(
                f"{self.name}: sequence {sequence.name} has {len(sequence.frames)} frames, and had "
                f"{self.lengths[index]} when the set was opened; submit again when its files no longer change"
            )
        return sequence


@dataclass(frozen=True)
class Objects:
    """Annotated objects of images, by image."""

    files: Several[str]
    """Of each image, below the folder of the data set."""
    ends: NDArray[np.int64]
    """(images + 1,): where the objects of each begin, and those of the last end."""
    boxes: Floats
    """(objects, 4)"""

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.ends)

    def digest(self, image: int) -> str:
        rows = self.boxes[self.ends[image] : self.ends[image + 1]]
        return hashlib.sha256(rows.tobytes()).hexdigest()[:32]


class StillSet(SequenceSet):
    """Images whose objects are sequences of one frame."""

    def __init__(self, name: str, base: Path, part: Part, objects: Objects) -> None:
        self.name, self.root, self.part, self.protocol = name, base, part, Protocol("otb", True)
        self.lengths = objects.lengths
        self._files, self._ends, self._boxes = StringTable(objects.files), objects.ends, objects.boxes

    def sequence_name(self, index: int) -> str:
        return self._files[index]

    def load(self, index: int) -> Sequence:
        boxes = self._boxes[self._ends[index] : self._ends[index + 1]]
        shown: Flags = np.ones(len(boxes), dtype=np.bool_)
        file = self._files[index]
        return Sequence(file, (file,) * len(boxes), boxes.copy(), shown, ~shown, fps=1.0, still=True)
