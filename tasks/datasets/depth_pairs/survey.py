"""Looks at pairs before anything is trained: files, sizes, units, and ground truth; one line for each fault."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.depth_pairs.layout import KB_CROP, DepthFormat, DepthLayout
from tasks.datasets.depth_pairs.maps import MOST_IN_8_BITS, read_raw
from tasks.datasets.depth_pairs.pairs import Pairs
from tasks.datasets.depth_pairs.window import evaluated_part
from tasks.datasets.files import first_few, is_filled
from tasks.datasets.images.decode import Unreadable, image_size
from tasks.errors import DataError

Depth = NDArray[np.float32]
UNITS = ((1, "metres"), (256, "KITTI's 1/256 m"), (1000, "millimetres"))
"""Steps per metre that are tried when a range is impossible."""
MILLIMETRES = 1000
"""In a metre."""
MOST_IN_16_BITS = 65535
"""Many programs write it where no depth is known."""
NEAR = 0.01
"""Share of the longest depth: a middle depth below it is not one of scenes that this range was chosen for."""


GLANCE = 64
"""Pairs of a list that are opened without `images`, at even distances: enough to see a wrong unit."""


@dataclass(frozen=True)
class Looked:
    """What one pair holds."""

    image: str
    size: tuple[int, int]
    """(height, width) after `kb_crop`."""
    middle: float
    """Median of the known numbers of the depth map, as they are in the file; NaN: none is known."""
    largest: float
    whole: bool
    """All numbers are whole."""
    evaluated: bool
    """It has ground truth where it is evaluated."""


def check_files(layout: DepthLayout, pairs: Pairs, what: str) -> None:
    """Raises DataError for files that the list of a part names and that are missing or empty."""
    names = [*pairs.images, *pairs.depths]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # a network file system answers many questions at once
        there = list(pool.map(lambda name: is_filled(layout.base / name), names))
    absent = [name for name, found in zip(names, there, strict=True) if not found]
    if absent:
        raise DataError(
            f"{layout.name}: {len(absent):,} of {len(names):,} files that the list of {what} names are not there or "
            f"empty: {first_few(absent)}; they are looked for below {layout.base}"
        )


def look(layout: DepthLayout, pairs: Pairs, rows: Sequence[int]) -> list[Looked]:
    """Opens the pairs of these rows: whole depth maps, of images the header. Raises DataError for the first pair that
    cannot be read or does not belong together."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding lets other threads run
        return list(pool.map(lambda row: looked(layout, pairs.images[row], pairs.depths[row]), rows))


def looked(layout: DepthLayout, image: str, depth: str) -> Looked:
    """What one pair holds. Raises Unreadable."""
    raw = read_raw(layout.base / depth, layout.name)
    size = image_size(layout.base / image, layout.name)
    check_sizes(layout.name, image, size, depth, raw.shape)
    if layout.format.kb_crop:
        raw = kb_crop(raw, layout.name, image)
    known = raw[raw > 0]
    return Looked(
        image, (raw.shape[0], raw.shape[1]),
        float(np.median(known)) if known.size else float("nan"),
        float(known.max()) if known.size else 0.0,
        bool((known == np.rint(known)).all()),
        _has_truth(raw, layout.format),
    )  # fmt: skip


def _has_truth(raw: Depth, format: DepthFormat) -> bool:
    rows, columns = evaluated_part(format.window, *raw.shape)
    part = raw[rows, columns] / np.float32(format.steps_per_metre)
    return bool(((part > format.shortest) & (part < format.longest)).any())


def check_sizes(name: str, image: str, size: tuple[int, ...], depth: str, of_depth: tuple[int, ...]) -> None:
    """Raises Unreadable for a depth map of another size (height, width) than its image."""
    if size != of_depth:
        raise Unreadable(
            f"{name}: image {image} has {size[0]} x {size[1]} pixels and its depth map {depth} {of_depth[0]} x "
            f"{of_depth[1]} (height x width): these do not belong together; correct the list or the files"
        )


Values = TypeVar("Values", bound=np.generic)


def kb_crop(values: NDArray[Values], name: str, image: str) -> NDArray[Values]:
    """KITTI's usual part: KB_CROP at the bottom, in the middle. Raises Unreadable for an image that is smaller."""
    height, width = values.shape[:2]
    if height < KB_CROP[0] or width < KB_CROP[1]:
        raise Unreadable(
            f"{name}: image {image} has {height} x {width} pixels, and the crop kb_crop is larger, {KB_CROP[0]} x "
            f"{KB_CROP[1]} (height x width); switch it off for images that are no KITTI frames"
        )
    top, left = height - KB_CROP[0], (width - KB_CROP[1]) // 2
    return values[top : top + KB_CROP[0], left : left + KB_CROP[1]]


def check_unit(name: str, looked: Sequence[Looked], format: DepthFormat) -> None:
    """Raises DataError when the numbers of the depth maps, taken together, cannot be depths in this range; the message
    says which unit they look like. Also for a mark of unknown depth that would be learnt as a depth."""
    middles = [each.middle for each in looked if each.middle == each.middle]
    if not middles:
        raise DataError(f"{name}: none of the {len(looked)} depth maps that were opened has a pixel above 0")
    middle = float(np.median(middles))
    metres = middle / format.steps_per_metre
    if NEAR * format.longest <= metres <= format.longest:
        _check_marks(name, looked, format)
        return
    stated = (
        f"the middle depth is {metres:.4g} m with steps_per_metre {format.steps_per_metre:g}, and the range ends at "
        f"{format.longest:g} m"
    )
    fitting = _fitting(middle, format)
    eight_bits = all(each.whole and each.largest <= MOST_IN_8_BITS for each in looked)
    if eight_bits and metres < format.longest:
        otherwise = f"; if they are, {', or '.join(fitting)}" if fitting else ""
        raise DataError(
            f"{name}: {stated}; no number is above {MOST_IN_8_BITS}, so these look like 16-bit maps that were read as "
            f"8-bit: take the original files{otherwise}"
        )
    raise DataError(f"{name}: {stated}; {', or '.join(fitting) or 'no usual unit fits: correct longest'}")


def _fitting(middle: float, format: DepthFormat) -> list[str]:
    """What could be wrong: longest in millimetres, and the units in which the middle number is a depth in the range."""
    found, longest = [], format.longest / MILLIMETRES
    if longest >= 1 and NEAR * longest <= middle / format.steps_per_metre <= longest:
        found.append(f"longest looks like millimetres (it is in metres: {longest:g})")
    units = [
        f"{words} (steps_per_metre {steps}, middle depth {middle / steps:.4g} m)"
        for steps, words in UNITS
        if NEAR * format.longest <= middle / steps <= format.longest and steps != format.steps_per_metre
    ]
    return [*found, *([f"the numbers look like {' or '.join(units)}"] if units else [])]


def _check_marks(name: str, looked: Sequence[Looked], format: DepthFormat) -> None:
    """Raises DataError for the largest number of 16 bits where it is beyond the range."""
    marked = [each.image for each in looked if each.largest == MOST_IN_16_BITS]
    if marked and MOST_IN_16_BITS / format.steps_per_metre > format.longest:
        raise DataError(
            f"{name}: the depth maps of {len(marked)} of {len(looked)} images that were opened hold {MOST_IN_16_BITS}, "
            f"which is {MOST_IN_16_BITS / format.steps_per_metre:.4g} m where the range ends at {format.longest:g} m: "
            f"{first_few(marked)}; it looks like a mark for an unknown depth, and would be learnt as a depth: write 0"
        )


def check_truth(name: str, looked: Sequence[Looked], format: DepthFormat) -> None:
    """Raises DataError for images without a pixel to evaluate: a mean over images would say nothing of them."""
    without = [each.image for each in looked if not each.evaluated]
    if without:
        raise DataError(
            f"{name}: {len(without)} of {len(looked)} images to evaluate have no ground truth in the part that is "
            f"evaluated (window {format.window}) between {format.shortest:g} and {format.longest:g} m: "
            f"{first_few(without)}; leave them out of the list, or correct range and unit"
        )
