"""A folder layout of sequences: which there are, where the frames and boxes of each lie, and which frames count."""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from tasks.datasets.files import SUFFIXES, ignored
from tasks.datasets.sequences.rows import read_boxes
from tasks.datasets.sequences.types import Flags, Floats, Part, Protocol, Sequence
from tasks.errors import DataError

_NUMBER = re.compile(r"(\d{1,9})\.[A-Za-z]+$")


@dataclass(frozen=True)
class Place:
    """Files of a sequence, below the folder of the data set."""

    frames: str
    """Folder of its frames."""
    boxes: str
    others: tuple[str, ...] = ()
    """Further files with a number for each frame, and files that say something of the sequence."""

    @property
    def files(self) -> tuple[str, ...]:
        """All annotation files."""
        return (self.boxes, *self.others)


@dataclass(frozen=True)
class Shown:
    """What else than boxes is known of the frames of a sequence."""

    visible: Flags
    """(frames,): the object is neither absent nor hidden nor out of view."""
    counted: Flags
    """(frames,): see types.Sequence."""
    fps: float


@dataclass(frozen=True)
class FolderLayout(ABC):
    """How a data set lies in folders."""

    name: str
    """Of the data set, for messages."""
    fps: float = 30.0
    """Frames per second, where no file says."""
    kind: Literal["otb", "got10k"] = "otb"
    """How trackers are measured, see types.Protocol."""

    origin: ClassVar[float] = 0
    """What the files call the left and upper edge of an image."""
    strict: ClassVar[bool] = False
    """Data of one's own, which can be corrected: as many frames as boxes, and no box without area where the object is
    not marked as hidden. In published sets frames without a box end some sequences (LaSOT's toolkit cuts off those of
    monkey-17), and boxes without area stand for absent objects."""
    first_only: ClassVar[tuple[Part, ...]] = ()
    """Parts of which the first box alone is public."""

    @abstractmethod
    def names(self, base: Path, part: Part) -> list[str]:
        """The sequences of a part, in the order of its list; none where the part is not there. `base`: the folder of
        the data set. Raises DataError."""

    @abstractmethod
    def place(self, part: Part, sequence: str) -> Place: ...

    @abstractmethod
    def frame(self, number: int) -> str:
        """The name of a frame; `number`: from 0."""

    @abstractmethod
    def shown(self, base: Path, place: Place, count: int) -> Shown:
        """`count`: boxes of the sequence, all of them public. Raises DataError."""

    def protocol(self, part: Part) -> Protocol:
        return Protocol(self.kind, part not in self.first_only)

    def read(self, base: Path, part: Part, sequence: str, look: bool) -> Sequence:
        """A sequence. `look`: compare its frames with the folder; else their names follow from their number.

        Raises DataError naming file, value and remedy.
        """
        place = self.place(part, sequence)
        boxes = read_boxes(base / place.boxes, self.name) - np.array([self.origin, self.origin, 0, 0])
        if part in self.first_only:
            return self._without_boxes(place, sequence, boxes, self.frames(base, place))
        shown = self.shown(base, place, len(boxes))
        look = look or self.strict
        frames = self.looked(base, place, sequence, len(boxes)) if look else self._numbered(place, len(boxes))
        has_area = (boxes[:, 2:] > 0).all(-1)
        visible = shown.visible & has_area
        if part != "train":
            self._check_first(base / place.boxes, sequence, boxes, visible)
        if self.strict:
            self._check_own(place, part, sequence, boxes, shown.visible)
        counted = shown.counted & has_area if self.kind == "otb" else shown.counted
        return Sequence(sequence, frames, boxes, visible, counted, shown.fps)

    def _without_boxes(self, place: Place, sequence: str, boxes: Floats, frames: tuple[str, ...]) -> Sequence:
        if len(boxes) != 1:
            raise DataError(
                f"{self.name}: {place.boxes} has {len(boxes)} boxes; of this part the first alone is public: get this "
                "file again"
            )
        visible = np.zeros(len(frames), dtype=np.bool_)
        visible[0] = True
        self._check_first(Path(place.boxes), sequence, boxes, visible)
        return Sequence(sequence, frames, boxes, visible, np.zeros_like(visible), self.fps)

    def _numbered(self, place: Place, count: int) -> tuple[str, ...]:
        return tuple(f"{place.frames}/{self.frame(number)}" for number in range(count))

    def frames(self, base: Path, place: Place) -> tuple[str, ...]:
        """All frames in the folder, by number, below `base`. Raises DataError as `frames_in`, and where a published
        sequence does not begin with its first frame: each box would then be taken for that of the frame before."""
        frames = frames_in(base, place.frames, self.name)
        if self.strict:
            return frames
        found = frames[0].rpartition("/")[2]
        if _number(found) != _number(self.frame(0)):
            raise DataError(
                f"{self.name}: {base / place.frames} begins with frame {found}, and lacks {self.frame(0)}; get it again"
            )
        return frames

    def looked(self, base: Path, place: Place, sequence: str, boxes: int) -> tuple[str, ...]:
        """The frames in the folder, one for each box. Raises DataError for one that is missing, and for too many."""
        frames = self.frames(base, place)
        if len(frames) < boxes or (len(frames) > boxes and self.strict):
            raise DataError(
                f"{self.name}: sequence {sequence} has {len(frames)} frames in {place.frames} and {boxes} boxes in "
                f"{place.boxes}; each frame needs its box: get both again"
            )
        return frames[:boxes]

    def _check_own(self, place: Place, part: Part, sequence: str, boxes: Floats, shown: Flags) -> None:
        """What is a mistake in data of one's own. `shown`: (frames,): those that are not marked as hidden."""
        empty = shown & (boxes[:, 2:] <= 0).any(-1)
        if empty.any():
            raise DataError(self.without_area(place, sequence, boxes, empty))
        if shown.any() and (np.abs(boxes[shown]) <= 1).all():
            raise DataError(
                f"{self.name}: {place.boxes}: all numbers of {sequence} lie within -1 and 1, as parts of a frame's "
                "sides do; write x, y, width, height in pixels"
            )
        if part != "train" and not shown[1:].any():
            raise DataError(
                f"{self.name}: sequence {sequence} shows its object in the first frame alone, whose box is given, so "
                "there is nothing to track; add frames that show it, or remove the folder"
            )

    def without_area(self, place: Place, sequence: str, boxes: Floats, wrong: Flags) -> str:
        """The message about boxes without area. `wrong`: (frames,): which these are."""
        number = int(np.flatnonzero(wrong)[0])
        width, height = boxes[number, 2:].tolist()
        more = f" ({int(wrong.sum())} such boxes)" if wrong.sum() > 1 else ""
        return (
            f"{self.name}: {place.boxes}, line {number + 1}: the box of {sequence} is {width:g} x {height:g} "
            f"pixels{more}; correct it, or mark the frame as hidden"
        )

    def _check_first(self, path: Path, sequence: str, boxes: Floats, visible: Flags) -> None:
        width, height = boxes[0, 2:].tolist()
        if min(width, height) <= 0:
            raise DataError(
                f"{self.name}: {path}, line 1: the first box of {sequence} is {width:g} x {height:g} pixels, so there "
                "is nothing to track; begin the sequence where the object shows"
            )
        if not visible[0]:
            raise DataError(
                f"{self.name}: sequence {sequence} says that the object is absent or hidden in its first frame, so "
                "there is nothing to track; begin it where the object shows"
            )


def frames_in(base: Path, folder: str, name: str) -> tuple[str, ...]:
    """The images of a folder by the number that ends their name, below `base`. Raises DataError when there is none, or
    when a number between two others is missing or there twice."""
    numbered = _images(base / folder, name)
    if not numbered:
        raise DataError(
            f"{name}: no frames in {base / folder}; unpack them there, with a number at the end of each name"
        )
    for (before, first), (after, second) in itertools.pairwise(numbered):
        if after == before:
            raise DataError(f"{name}: {base / folder} has frame {after} twice: {first} and {second}; remove one")
        if after > before + 1:
            raise DataError(
                f"{name}: {base / folder}: frame {before + 1} is missing between {first} and {second}; get it again"
            )
    return tuple(f"{folder}/{file}" for _, file in numbered)


def _images(folder: Path, name: str) -> list[tuple[int, str]]:
    try:
        found = [entry.name for entry in folder.iterdir()]
    except OSError as error:
        raise DataError(
            f"{name}: cannot read the folder {folder} ({error.strerror or error}); unpack it again"
        ) from error
    images = [file for file in found if file.lower().endswith(SUFFIXES) and not ignored(file)]
    return sorted((number, file) for file in images if (number := _number(file)) is not None)


def _number(file: str) -> int | None:
    """The number that ends the name of a frame; None where none does."""
    match = _NUMBER.search(file)
    return int(match[1]) if match else None


def check_folders(name: str, base: Path, listed: Path, folders: Mapping[str, str]) -> None:
    """Raises DataError for sequences that a list names and that have no folder. `folders`: of each, below `base`."""
    from tasks.datasets.files import first_few

    there: dict[Path, set[str]] = {}
    for folder in {(base / each).parent for each in folders.values()}:
        try:
            there[folder] = {entry.name for entry in folder.iterdir()}
        except OSError:
            there[folder] = set()
    absent = [key for key, each in folders.items() if (base / each).name not in there[(base / each).parent]]
    if absent:
        raise DataError(
            f"{name}: {len(absent):,} of {len(folders):,} sequences of {listed} have no folder: {first_few(absent)}; "
            "unpack all files of the set, or take them out of the list"
        )
