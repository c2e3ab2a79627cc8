"""Images of every mode, format and size, damaged ones, and what lies in a folder of images but is no file."""

from __future__ import annotations

import io
import os
import re
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.datasets.images import decode
from tasks.datasets.images.decode import Unreadable
from tasks.errors import DataError

DATA = Path(__file__).parents[2] / "data"
SOURCES = Path(__file__).parents[3]
RAMP = np.arange(256).repeat(257).astype(np.uint16).reshape(256, 257)
"""A row for each of 256 greys."""
DEEP = (RAMP * 257).astype(np.uint16)
"""The same greys in 16 bits."""


def saved(pixels: np.ndarray | Image.Image, form: str, **options: object) -> bytes:
    content = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(content, format=form, **options)
    return content.getvalue()


def tiff(bits: int, photometric: int, samples: bytes, side: tuple[int, int]) -> bytes:
    """A grey TIFF of one strip, little-endian."""
    width, height = side
    fields = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 0),
              (277, 3, 1), (278, 4, height), (279, 4, len(samples))]  # fmt: skip
    start = 8 + 2 + 12 * len(fields) + 4
    rows = b"".join(struct.pack("<HHII", tag, kind, 1, start if tag == 273 else value) for tag, kind, value in fields)
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + rows + b"\0\0\0\0" + samples


def twelve_bits(values: np.ndarray) -> bytes:
    """Two numbers in three bytes, the first bits first."""
    first, second = values.reshape(-1, 2).T.astype(np.uint32)
    both = (first << 12) | second
    return np.stack([both >> 16, (both >> 8) & 255, both & 255], 1).astype(np.uint8).tobytes()


EVEN = RAMP[:, :256]
GREY = {
    "8-bit PNG": saved(RAMP.astype(np.uint8), "PNG"),
    "16-bit PNG": saved(DEEP, "PNG"),
    "16-bit TIFF": saved(DEEP, "TIFF"),
    "16-bit TIFF, big-endian": saved(Image.frombytes("I;16B", (257, 256), DEEP.astype(">u2").tobytes()), "TIFF"),
    "16-bit TIFF, compressed": saved(DEEP, "TIFF", compression="tiff_lzw"),
    "16-bit TIFF, white is 0": tiff(16, 0, (65535 - DEEP).tobytes(), (257, 256)),
    "8-bit TIFF, white is 0": tiff(8, 0, (255 - RAMP).astype(np.uint8).tobytes(), (257, 256)),
    "12-bit TIFF": tiff(12, 1, twelve_bits(EVEN * 16), (256, 256)),
    "16-bit PGM": b"P5\n257 256\n65535\n" + DEEP.astype(">u2").tobytes(),
    "10-bit PGM": b"P5\n257 256\n1023\n" + (RAMP.astype(np.uint32) * 1023 // 255).astype(">u2").tobytes(),
    "16-bit PGM in digits": b"P2\n257 256\n65535\n" + " ".join(map(str, DEEP.ravel())).encode(),
    "16-bit JPEG 2000": saved(DEEP, "JPEG2000", irreversible=False),
    "16-bit colour PPM": b"P6\n257 256\n65535\n" + DEEP.repeat(3).astype(">u2").tobytes(),
}
"""The same picture in every depth: grey rises from 0 to 255 downwards."""


@pytest.mark.parametrize("form", GREY)
def test_a_grey_is_the_same_grey_in_every_depth(form: str) -> None:
    image = decode.opened(GREY[form], "drawn", form)
    assert image.mode == "RGB"
    pixels = np.asarray(image).astype(int)
    assert abs(pixels - np.arange(256)[:, None, None]).max() <= (1 if form == "10-bit PGM" else 0)


def test_a_16_bit_photograph_is_neither_white_nor_black() -> None:
    pixels = np.asarray(decode.opened(DATA / "grey16.png", "drawn", "grey16.png"))
    assert (pixels.min(), pixels.max(), pixels.mean()) == (0, 255, 127.5)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.full((4, 4), 70_000, np.int32), "32-bit integers: nothing states which number is white"),
        (np.full((4, 4), 200, np.int32), "32-bit integers"),
        (np.full((4, 4), 0.5, np.float32), "floating point: nothing states which number is white"),
    ],
)
def test_numbers_without_a_stated_white_are_unreadable(pixels: np.ndarray, said: str) -> None:
    with pytest.raises(Unreadable, match=rf"drawn: cannot read image x.tif \({said}.*\); save it with 8 or 16 bits"):
        decode.opened(saved(pixels, "TIFF"), "drawn", "x.tif")


def test_a_portable_float_map_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="floating point"):
        decode.opened(b"Pf\n2 2\n-1.0\n" + np.ones(4, np.float32).tobytes(), "drawn", "x")


COLOUR = (200, 100, 50)


def palette(transparency: object = None) -> bytes:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *COLOUR])
    return saved(image, "PNG", **({} if transparency is None else {"transparency": transparency}))


MODES = {
    "RGB": (saved(Image.new("RGB", (4, 4), COLOUR), "PNG"), COLOUR),
    "RGBA": (saved(Image.new("RGBA", (4, 4), (*COLOUR, 0)), "PNG"), COLOUR),
    "LA": (saved(Image.new("LA", (4, 4), (90, 10)), "PNG"), (90, 90, 90)),
    "1": (saved(Image.new("1", (4, 4), 1), "PNG"), (255, 255, 255)),
    "P": (palette(), COLOUR),
    "P with one transparent colour": (palette(1), COLOUR),
    "P with an alpha each": (palette(b"\x00\x80"), COLOUR),
    "CMYK": (saved(Image.new("CMYK", (4, 4), (55, 155, 205, 0)), "TIFF"), COLOUR),
    "YCbCr": (saved(Image.new("YCbCr", (4, 4), (90, 128, 128)), "TIFF"), (90, 90, 90)),
    "WebP with alpha": (saved(Image.new("RGBA", (4, 4), (*COLOUR, 9)), "WEBP", lossless=True, exact=True), COLOUR),
    "first of two frames": (
        saved(Image.new("RGB", (4, 4), COLOUR), "TIFF", save_all=True, append_images=[Image.new("RGB", (4, 4))]), COLOUR
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_every_mode_becomes_the_colours_that_it_states(mode: str) -> None:
    content, colour = MODES[mode]
    pixels = np.asarray(decode.opened(content, "drawn", mode))
    assert pixels.shape == (4, 4, 3)
    assert (pixels == colour).all()


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_multiplied_colours_are_divided_again(mode: str) -> None:
    half = (45, 128) if mode == "La" else (100, 50, 25, 128)
    image = decode._in_rgb(Image.new(mode, (2, 2), half))
    expected = (90, 90, 90) if mode == "La" else COLOUR
    assert abs(np.asarray(image).astype(int) - expected).max() <= 2


def test_whatever_a_decoder_raises_makes_the_image_unreadable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "crawled.jpg").write_bytes((DATA / "damaged.avif").read_bytes())
    with pytest.raises(Unreadable, match=r"drawn: cannot read image crawled\.jpg \(.+\); get this file again"):
        decode.opened(tmp_path / "crawled.jpg", "drawn", "crawled.jpg")
    for error in (MemoryError(), struct.error("unpack"), RuntimeError("x"), AssertionError(), RecursionError("deep")):

        def fails(*a: object, error: BaseException = error, **k: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Image, "open", fails)
            with pytest.raises(Unreadable, match=rf"\({str(error) or type(error).__name__}\)"):
                decode.opened(b"", "drawn", "x")


def test_no_file_beside_the_one_given_is_run_or_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """EPS would start Ghostscript, whatever the file is called."""
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a program was started"))
    for name, content in {
        "a.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
        "b.jpg": saved(np.zeros((4, 4), np.uint8), "PCX"),
        "c.jpg": saved(Image.new("RGB", (4, 4)), "TGA"),
        "d.jpg": b"",
        "e.jpg": b"<svg/>",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Unreadable, match="no whole image in a format that is read: JPEG, PNG, WEBP, GIF, BMP, PPM"):
            decode.opened(tmp_path / name, "drawn", name)


def bomb(side: int) -> bytes:
    """A PNG that states side x side pixels and holds next to nothing."""
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9_460, 13_300, 13_400, 60_000])
def test_an_image_of_very_many_pixels_is_refused_before_it_is_decoded(
    side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "convert", lambda *a, **k: pytest.fail("it was decoded"))
    with pytest.raises(Unreadable, match=r"pixels.*; make it smaller$"):
        decode.opened(bomb(side), "drawn", "x.png")


def test_a_file_of_very_many_bytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.webp"
    path.write_bytes(b"RIFF\xff\xff\xff\x7fWEBPVP8 ")
    os.truncate(path, 2**40)  # takes no room on disk
    with pytest.raises(Unreadable, match=r"1,099,511,627,776 bytes, more than 536,870,912\); make it smaller"):
        decode.opened(path, "drawn", "x.webp")


def test_what_is_no_file_blocks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "zeros.jpg").symlink_to("/dev/zero")
    said = {"pipe.jpg": "a named pipe", "link.jpg": "a named pipe", "folder.jpg": "a folder", "zeros.jpg": "a device"}
    for name, what in said.items():
        with pytest.raises(Unreadable, match=rf"{name} is no file but {what}\)"):
            decode.opened(tmp_path / name, "drawn", name)
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
        with pytest.raises(Unreadable, match=r"socket\.jpg"):
            decode.opened(tmp_path / "socket.jpg", "drawn", "socket.jpg")


def test_images_are_opened_in_one_place() -> None:
    """Every mode, format and size has one rule; a second `Image.open` would have others. Maps of depth and of classes
    have their own, and an exported model's README shows one line of Pillow."""
    found = [
        str(path.relative_to(SOURCES))
        for package in ("orchestrator", "workers", "tasks")
        for path in (SOURCES / package).rglob("*.py")
        if re.search(r"\bImage\.open\(|\bimread\(|default_loader|decode_image\(", path.read_text())
    ]
    maps = ["tasks/datasets/class_maps/maps.py", "tasks/datasets/depth_pairs/maps.py"]
    assert sorted(found) == ["orchestrator/launch/export_weights.py", *maps, "tasks/datasets/images/decode.py"]


def test_a_message_can_be_printed_on_every_terminal() -> None:
    error = DataError("image \udce9t\u00e9 \x1b]0;title\x07 \u202egpj.exe")
    assert str(error) == r"image \udce9té \x1b]0;title\x07 \u202egpj.exe"
    assert str(error).encode().decode() == str(error)


def jpegs() -> dict[str, bytes]:
    random = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(53), np.arange(71))[..., None] * np.array([1, 2, 3]) % 256
    pixels = (0.7 * smooth + 0.3 * random.integers(0, 256, smooth.shape)).astype(np.uint8)
    made = {f"subsampling {kind}": saved(pixels, "JPEG", quality=80, subsampling=kind) for kind in (0, 1, 2)}
    return {
        **made,
        "progressive": saved(pixels, "JPEG", quality=60, progressive=True),
        "coarse": saved(pixels, "JPEG", quality=5),
        "stored in RGB": saved(pixels, "JPEG", keep_rgb=True),
        "turned by EXIF": saved(pixels, "JPEG", exif=turned_exif()),
        "grey": saved(pixels[..., 0], "JPEG"),
        "CMYK": saved(Image.fromarray(pixels).convert("CMYK"), "JPEG"),
        "one pixel": saved(pixels[:1, :1], "JPEG"),
        "PNG": saved(pixels, "PNG"),
    }


def turned_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


@pytest.mark.parametrize("name", jpegs())
def test_pixels_are_those_of_the_image_to_the_bit(name: str, tmp_path: Path) -> None:
    content = jpegs()[name]
    wanted = np.asarray(decode.opened(content, "x", "here"))
    path = tmp_path / "image"
    path.write_bytes(content)
    for place in (content, path):
        pixels = decode.opened_pixels(place, "x", "here")
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, wanted)


def test_a_whole_file_is_read_up_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MOST_BYTES", 5)
    assert [decode.whole(io.BytesIO(bytes(size))) for size in (0, 1, 5, 6)] == [None, bytes(1), bytes(5), None]
    read_to_the_end = io.BytesIO(b"abc")
    read_to_the_end.read()
    assert decode.whole(read_to_the_end) == b"abc"


def test_jpegs_of_the_usual_kinds_are_not_left_to_pillow() -> None:
    fast = {name for name, content in jpegs().items() if decode._plain_jpeg(io.BytesIO(content)) is not None}
    assert fast == jpegs().keys() - {"CMYK", "PNG"}


@pytest.mark.parametrize("spoilt", [lambda b: b[: len(b) // 2], lambda b: b[:20], lambda b: b"", lambda b: b"\0" * 99])
def test_pixels_of_a_damaged_jpeg_are_refused_as_its_image_is(spoilt: Callable[[bytes], bytes]) -> None:
    content = spoilt(jpegs()["coarse"])
    with pytest.raises(Unreadable, match="x: cannot read image here") as by_pillow:
        decode.opened(content, "x", "here")
    with pytest.raises(Unreadable, match="x: cannot read image here") as ours:
        decode.opened_pixels(content, "x", "here")
    assert str(ours.value) == str(by_pillow.value)
