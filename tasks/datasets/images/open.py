"""Opens images as files, tar archives or cached arrays, whichever is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tasks.datasets.images.source import Arrays, Files, Source


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
