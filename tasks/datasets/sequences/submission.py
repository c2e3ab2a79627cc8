"""Writes and checks the files that the servers of GOT-10k and TrackingNet take, whose test boxes are not public."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.datasets.files import first_few
from tasks.datasets.sequences.dataset import FolderSequences, SequenceDataset
from tasks.datasets.sequences.rows import read_boxes
from tasks.datasets.sequences.types import Floats, Sequence
from tasks.errors import DataError

MOST_LINES = 20
"""Of faults; the others are counted."""


@dataclass(frozen=True)
class Tracked:
    """What a tracker found in one sequence."""

    boxes: Floats
    """(frames, 4): x, y, width, height in pixels, 0 at the left and upper edge; the first is the one given."""
    seconds: Floats
    """(frames,): what each took."""


def write_submission(card: SequenceDataset, results: Mapping[str, Tracked], folder: Path) -> Path:
    """Writes the files of all sequences into `folder`, and beside it a zip file of them, whole or not at all; its path.

    GOT-10k: NAME/NAME_001.txt with a line x,y,width,height for each frame and NAME/NAME_time.txt with the seconds, as
    got-10k/toolkit writes them for a tracker that gives the same boxes each time. TrackingNet: NAME.txt, as its
    development kit reads it. Raises DataError for a set without a server, and OSError.
    """
    files = dict[str, str]()
    for name, tracked in sorted(results.items()):
        if _form(card) == "Got10k":
            files[f"{name}/{name}_001.txt"] = _lines(tracked.boxes, 3)
            files[f"{name}/{name}_time.txt"] = _lines(tracked.seconds[:, None], 8)
        else:
            files[f"{name}.txt"] = _lines(tracked.boxes, 2)
    for file, text in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    packed = folder.with_name(f"{folder.name}.zip")
    part = packed.with_name(f".{packed.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, text in files.items():
                archive.writestr(file, text)
        part.replace(packed)
    finally:
        part.unlink(missing_ok=True)
    return packed


def _form(card: SequenceDataset) -> str:
    form = card.form if isinstance(card, FolderSequences) else ""
    if form not in ("Got10k", "TrackingNet"):
        raise DataError(f"{card.name} has no server: its boxes are public, and figures are measured here")
    return form


def _lines(rows: Floats, digits: int) -> str:
    return "".join(",".join(f"{value:.{digits}f}" for value in row) + "\n" for row in rows.tolist())


def check_submission(card: SequenceDataset, sequences: Mapping[str, Sequence], folder: Path) -> list[str]:
    """A line for each fault of the files in `folder`, as the server would find them; none: it can be sent.

    `sequences`: those of the test part, by name. Raises DataError for a set without a server.
    """
    form = _form(card)
    wanted = {f"{name}/{name}_001.txt" if form == "Got10k" else f"{name}.txt": name for name in sequences}
    timed = {f"{name}/{name}_time.txt": name for name in sequences} if form == "Got10k" else {}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.txt")}
    faults = list[str]()
    for what, names in (("lacks", wanted.keys() - found), ("should not have", found - wanted.keys())):
        names -= timed.keys() if what != "lacks" else set()
        if names:
            faults.append(f"{folder} {what} {len(names)} files: {first_few(sorted(names))}")
    for file in sorted(wanted.keys() & found):
        faults += _box_faults(folder / file, card.name, sequences[wanted[file]], 0.01)
    for file, name in sorted(timed.items()):
        faults += _time_faults(folder / file, len(sequences[name].frames))
    return faults[:MOST_LINES] + ([f"{len(faults) - MOST_LINES} other faults"] if len(faults) > MOST_LINES else [])


def _box_faults(path: Path, name: str, sequence: Sequence, near: float) -> list[str]:
    """`near`: pixels that rounding may change."""
    try:
        boxes = read_boxes(path, name)
    except DataError as error:
        return [str(error).removeprefix(f"{name}: ")]
    if len(boxes) != len(sequence.frames):
        return [f"{path} has {len(boxes)} boxes, and the sequence {len(sequence.frames)} frames: track it again"]
    empty = np.flatnonzero((boxes[:, 2:] <= 0).any(-1))
    if len(empty):
        return [f"{path}, line {int(empty[0]) + 1}: a box without area; a tracker gives one in every frame"]
    if not np.allclose(boxes[0], sequence.boxes[0], rtol=0, atol=near):
        return [f"{path}, line 1: {boxes[0].tolist()} is not the box that was given, {sequence.boxes[0].tolist()}"]
    return []


def _time_faults(path: Path, frames: int) -> list[str]:
    try:
        seconds = np.array(path.read_text().split(), dtype=np.float64)
    except (OSError, ValueError) as error:
        return [f"{path}: no seconds for each frame ({error}); track the sequence again"]
    if len(seconds) != frames or not (seconds >= 0).all():
        return [f"{path} has {len(seconds)} times for {frames} frames, or one below 0; track the sequence again"]
    return []
