"""Decodes images: the only place that opens one, so that every mode, format and size has one rule. (Maps of depth
and of classes, whose numbers stay as they are, have theirs in depth_pairs/maps.py and class_maps/maps.py.)

| mode of the file | becomes |
|---|---|
| 1, L, P, RGB, YCbCr, CMYK, HSV, LAB | RGB of 8 bits, as Pillow converts it |
| LA, PA, RGBA, RGBX, P with transparency | the colours without their transparency, as ImageNet's public loaders do |
| La, RGBa (premultiplied) | the same, after the multiplication is undone |
| 16-bit grey (I;16*; PGM) | the upper 8 bits, as Pillow and libpng make of 16-bit colour |
| 12-bit grey TIFF | its upper 8 bits |
| grey TIFF where 0 is white | inverted, at any depth |
| 32-bit integers (I), floating point (F) | unreadable: nothing states which number is white |
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.files import open_regular
from tasks.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF", "AVIF", "JPEG2000")
"""Read whatever the file is called. Pillow knows more; some of those start other programs (EPS: Ghostscript)."""
MOST_PIXELS = 89_478_485
"""Of one image: the bound above which Pillow warns of a decompression bomb (a quarter of a gigabyte in RGB)."""
MOST_BYTES = 2**29
"""Of a file: six (16-bit RGB) for each of the most pixels."""
_EIGHT_BITS = frozenset({"1", "L", "P", "RGB", "YCbCr", "CMYK", "HSV", "LAB", "LA", "PA", "RGBA", "RGBX"})
_MULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_AS_THEY_ARE = frozenset({"L", "RGB"})
"""JPEGs that torchvision and Pillow decode alike. (Colours for print they turn into RGB in different ways.)"""
Decoded = TypeVar("Decoded")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
"""TIFF's numbers of its fields."""

# Between one and two times MOST_PIXELS Pillow only warns; we refuse, and say so once.
warnings.filterwarnings("ignore", message=r"Image size \(\d+ pixels\) exceeds limit", module="PIL")


class Unreadable(DataError):
    """One image cannot be read. The message names data set, file, reason and remedy."""


class _Refused(Exception):
    """(reason, remedy)"""


def opened(file: Path | bytes, name: str, where: str) -> Image.Image:
    """The image in a file, or in the bytes of one, decoded to RGB. Raises Unreadable naming set and place."""
    return _read(file, name, where, _decoded)


def opened_pixels(file: Path | bytes, name: str, where: str) -> NDArray[np.uint8]:
    """The pixels (height, width, 3) of the image that `opened` gives, to the bit; of a JPEG a fifth faster, because
    they are not copied on the way. May not be written to. Raises Unreadable as `opened`."""
    return _read(file, name, where, _pixels)


def _read(file: Path | bytes, name: str, where: str, decode: Callable[[BinaryIO], Decoded]) -> Decoded:
    try:
        with io.BytesIO(file) if isinstance(file, bytes) else open_regular(file) as content:
            return decode(content)
    except _Refused as error:
        reason, remedy = error.args
    except Exception as error:  # whatever a decoder raises on damaged bytes: RuntimeError, MemoryError, struct.error ..
        reason, remedy = str(error) or type(error).__name__, "get this file again"
    raise Unreadable(f"{name}: cannot read image {where} ({reason}); {remedy}")


def image_size(path: Path, name: str) -> tuple[int, int]:
    """(height, width) as the image's header states them. Raises Unreadable."""
    from PIL import Image

    try:
        with open_regular(path) as file, Image.open(file, formats=FORMATS) as image:
            return image.height, image.width
    except Exception as error:
        raise Unreadable(f"{name}: cannot read image {path} ({error}); get this file again") from error


def _pixels(content: BinaryIO) -> NDArray[np.uint8]:
    plain = _plain_jpeg(content)
    return np.asarray(_decoded(content)) if plain is None else plain


def _plain_jpeg(content: BinaryIO) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG of a usual kind and size. None: for Pillow to decode, or to say what is wrong with it."""
    import torch
    from PIL import Image
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        image = Image.open(content, formats=("JPEG",))
    except Exception:
        return None
    if image.format != "JPEG" or image.mode not in _AS_THEY_ARE or image.width * image.height > MOST_PIXELS:
        return None
    encoded = whole(content)
    if encoded is None:
        return None
    try:
        planes = decode_jpeg(torch.frombuffer(encoded, dtype=torch.uint8), ImageReadMode.RGB)
    except RuntimeError:
        return None
    pixels: NDArray[np.uint8] = planes.permute(1, 2, 0).numpy()
    return pixels


def whole(content: BinaryIO) -> bytearray | None:
    """All bytes of a file. None for a file that is empty, larger than MOST_BYTES, or shorter than it says. (To read up
    to a bound costs as much memory as the bound, and with it the time of a twentieth of a JPEG.)"""
    size = content.seek(0, os.SEEK_END)
    content.seek(0)
    if not 0 < size <= MOST_BYTES:
        return None
    read = bytearray(size)
    return read if content.readinto(read) == size else None  # type: ignore[attr-defined]


def _decoded(content: BinaryIO) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    size = content.seek(0, os.SEEK_END)
    content.seek(0)
    if size > MOST_BYTES:
        raise _Refused(f"{size:,} bytes, more than {MOST_BYTES:,}", "make it smaller")
    try:
        image = Image.open(content, formats=FORMATS)
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise _Refused(f"no whole image in a format that is read: {known}", "get this file again") from None
    except Image.DecompressionBombError as error:
        raise _Refused(str(error), "make it smaller") from None
    with image:
        if image.width * image.height > MOST_PIXELS:
            raise _Refused(f"{image.width * image.height:,} pixels, more than {MOST_PIXELS:,}", "make it smaller")
        return _in_rgb(image)


def _in_rgb(image: Image.Image) -> Image.Image:
    """By the table above."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _upper_bits(image).convert("RGB")
    if image.mode in _MULTIPLIED:
        return image.convert(_MULTIPLIED[image.mode]).convert("RGB")
    if image.mode in _EIGHT_BITS:
        return image.convert("RGB")
    what = {"I": "32-bit integers", "F": "floating point"}.get(image.mode, f"mode {image.mode}")
    raise _Refused(f"{what}: nothing states which number is white", "save it with 8 or 16 bits")


def _upper_bits(image: Image.Image) -> Image.Image:
    """8 bits of a grey image of 16 (or, in TIFF, of 9 to 15 kept in 16)."""
    from PIL import Image

    fields = getattr(image, "tag_v2", {})  # of TIFF alone
    bits = int(np.ravel(fields.get(_BITS_PER_SAMPLE, 16))[0])
    grey = (np.asarray(image).astype(np.uint32) >> (bits - 8)).clip(max=255).astype(np.uint8)
    if fields.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts 8 bits and fewer alone
        grey = 255 - grey
    return Image.fromarray(grey)
