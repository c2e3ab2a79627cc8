"""Masks of detections: from probabilities within a box to COCO's code of the pixels of the image, one at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST = 0.5
"""Probability from which on a pixel belongs to the object."""
Floats = NDArray[np.float64]


def rle_of(probabilities: NDArray[np.float32], box: Floats, size: tuple[int, int]) -> bytes:
    """COCO's compressed RLE of a mask in an image of `size` (height, width).

    `probabilities` (m, m) lie at the centres of a grid over `box` (left, top, right, bottom in pixels); between them
    they are bilinear, outside of them they fall to 0 within one step, as mmdetection and Detectron2 paste masks.
    (torchvision first rounds the box to whole pixels.)
    """
    (top, rows), (left, columns) = (
        _along(box[axis], box[axis + 2], length, len(probabilities)) for axis, length in ((1, size[0]), (0, size[1]))
    )
    window = rows @ probabilities.astype(np.float64) @ columns.T >= LEAST
    return encoded(window, top, left, size)


def _along(start: float, end: float, length: int, steps: int) -> tuple[int, Floats]:
    """The first pixel that the box touches along an axis of `length` pixels, and weights (pixels, steps) of the grid
    for each pixel that it touches."""
    first, last = max(0, int(np.floor(start))), min(length, int(np.ceil(end)))
    places = (np.arange(first, max(first, last)) + 0.5 - start) * (steps / max(end - start, 1e-6)) - 0.5
    return first, np.clip(1 - np.abs(places[:, None] - np.arange(steps)), 0, None)


def encoded(window: NDArray[np.bool_], top: int, left: int, size: tuple[int, int]) -> bytes:
    """COCO's compressed RLE of an image of `size` that is empty but for a window at (top, left).

    The same bytes as faster_coco_eval's (and pycocotools') encode of the whole image, which reads every pixel of it.
    """
    from faster_coco_eval.core import mask

    height, width = size
    down = np.zeros((window.shape[1], window.shape[0] + 2), np.int8)
    down[:, 1:-1] = window.T  # column by column, as the code counts
    column, row = np.nonzero(np.diff(down, axis=1))
    changes = (left + column) * height + top + row
    # a run that goes on from the end of one column to the beginning of the next does not change there
    again = np.flatnonzero(np.diff(changes) == 0)
    changes = np.delete(changes, np.concatenate([again, again + 1]))
    counts = np.diff(changes, prepend=0, append=height * width)
    runs = counts[:-1] if len(counts) > 1 and not counts[-1] else counts
    code: Any = mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    return bytes(code["counts"])
