"""Opens images as files, tar archives or cached arrays, whichever is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.datasets.files import first_few
from tasks.datasets.images.source import Arrays, Files, Source
from tasks.errors import DataError


def open_images(name: str, root: Path, images: Any) -> Source:
    """A source made from what a data set's reader gives: a source, paths below `root` (read from tar files where they
    are packed), one array, or several."""
    if isinstance(images, Source):
        return images
    if isinstance(images, np.ndarray) or (len(images) and isinstance(images[0], np.ndarray)):
        return Arrays(name, images)
    from tasks.datasets.images.shards import find_packed

    packed = find_packed(name, root, images)
    return Files(name, root, images) if packed is None else packed


def open_annotated(name: str, base: Path, names: Sequence[str], part: str) -> Source:
    """The images that the annotations of a part name, below `base`. Raises DataError for files that are not there."""
    source = open_images(name, base, [base / each for each in names])
    if isinstance(source, Files):
        there = {folder: _listed(base / folder) for folder in {Path(each).parent for each in names}}
        absent = [each for each in names if Path(each).name not in there[Path(each).parent]]
        if absent:
            raise DataError(
                f"{name}: {len(absent):,} of {len(names):,} images that the annotations of {part} name are not below "
                f"{base}: {first_few(absent)}; get them, or take them out of the annotations"
            )
    return source


def _listed(folder: Path) -> set[str]:
    """The names in a folder; a list of a hundred thousand takes less than asking for each file."""
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()
