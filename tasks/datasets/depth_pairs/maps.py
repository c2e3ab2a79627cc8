"""Reads depth maps: the only place that opens one, so that every mode and fault has one rule."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.files import open_regular
from tasks.datasets.images.decode import MOST_BYTES, MOST_PIXELS, Unreadable, whole

DEEP = ("I;16", "I;16B", "I;16L", "I", "F")
"""Pillow's modes with one channel of more than 8 bits."""
MOST_IN_8_BITS = 255
_START = re.compile(rb"\x89PNG\r\n\x1a\n\0\0\0\rIHDR(.{4})(.{4})\x10\0", re.DOTALL)
"""Of a PNG of one channel of 16 bits: signature, header, width, height, bits, colour type."""
_ANIMATED = b"acTL"
"""The chunk of a PNG with several images, of which Pillow and OpenCV take different ones for the first."""


class _Refused(Exception):
    """(reason, remedy)"""


def _in_its_place(mode: str) -> str:
    """What to do about an image of 8 bits, by Pillow's mode."""
    original = "it was converted on the way: take the original file"
    colours = mode not in ("1", "L")
    return f"the list names the image first and its depth map second; or {original}" if colours else original


def read_raw(path: Path, name: str) -> NDArray[np.float32]:
    """(height, width): the numbers of a depth map in a PNG or TIFF file of 16 or 32 bits, as they are; 0: not known.

    `name`: the data set, for messages. Raises Unreadable for a file that cannot be read, that has 8 bits or several
    channels, and for numbers that are no depth (NaN, infinite, negative).
    """
    from PIL import UnidentifiedImageError

    try:
        return _checked(path)
    except _Refused as error:
        reason, remedy = error.args
    except UnidentifiedImageError:
        reason, remedy = "it is no PNG or TIFF file", "save it as one of 16 bits, or get it again"
    except Exception as error:  # whatever a decoder raises on damaged bytes
        reason, remedy = str(error) or type(error).__name__, "get this file again"
    raise Unreadable(f"{name}: cannot read depth map {path} ({reason}); {remedy}")


def _checked(path: Path) -> NDArray[np.float32]:
    with open_regular(path) as file:
        plain = _plain_png(file)
        stored = _decoded(file) if plain is None else plain
    values = stored.astype(np.float32)
    if stored.dtype.kind == "u":  # always a number, and never negative
        return values
    if wrong := int((~np.isfinite(values)).sum()):
        raise _Refused(f"{wrong} pixels are NaN or infinite", "write 0 where the depth is not known")
    if wrong := int((values < 0).sum()):
        raise _Refused(f"{wrong} pixels are negative", "write 0 where the depth is not known")
    return values


def _plain_png(file: BinaryIO) -> NDArray[np.uint16] | None:
    """The numbers of a PNG of the usual kind: grey, of 16 bits, not animated. None: for Pillow to decode.

    OpenCV is a tenth faster and checks what it reads; Pillow takes damaged data for numbers, as often as not, and
    torchvision's decoder crashes on them. Raises _Refused.
    """
    import cv2

    encoded = whole(file)
    if encoded is None or not (start := _START.match(encoded)):
        return None
    width, height = (int.from_bytes(number, "big") for number in start.groups())
    if width * height > MOST_PIXELS or _ANIMATED in encoded[: encoded.find(b"IDAT")]:
        return None
    try:
        found = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if found is None:
        raise _Refused("its data are damaged or cut off", "get this file again")
    return found if found.dtype == np.uint16 and found.shape == (height, width) else None


def _decoded(file: BinaryIO) -> NDArray[Any]:
    from PIL import Image

    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size > MOST_BYTES:
        raise _Refused(f"{size:,} bytes, more than {MOST_BYTES:,}", "make it smaller")
    with Image.open(file, formats=("PNG", "TIFF")) as image:
        if image.mode not in DEEP:
            raise _Refused(
                f"its mode is {image.mode}, 8 bits a channel, and a depth map has one channel of 16 bits",
                _in_its_place(image.mode),
            )
        if image.width * image.height > MOST_PIXELS:
            raise _Refused(f"{image.width * image.height:,} pixels, more than {MOST_PIXELS:,}", "make it smaller")
        return np.asarray(image)
