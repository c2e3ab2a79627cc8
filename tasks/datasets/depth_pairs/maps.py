"""Reads depth maps: the only place that opens one, so that every mode and fault has one rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.files import open_regular
from tasks.datasets.images.decode import MOST_BYTES, MOST_PIXELS, Unreadable

DEEP = ("I;16", "I;16B", "I;16L", "I", "F")
"""Pillow's modes with one channel of more than 8 bits."""
MOST_IN_8_BITS = 255


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
    from PIL import Image

    if path.stat().st_size > MOST_BYTES:
        raise _Refused(f"{path.stat().st_size:,} bytes, more than {MOST_BYTES:,}", "make it smaller")
    with open_regular(path) as file, Image.open(file, formats=("PNG", "TIFF")) as image:
        if image.mode not in DEEP:
            raise _Refused(
                f"its mode is {image.mode}, 8 bits a channel, and a depth map has one channel of 16 bits",
                _in_its_place(image.mode),
            )
        if image.width * image.height > MOST_PIXELS:
            raise _Refused(f"{image.width * image.height:,} pixels, more than {MOST_PIXELS:,}", "make it smaller")
        stored = np.asarray(image)
    values = stored.astype(np.float32)
    if stored.dtype.kind == "u":  # always a number, and never negative
        return values
    if wrong := int((~np.isfinite(values)).sum()):
        raise _Refused(f"{wrong} pixels are NaN or infinite", "write 0 where the depth is not known")
    if wrong := int((values < 0).sum()):
        raise _Refused(f"{wrong} pixels are negative", "write 0 where the depth is not known")
    return values
