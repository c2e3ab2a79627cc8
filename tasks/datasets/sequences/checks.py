"""`data check` of sequences: a line for each fault of lists, frames and boxes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.datasets.checks import compare_manifest
from tasks.datasets.files import first_few, is_filled
from tasks.datasets.images.decode import Unreadable, opened
from tasks.datasets.info import Finding, Watch
from tasks.datasets.sequences.dataset import PARTS, SequenceDataset
from tasks.datasets.sequences.layout import FolderLayout
from tasks.datasets.sequences.opened import Surveyed
from tasks.datasets.sequences.types import Part
from tasks.errors import DataError

MOST_LINES = 20
"""Of faults of one part; the others are counted."""


def check(card: SequenceDataset, root: Path, folders: Sequence[Path], images: bool, watch: Watch) -> Finding:
    """Looks at lists, counts, boxes and whether all frames are there; with `images` also opens every frame. `folders`:
    where the manifest may lie."""
    finding = Finding(what="sequences")
    problem = card.missing(root)
    if problem:
        finding.problems.append(problem.removeprefix(f"{card.name}: "))
        return finding
    found = dict[Part, Surveyed]()
    for part in PARTS:
        try:
            found[part] = card.surveyed(root, part, folders, whole=False)
        except DataError as error:
            finding.problems.append(_short(card.name, error))
    if finding.problems:
        return finding
    finding.opened = 0 if images else None
    for part, surveyed in found.items():
        if surveyed.names:
            card.look(root, part, surveyed, finding, images, watch)
    try:
        whole = {part: card.surveyed(root, part, folders) for part in PARTS} if not finding.problems else found
        made = card.manifest_from(whole)
    except DataError as error:
        finding.problems.append(_short(card.name, error))
        return finding
    finding.counts, finding.digest, finding.split = made.counts, made.digest, made.cut
    stated = card.published()
    finding.expected = sum(stated.values()) or None
    for part, count in stated.items():
        if made.counts[part] != count:
            finding.problems.append(
                f"{made.counts[part]:,} sequences of {part}, {count:,} published: unpack all files of the set"
            )
    if not finding.problems or card.own is None:
        compare_manifest(card.name, card.manifest_file, folders, finding)
    return finding


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
