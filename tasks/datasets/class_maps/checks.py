"""Looks for faults in images and class maps, for `data check`: a line for each kind."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tasks.datasets.class_maps.types import ClassMapSet
from tasks.datasets.files import first_few
from tasks.datasets.images.decode import Unreadable
from tasks.datasets.info import Finding, Watch

GLANCE = 32
"""Images of a part that are opened where not all are asked for, at even distances."""


def look_at_maps(opened: ClassMapSet, images: bool, finding: Finding, watch: Watch) -> None:
    """Opens some images of a part and their maps; with `images` all, and then says which classes none of them shows."""
    rows = range(len(opened)) if images else sorted({*range(0, len(opened), max(1, len(opened) // GLANCE))})

    def one(row: int) -> np.typing.NDArray[np.int64] | str:
        """Pixels of each number, or what is wrong."""
        try:
            return np.bincount(opened.load(row)[1].ravel(), minlength=opened.ignore + 1)
        except Unreadable as error:
            return str(error).removeprefix(f"{opened.name}: ")

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding lets other threads run
        results = list(watch(pool.map(one, rows), len(rows)))
    faults = [each for each in results if isinstance(each, str)]
    if faults:
        finding.problems.append(
            f"{len(faults):,} of {len(rows):,} images of {opened.part} that were opened: {first_few(faults)}"
        )
    counted = [each for each in results if not isinstance(each, str)]
    if not images or not counted:
        return
    finding.opened = (finding.opened or 0) + len(rows)
    total = np.sum(counted, axis=0)
    absent = [name for name, count in zip(opened.classes, total.tolist(), strict=False) if not count]
    if absent:
        finding.notes.append(f"{opened.part}: no pixel of {len(absent)} classes: {first_few(absent)}")
    if total[opened.ignore]:
        share = total[opened.ignore] / total.sum()
        finding.notes.append(f"{opened.part}: {share:.1%} of all pixels are ignored")
