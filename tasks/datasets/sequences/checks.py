"""Looks for faults in the frames and boxes of sequences, for `data check`: a line for each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.datasets.files import first_few, is_filled
from tasks.datasets.images.decode import Unreadable, opened
from tasks.datasets.info import Finding, Watch
from tasks.datasets.sequences.layout import FolderLayout, Place
from tasks.datasets.sequences.opened import Surveyed
from tasks.datasets.sequences.types import Part, Sequence
from tasks.errors import DataError

MOST_LINES = 20
"""Of faults of one part; the others are counted."""


def look_at_folders(
    layout: FolderLayout, base: Path, part: Part, found: Surveyed, finding: Finding, images: bool, watch: Watch
) -> None:
    """Reads every sequence: boxes, flags, and whether its frames are there; of those to track the first frame."""

    def one(name: str) -> tuple[list[str], int, int]:
        """Faults, frames opened, boxes without area in frames that are not marked as hidden."""
        try:
            sequence = layout.read(base, part, name, look=True)
        except DataError as error:
            return [_short(layout.name, error)], 0, 0
        place = layout.place(part, name)
        rows = range(len(sequence.frames)) if images else range(part != "train")
        looks = {row: _look(base, sequence.frames[row], layout.name) for row in rows}
        faults = [fault for fault, _ in looks.values() if fault and images]
        faults += _outside(layout, place, part, sequence, {row: size for row, (_, size) in looks.items() if size})
        empty = 0
        if part not in layout.first_only:
            shown = layout.shown(base, place, len(sequence.boxes)).visible
            empty = int((shown & ~(sequence.boxes[:, 2:] > 0).all(-1)).sum())
        return faults, len(sequence.frames) if images else 0, empty

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # reading and decoding let other threads run
        results = list(watch(pool.map(one, found.names), len(found.names)))
    _add(finding, part, (fault for faults, _, _ in results for fault in faults))
    if images:
        finding.opened = (finding.opened or 0) + sum(count for _, count, _ in results)
    empty = sum(count for *_, count in results)
    if empty:
        finding.notes.append(f"{part}: {empty:,} boxes without area in frames that are not marked as hidden; not used")


def _outside(
    layout: FolderLayout, place: Place, part: Part, sequence: Sequence, sizes: Mapping[int, tuple[int, int]]
) -> list[str]:
    """Of a sequence to track whether its first box lies outside of its frame, of one's own whether any does: the first
    of them. `sizes`: width and height of frames that were read."""
    for row in range(len(sequence.boxes) if layout.strict else part != "train"):
        if row not in sizes or not sequence.visible[row]:
            continue
        (x, y, across, down), (width, height) = sequence.boxes[row].tolist(), sizes[row]
        if min(x + across, y + down) <= 0 or x >= width or y >= height:
            remedy = "mark the frame as hidden" if row or part == "train" else "leave the sequence out"
            return [
                f"{place.boxes}, line {row + 1}: the box of {sequence.name} lies outside of its frame of {width} x "
                f"{height} pixels; correct it, or {remedy}"
            ]
    return []


def look_at_stills(
    name: str, base: Path, part: Part, found: Surveyed, finding: Finding, images: bool, watch: Watch
) -> None:
    """Whether the images are there; with `images` opens them."""
    absent = {file for file in found.names if not is_filled(base / file)}
    if absent:
        share = f"{len(absent):,} of {len(found.names):,}"
        finding.problems.append(
            f"{share} images that the annotations of {part} name are not there or empty: {first_few(sorted(absent))}"
        )
    if not images:
        return
    present = [file for file in found.names if file not in absent]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = list(watch(pool.map(lambda file: _look(base, file, name), present), len(present)))
    finding.opened = (finding.opened or 0) + len(present)
    _add(finding, part, (fault for fault, _ in looks if fault))


def _add(finding: Finding, part: Part, faults: Iterable[str]) -> None:
    lines = list(faults)
    finding.problems += lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        finding.problems.append(f"{len(lines) - MOST_LINES:,} other faults of {part}; correct these first")


def _look(base: Path, file: str, name: str) -> tuple[str, tuple[int, int] | None]:
    """Why an image cannot be decoded, or else its width and height."""
    try:
        return "", opened(base / file, name, str(base / file)).size
    except Unreadable as error:
        return _short(name, error), None


def _short(name: str, error: DataError) -> str:
    return str(error).removeprefix(f"{name}: ")
