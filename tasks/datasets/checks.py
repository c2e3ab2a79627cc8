"""Looks for faults in any data set with a manifest: files that are missing or damaged, a manifest of other data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.datasets.files import first_few, is_filled
from tasks.datasets.info import Finding, Watch
from tasks.datasets.manifest import Manifest, saved_digest
from tasks.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.datasets.images.source import Source

GLANCE = 32
"""Images of a part whose size is compared where not all are opened."""


def look_at_files(
    name: str, root: Path, manifest: Manifest, images: bool, watch: Watch, finding: Finding, opened: Any = None
) -> None:
    """Adds files that the lists name and that are missing (sets in arrays or tar files have none); with `images`, also
    those that cannot be decoded. `opened`: the images, where they do not lie at their names below `root`."""
    from tasks.datasets.images.open import open_images
    from tasks.datasets.images.source import Files

    paths = opened
    if paths is None:
        paths = [root / image for image in manifest.images if isinstance(image, str)]
    if not len(paths):
        return
    try:
        source = open_images(name, root, paths)
    except DataError as error:
        finding.problems.append(str(error).removeprefix(f"{name}: "))
        return
    absent = [i for i, path in enumerate(paths) if not is_filled(path)] if isinstance(source, Files) else []
    if absent:
        names = [str(manifest.images[i]) for i in absent]
        share = f"{len(absent):,} of {len(paths):,}"
        finding.problems.append(f"{share} images that the lists name are not there or empty: {first_few(names)}")
    if not images:
        return
    gone = set(absent)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding lets other threads run
        present = [i for i in range(len(paths)) if i not in gone]
        results = watch(pool.map(lambda i: _fault(source, i, root), present), len(present))
        faults = [fault for fault in results if fault]
    finding.opened = len(present)
    if faults:
        finding.problems.append(f"{len(faults):,} of {len(paths):,} images cannot be read: {first_few(faults)}")


def spread(count: int, wanted: int) -> Sequence[int]:
    """At most `wanted` rows of `count`, at even distances from the first to the last."""
    if count <= wanted:
        return range(count)
    return sorted({round(place * (count - 1) / (wanted - 1)) for place in range(wanted)})


def other_sizes(source: Source, names: Sequence[str], stated: NDArray[np.int64], rows: Sequence[int]) -> list[str]:
    """The images of these rows that have another size than their annotations state, each with both. Files that are
    missing or damaged are not among them.

    `names`: of all images of the source. `stated`: (n, 2), height and width in pixels.
    """
    from tasks.datasets.images.decode import image_size
    from tasks.datasets.images.source import Files

    wrong = []
    for row in rows:
        try:
            if isinstance(source, Files):
                height, width = image_size(Path(source.where(row)), source.name)
            else:
                width, height = source.image(row).size
        except DataError:
            continue
        if (height, width) != tuple(stated[row].tolist()):
            wrong.append(f"{names[row]} ({height} x {width}, not {stated[row][0]} x {stated[row][1]})")
    return wrong


def other_sizes_below(name: str, base: Path, names: Sequence[str], stated: NDArray[np.int64], every: bool) -> list[str]:
    """`other_sizes` of the images of these names below `base`: of a few, or of `every` one. None where they cannot be
    opened, which `look_at_files` says."""
    from tasks.datasets.images.open import open_images

    try:
        source = open_images(name, base, [base / each for each in names])
    except DataError:
        return []
    return other_sizes(source, names, stated, range(len(names)) if every else spread(len(names), GLANCE))


def compare_manifest(name: str, file: str, folders: Sequence[Path], finding: Finding) -> None:
    """Adds a fault when the manifest that is written in one of the folders is not that of the data (`finding.digest`).

    `file`: its name.
    """
    finding.manifest = next((path for folder in folders if (path := folder / file).exists()), None)
    if finding.manifest is None:
        return
    try:
        written = saved_digest(finding.manifest)
    except DataError as error:
        finding.problems.append(str(error))
        return
    if written != finding.digest:
        finding.problems.append(
            f"{finding.manifest} was written for other data: SHA-256 {written}; what is here gives {finding.digest}; "
            f"`data split {name}` writes it anew, and trials on it then run again"
        )


def _fault(source: Source, index: int, root: Path) -> str:
    """Which image cannot be decoded and why; empty when it can."""
    try:
        source.image(index)
    except DataError as error:
        return str(error).partition("cannot read image ")[2].rpartition("; ")[0].replace(f"{root}/", "")
    return ""
