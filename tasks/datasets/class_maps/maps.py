"""Reads class maps: the only place that opens one, so that every mode and fault has one rule.

| in the file | becomes |
|---|---|
| one channel of 8 bits, or of 16 with small numbers; a palette's indices, whatever its colours | the numbers |
| 0 where the set has `zero: ignored` (ADE20K) | IGNORED; 1 becomes class 0, 2 class 1 .. |
| 255 | IGNORED |
| several channels (colours), JPEG, any other number that is no class | unreadable |
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.datasets.class_maps.types import IGNORED, Pixels
from tasks.datasets.files import open_regular
from tasks.datasets.images.decode import MOST_BYTES, MOST_PIXELS, Unreadable

ONE_CHANNEL = ("L", "P", "1", "I", "I;16", "I;16B", "I;16L")
"""Pillow's modes of one channel."""
FORMATS = ("PNG", "TIFF", "BMP")
"""Those that keep numbers as they are."""


class _Refused(Exception):
    """(reason, remedy)"""


def read_map(path: Path, name: str, classes: int, zero_ignored: bool) -> Pixels:
    """(height, width): the class of each pixel from 0 on, or IGNORED. `name`: the data set, for messages.

    Raises Unreadable for a file that cannot be read, that has colours, and for a number that is no class.
    """
    try:
        return _numbered(_stored(path), classes, zero_ignored)
    except _Refused as error:
        reason, remedy = error.args
    except Exception as error:  # whatever a decoder raises on damaged bytes
        reason, remedy = str(error) or type(error).__name__, "get this file again"
    raise Unreadable(f"{name}: cannot read class map {path} ({reason}); {remedy}")


def _stored(path: Path) -> Pixels:
    from PIL import Image, UnidentifiedImageError

    if path.stat().st_size > MOST_BYTES:
        raise _Refused(f"{path.stat().st_size:,} bytes, more than {MOST_BYTES:,}", "make it smaller")
    with open_regular(path) as file:
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            raise _Refused("no whole PNG, TIFF or BMP file", "save the numbers of the classes as PNG") from None
        with image:
            if image.width * image.height > MOST_PIXELS:
                raise _Refused(f"{image.width * image.height:,} pixels, more than {MOST_PIXELS:,}", "make it smaller")
            if image.mode not in ONE_CHANNEL:
                raise _Refused(
                    f"its mode is {image.mode}, colours, and a class map has one channel with the number of a class in "
                    "each pixel",
                    "save the numbers instead of the colours",
                )
            stored = np.asarray(image)
    if stored.dtype == np.uint8:
        return stored
    if stored.dtype != np.bool_ and (int(stored.min()) < 0 or int(stored.max()) > IGNORED):
        wrong = int(stored.max()) if int(stored.min()) >= 0 else int(stored.min())
        raise _Refused(f"the number {wrong} is no class", "number classes from 0 on, at most 255 of them")
    return stored.astype(np.uint8)


def _numbered(stored: Pixels, classes: int, zero_ignored: bool) -> Pixels:
    """By the table above."""
    counts = np.bincount(stored.ravel(), minlength=IGNORED + 1)
    first = 1 if zero_ignored else 0
    wrong = np.flatnonzero(counts[classes + first : IGNORED]) + classes + first
    if len(wrong):
        share = int(counts[wrong].sum())
        more = f" and {len(wrong) - 1} other numbers" if len(wrong) > 1 else ""
        raise _Refused(
            f"{share:,} pixels have the number {int(wrong[0])}{more}, and the {classes} classes are {first} to "
            f"{classes + first - 1}; 255 is ignored",
            "correct the map or the list of classes",
        )
    if not zero_ignored:
        return stored
    numbers = stored - np.uint8(1)  # 0 becomes 255
    numbers[stored == IGNORED] = IGNORED
    return numbers
