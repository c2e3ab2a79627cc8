"""Damaged and odd images end in pixels of bounded number or in one line: whatever is in the file."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from fuzzing import examples
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.datasets.images.decode import MOST_PIXELS, Unreadable, opened

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on odd fields of TIFF
DATA = Path(__file__).parents[1] / "data"
TRIED = settings(
    max_examples=examples(150), deadline=None, database=None, derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def _saved(mode: str, form: str, **options: object) -> bytes:
    pixels = np.random.RandomState(0).randint(0, 256, (24, 24, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode in ("I", "F"):
        image = Image.fromarray(pixels[..., 0].astype(np.int32 if mode == "I" else np.float32))
    else:
        image = Image.fromarray(pixels).convert(mode)
    content = io.BytesIO()
    image.save(content, format=form, **options)
    return content.getvalue()


SEEDS = [
    *(_saved(mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *(_saved(mode, "JPEG") for mode in ("L", "RGB", "CMYK")),
    _saved("RGB", "JPEG", progressive=True),
    *(_saved(mode, "TIFF") for mode in ("1", "L", "RGB", "RGBA", "CMYK", "I", "I;16", "F")),
    *(_saved("RGB", "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
    _saved("RGB", "WEBP"), _saved("RGBA", "WEBP", lossless=True), _saved("RGB", "GIF"), _saved("RGB", "BMP"),
    _saved("RGB", "PPM"), _saved("I;16", "PPM"), _saved("RGB", "AVIF"), _saved("RGB", "JPEG2000"),
    (DATA / "damaged.avif").read_bytes(), (DATA / "grey16.png").read_bytes(),
]  # fmt: skip
"""A picture in every format and mode, and what users met."""


def check(content: bytes) -> bool:
    """True if it is an image. Fails where it is neither that nor unreadable, or has too many pixels."""
    image, said = None, ""
    try:
        image = opened(content, "drawn", "x.jpg")
    except Unreadable as error:
        said = str(error)
    if image is None:
        assert said.startswith("drawn: cannot read image x.jpg (")
        assert said.isprintable()
        return False
    assert image.mode == "RGB"
    assert image.width * image.height <= MOST_PIXELS
    assert np.asarray(image).shape == (image.height, image.width, 3)
    return True


def test_the_seeds_are_images() -> None:
    """All but integers and numbers with a point, and the damaged one."""
    assert [check(content) for content in SEEDS].count(False) == 3


EDITS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=8)
"""(place as a share of the length, bytes that are written there)"""


@TRIED
@given(content=st.sampled_from(SEEDS), edits=EDITS, cut=st.floats(0, 1), more=st.binary(max_size=20))
@example(content=SEEDS[-2], edits=[], cut=1.0, more=b"")
@example(content=b"", edits=[], cut=0.0, more=b"")
@example(content=b"", edits=[], cut=0.0, more=b"%!PS-Adobe-3.0 EPSF-3.0\n")
def test_changed_and_cut_images(content: bytes, edits: list[tuple[float, bytes]], cut: float, more: bytes) -> None:
    changed = bytearray(content)
    for place, new in edits:
        start = int(place * len(changed))
        changed[start : start + len(new)] = new
    check(bytes(changed[: int(cut * len(changed))]) + more)
    check(bytes(changed))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@TRIED
@given(
    size=st.tuples(*[st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1))] * 2),
    depth=st.sampled_from([1, 2, 4, 8, 16, 3]),
    colour=st.sampled_from([0, 2, 3, 4, 6, 5]),
    interlaced=st.integers(0, 2),
    others=st.lists(st.tuples(st.sampled_from([b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"sBIT", b"gAMA", b"acTL", b"fcTL"]),
                              st.binary(max_size=64)), max_size=4),
    pixels=st.binary(max_size=4000),
)  # fmt: skip
def test_png_of_any_header(
    size: tuple[int, int], depth: int, colour: int, interlaced: int, others: list[tuple[bytes, bytes]], pixels: bytes
) -> None:
    """With sums that are right, so that all of it is read."""
    head = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced)
    middle = b"".join(_chunk(kind, content) for kind, content in others)
    data = _chunk(b"IDAT", zlib.compress(pixels))
    check(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + middle + data + _chunk(b"IEND", b""))


@TRIED
@given(
    order=st.sampled_from("<>"),
    fields=st.dictionaries(
        st.sampled_from([*range(256, 260), 262, 266, 273, *range(277, 280), 284, 317, 320, *range(322, 326), 338, 339]),
        st.tuples(st.integers(0, 13), st.sampled_from([0, 1, 2, 3, 2**31, 2**32 - 1]),
                  st.one_of(st.integers(0, 64), st.integers(0, 2**32 - 1))),
    ),
    samples=st.binary(max_size=2000),
)  # fmt: skip
def test_tiff_of_any_fields(order: str, fields: dict[int, tuple[int, int, int]], samples: bytes) -> None:
    usual = {256: (3, 1, 16), 257: (3, 1, 16), 258: (3, 1, 16), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 200),
             277: (3, 1, 1), 278: (3, 1, 16), 279: (4, 1, 512)}  # fmt: skip
    rows = sorted({**usual, **fields}.items())
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(rows))
    packed = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + (struct.pack(f"{order}HH", value & 0xFFFF, 0) if kind == 3 else struct.pack(f"{order}I", value))
        for tag, (kind, count, value) in rows
    )
    check((head + packed + bytes(4)).ljust(200, b"\0") + samples)


@TRIED
@given(
    kind=st.sampled_from(["P1", "P2", "P3", "P4", "P5", "P6", "Pf", "PF", "P7", "Py", "P5 ", "P6#"]),
    numbers=st.lists(st.one_of(st.integers(-1, 70_000), st.just(10**30), st.just("#"), st.just("-1.0")), max_size=4),
    rest=st.binary(max_size=300),
)
def test_portable_maps_of_any_header(kind: str, numbers: list[object], rest: bytes) -> None:
    check(f"{kind}\n{' '.join(map(str, numbers))}\n".encode() + rest)
