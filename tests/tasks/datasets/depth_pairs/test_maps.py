"""Depth maps in every form of a PNG: the numbers that Pillow reads, whoever decodes them; none from a damaged file."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tasks.datasets.depth_pairs import maps
from tasks.datasets.images.decode import Unreadable

DEPTH = np.cumsum(np.random.default_rng(0).integers(0, 99, (21, 34)), 1).astype(np.uint16)
START = b"\x89PNG\r\n\x1a\n"
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced PNG: first column and row, steps in x and y."""


def saved(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(kind: bytes, content: bytes) -> bytes:
    """Behind the header, which takes 33 bytes."""
    whole = saved(DEPTH)
    return whole[:33] + chunk(kind, content) + whole[33:]


def interlaced() -> bytes:
    height, width = DEPTH.shape
    parts = [DEPTH[y::down, x::across] for x, y, across, down in PASSES]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for part in parts for row in part)
    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 1)
    return START + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def commented() -> PngInfo:
    info = PngInfo()
    info.add_text("made", "by hand")
    return info


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def animated(**options: Any) -> bytes:
    return saved(DEPTH, save_all=True, append_images=[Image.fromarray(DEPTH + n) for n in (1, 2)], **options)


USUAL = {
    "whole": saved(DEPTH),
    "one pixel": saved(DEPTH[:1, :1]),
    "not packed": saved(DEPTH, compress_level=0),
    "turned by EXIF": saved(DEPTH, exif=turned()),
    "with gamma": with_chunk(b"gAMA", struct.pack(">I", 45455)),
    "with a background": with_chunk(b"bKGD", b"\0\5"),
    "with 12 bits said to count": with_chunk(b"sBIT", b"\x0c"),
    "with resolution and text": saved(DEPTH, dpi=(72, 72), pnginfo=commented()),
    "interlaced": interlaced(),
}
OTHERS = {
    "of several images": animated(),
    "of an image before several others": animated(default_image=True),
    "TIFF of 16 bits": saved(DEPTH, "TIFF"),
    "TIFF of 32 bits": saved(DEPTH.astype(np.int32), "TIFF"),
    "TIFF of floats": saved(DEPTH.astype(np.float32), "TIFF"),
}


@pytest.mark.parametrize("name", USUAL | OTHERS)
def test_numbers_are_those_of_the_file(name: str, tmp_path: Path) -> None:
    content = (USUAL | OTHERS)[name]
    (tmp_path / "depth").write_bytes(content)
    raw = maps.read_raw(tmp_path / "depth", "rooms")
    assert raw.dtype == np.float32
    assert np.array_equal(raw, np.asarray(Image.open(io.BytesIO(content))))
    assert np.array_equal(raw, DEPTH[: raw.shape[0], : raw.shape[1]])


def test_pngs_of_the_usual_kinds_are_not_left_to_pillow() -> None:
    read = {name for name, content in (USUAL | OTHERS).items() if maps._plain_png(io.BytesIO(content)) is not None}
    assert read == USUAL.keys()


@pytest.mark.parametrize("shape", [(21, 34), (21, 34, 3)])
def test_pngs_of_8_bits_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "depth").write_bytes(saved(np.zeros(shape, np.uint8)))
    with pytest.raises(Unreadable, match=r"rooms: cannot read depth map .*8 bits a channel, and a depth map has one"):
        maps.read_raw(tmp_path / "depth", "rooms")


@pytest.mark.parametrize("kind", ["cut", "one bit", "blank", "more"])
def test_a_damaged_png_gives_its_numbers_or_none(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Damage may fall where it does not matter, such as into a comment. (`capfd`: libpng writes to the terminal.)"""
    random, whole, refused = np.random.default_rng(1), USUAL["with resolution and text"], 0
    for place in random.integers(1, len(whole) - 1, 60).tolist():
        spoilt = bytearray(whole)
        if kind == "cut":
            del spoilt[place:]
        elif kind == "one bit":
            spoilt[place] ^= 1 << int(random.integers(8))
        elif kind == "blank":
            spoilt[place : place + 9] = bytes(9)
        else:
            spoilt[place:place] = bytes(random.integers(0, 256, 3, dtype=np.uint8))
        (tmp_path / "depth").write_bytes(spoilt)
        try:
            assert np.array_equal(maps.read_raw(tmp_path / "depth", "rooms"), DEPTH)
        except Unreadable:
            refused += 1
    assert refused > 40
