"""Looks for faults in the frames and boxes of sequences, for `data check`: a line for each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.datasets.files import first_few, is_filled
from tasks.datasets.images.decode import Unreadable, opened
from tasks.datasets.info import Finding, Watch
from tasks.datasets.sequences.layout import FolderLayout
from tasks.datasets.sequences.opened import Surveyed
from tasks.datasets.sequences.types import Part
from tasks.errors import DataError

MOST_LINES = 20
"""Of faults of one part; the others are counted."""


def look_at_folders(
    layout: FolderLayout, base: Path, part: Part, found: Surveyed, finding: Finding, images: bool, watch: Watch
) -> None:
    """Reads every sequence: boxes, flags, and whether its frames are there."""

    def one(name: str) -> tuple[list[str], int, int]:
        """Faults, frames opened, boxes without area in frames that are not marked as hidden."""
        try:
            sequence = layout.read(base, part, name, look=True)
        except DataError as error:
            return [_short(layout.name, error)], 0, 0
        place = layout.place(part, name)
        empty = 0
        if part not in layout.first_only:
            shown = layout.shown(base, place, len(sequence.boxes)).visible
            empty = int((shown & ~(sequence.boxes[:, 2:] > 0).all(-1)).sum())
        faults = [fault for frame in sequence.frames if images and (fault := _fault(base, frame, layout.name))]
        return faults, len(sequence.frames) if images else 0, empty

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # reading and decoding let other threads run
        results = list(watch(pool.map(one, found.names), len(found.names)))
    _add(finding, part, (fault for faults, _, _ in results for fault in faults))
    if images:
        finding.opened = (finding.opened or 0) + sum(count for _, count, _ in results)
    empty = sum(count for *_, count in results)
    if empty:
        finding.notes.append(f"{part}: {empty:,} boxes without area in frames that are not marked as hidden; not used")


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
        faults = list(watch(pool.map(lambda file: _fault(base, file, name), present), len(present)))
    finding.opened = (finding.opened or 0) + len(present)
    _add(finding, part, filter(None, faults))


def _add(finding: Finding, part: Part, faults: Iterable[str]) -> None:
    lines = list(faults)
    finding.problems += lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        finding.problems.append(f"{len(lines) - MOST_LINES:,} other faults of {part}; correct these first")


def _fault(base: Path, file: str, name: str) -> str:
    """Why an image cannot be decoded; empty when it can."""
    try:
        opened(base / file, name, str(base / file))
    except Unreadable as error:
        return _short(name, error)
    return ""


def _short(name: str, error: DataError) -> str:
    return str(error).removeprefix(f"{name}: ")
