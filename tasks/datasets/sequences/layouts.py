"""The published layouts of GOT-10k, TrackingNet and LaSOT, and the simple one of data of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from tasks.datasets.files import first_few, ignored
from tasks.datasets.sequences import lasot_lists
from tasks.datasets.sequences.got10k_lists import Taken, numbers_left_out
from tasks.datasets.sequences.layout import FolderLayout, Place, Shown, check_folders
from tasks.datasets.sequences.rows import read_info, read_names, read_numbers
from tasks.datasets.sequences.types import Part
from tasks.errors import DataError


@dataclass(frozen=True)
class Got10k(FolderLayout):
    """train, val and test, each with list.txt and a folder a sequence: 00000001.jpg .., groundtruth.txt, absence.label
    (1: the object is absent), cover.label (0 to 8: how much of it shows), meta_info.ini."""

    first_only = ("test",)
    fps: float = 10.0
    kind: Literal["otb", "got10k"] = "got10k"
    taken: Taken = "reference"

    def names(self, base: Path, part: Part) -> list[str]:
        path = base / part / "list.txt"
        if not path.exists():
            return []
        names = read_names(path, self.name)
        if part == "train":
            left_out = numbers_left_out(self.taken)
            names = [name for name in names if self._number(name, path) not in left_out]
        check_folders(self.name, base, path, {name: f"{part}/{name}" for name in names})
        return names

    def _number(self, sequence: str, path: Path) -> int:
        digits = sequence.rpartition("_")[2]
        if not digits.isdecimal():
            raise DataError(
                f"{self.name}: {path} names {sequence!r}; GOT-10k's names end in a number, GOT-10k_Train_000001"
            )
        return int(digits)

    def place(self, part: Part, sequence: str) -> Place:
        folder = f"{part}/{sequence}"
        others = () if part == "test" else ("absence.label", "cover.label", "meta_info.ini")
        return Place(folder, f"{folder}/groundtruth.txt", tuple(f"{folder}/{other}" for other in others))

    def frame(self, number: int) -> str:
        return f"{number + 1:08d}.jpg"

    def shown(self, base: Path, place: Place, count: int) -> Shown:
        absence, cover, info = (base / other for other in place.others)
        covered = read_numbers(cover, self.name, count) > 0
        counted = covered.copy()
        counted[0] = False
        return Shown(covered & (read_numbers(absence, self.name, count) == 0), counted, self._fps(info))

    def _fps(self, info: Path) -> float:
        """`anno_fps`: at which the sequence is annotated, and its frames lie."""
        stated = read_info(info, self.name, "anno_fps")
        try:
            fps = float(stated.removesuffix("Hz"))
            if fps > 0:
                return fps
        except ValueError:
            pass
        raise DataError(f"{self.name}: {info}: anno_fps: {stated!r} is no number of frames a second, as 10Hz is")


@dataclass(frozen=True)
class TrackingNet(FolderLayout):
    """TRAIN_0 to TRAIN_11 and TEST, each with anno/NAME.txt and frames/NAME/0.jpg ..; no part val."""

    first_only = ("test",)
    CHUNKS: ClassVar[int] = 12

    def names(self, base: Path, part: Part) -> list[str]:
        chunks = {"train": [f"TRAIN_{number}" for number in range(self.CHUNKS)], "test": ["TEST"]}.get(part, [])
        found: dict[str, str] = {}
        for chunk in chunks:
            if not (base / chunk).is_dir():
                continue
            try:
                files = sorted(path.name for path in (base / chunk / "anno").iterdir() if path.suffix == ".txt")
            except OSError as error:
                raise DataError(
                    f"{self.name}: {base / chunk} has no folder anno ({error.strerror}); unpack it"
                ) from error
            found |= {f"{chunk}/{file[:-4]}": f"{chunk}/frames/{file[:-4]}" for file in files if not ignored(file)}
        check_folders(self.name, base, base / f"{'TRAIN_n' if part == 'train' else 'TEST'}/anno", found)
        return list(found) if part == "train" else [key.removeprefix("TEST/") for key in found]

    def place(self, part: Part, sequence: str) -> Place:
        chunk, _, name = sequence.rpartition("/")
        chunk = chunk or "TEST"
        return Place(f"{chunk}/frames/{name}", f"{chunk}/anno/{name}.txt")

    def frame(self, number: int) -> str:
        return f"{number}.jpg"

    def shown(self, base: Path, place: Place, count: int) -> Shown:
        """Nothing is said of frames: each shows its object where its box has an area."""
        return Shown(np.ones(count, dtype=np.bool_), np.ones(count, dtype=np.bool_), self.fps)


@dataclass(frozen=True)
class Lasot(FolderLayout):
    """A folder a category, in it one a sequence: img/00000001.jpg .., groundtruth.txt, full_occlusion.txt and
    out_of_view.txt (1: hidden, gone). Positions count from 1, as in SwinTrack's reader. training_set.txt and
    testing_set.txt may name other sequences than LaSOT's second protocol does. No part val."""

    origin = 1

    def names(self, base: Path, part: Part) -> list[str]:
        if not base.is_dir() or part == "val":
            return []
        lists = {each: self._listed(base, each) for each in ("train", "test")}
        (trained, training), (tested, testing) = lists.values()
        if both := sorted({*trained} & {*tested}):
            raise DataError(
                f"{self.name}: {len(both):,} sequences are in {training} and in {testing}, so that trackers would be "
                f"measured on what they learnt from: {first_few(both)}; take them out of one"
            )
        names, listed = lists[part]
        check_folders(self.name, base, listed, {name: f"{name.rpartition('-')[0]}/{name}" for name in names})
        return names

    def _listed(self, base: Path, part: str) -> tuple[list[str], Path]:
        """The names of a part, and the list that has them."""
        path = base / ("training_set.txt" if part == "train" else "testing_set.txt")
        if path.exists():
            return read_names(path, self.name), path
        return lasot_lists.sequences(part), Path(f"LaSOT's list of {part}")

    def place(self, part: Part, sequence: str) -> Place:
        folder = f"{sequence.rpartition('-')[0]}/{sequence}"
        others = (f"{folder}/full_occlusion.txt", f"{folder}/out_of_view.txt")
        return Place(f"{folder}/img", f"{folder}/groundtruth.txt", others)

    def frame(self, number: int) -> str:
        return f"{number + 1:08d}.jpg"

    def shown(self, base: Path, place: Place, count: int) -> Shown:
        hidden, gone = (read_numbers(base / other, self.name, count) > 0 for other in place.others)
        return Shown(~hidden & ~gone, ~hidden & ~gone, self.fps)


BOXES, VISIBLE = "boxes.txt", "visible.txt"


@dataclass(frozen=True)
class Own(FolderLayout):
    """train, val and test, each with a folder a sequence: frames whose names end in consecutive numbers, boxes.txt
    (x,y,width,height a line, 0 at the left and upper edge), and perhaps visible.txt (1 or 0 a line)."""

    strict = True

    def names(self, base: Path, part: Part) -> list[str]:
        if not (base / part).is_dir():
            return []
        folders = sorted(path.name for path in (base / part).iterdir() if path.is_dir() and not ignored(path.name))
        without = [name for name in folders if not (base / part / name / BOXES).is_file()]
        if without:
            raise DataError(
                f"{self.name}: {len(without):,} of {len(folders):,} sequences in {base / part} have no {BOXES}: "
                f"{first_few(without)}; write one, with a line x,y,width,height for each frame, or remove the folder"
            )
        return folders

    def place(self, part: Part, sequence: str) -> Place:
        folder = f"{part}/{sequence}"
        return Place(folder, f"{folder}/{BOXES}", (f"{folder}/{VISIBLE}",))

    def frame(self, number: int) -> str:
        raise AssertionError("frames of one's own have any names, and are looked up")

    def shown(self, base: Path, place: Place, count: int) -> Shown:
        path = base / place.others[0]
        visible = np.ones(count, dtype=np.bool_)
        if path.exists():
            visible = read_numbers(path, self.name, count) > 0
        counted = visible.copy()
        counted[0] &= self.kind == "otb"
        return Shown(visible, counted, self.fps)
