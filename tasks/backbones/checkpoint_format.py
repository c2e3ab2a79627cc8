"""Tells by its first bytes what a weights file is, and checks the archive of torch.save before anything reads it."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from tasks.errors import DataError

Format = Literal["torch archive", "torch pickle", "safetensors"]

LARGEST_PICKLE = 32 * 2**20
"""Bytes of the pickle in an archive: names, shapes and settings, no weights. Of a model of 100,000 tensors it has 20
MB."""
LARGEST_HEADER = 100_000_000
"""Bytes of a safetensors header: safetensors' own limit."""
_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The number 0x1950a86a20f9469cfc6c as a pickle, with which torch.save began until version 1.6."""

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "is compressed with gzip: unpack it first (gunzip)"),
    (b"BZh", "is compressed with bzip2: unpack it first (bunzip2)"),
    (b"\xfd7zXZ\x00", "is compressed with xz: unpack it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd: unpack it first (unzstd)"),
    (b"\x04\x22\x4d\x18", "is compressed with lz4: unpack it first (unlz4)"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it first"),
    (b"Rar!", "is a RAR archive: unpack it first"),
    (b"\x93NUMPY", "is one NumPy array: it does not say which weight it is"),
    (b"\x89HDF", "is an HDF5 file (Keras): load it there and save the weights with torch.save"),
    (b"GGUF", "is a GGUF file, which holds quantized weights: take the published .safetensors or .pth"),
    (b"version https://git-lfs", "is a Git LFS pointer, not weights: fetch the file itself (git lfs pull)"),
)
"""What other files begin with."""
_PAGE = (b"<!doctype", b"<html", b"<?xml")
_CHECKPOINTS = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar", ".safetensors")


def format_of(path: Path) -> Format:
    """The form of a weights file, from its content; its name plays no part.

    Raises DataError, with what it is and what to do, for a file of any other form, an empty one, and what is no file.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file" if path.exists() else f"no file {path}")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    size = path.stat().st_size
    if not start.strip():
        raise DataError(f"{path} is empty" if not start else f"{path} ({size} bytes) holds nothing")
    if start.startswith(b"PK\x03\x04"):
        return "torch archive"
    if start[:1] == b"\x80" and _MAGIC in start[:32]:
        return "torch pickle"
    if start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= LARGEST_HEADER:
        return "safetensors"
    raise DataError(f"{path} ({size} bytes) {_other(path, start)}")


def _other(path: Path, start: bytes) -> str:
    """What a file is that holds no weights we can read, and what to do about it."""
    for magic, what in _OTHERS:
        if start.startswith(magic):
            return what
    text = start.lstrip().lower()
    if text.startswith(_PAGE):
        return "is a web page, not weights: the server answered the download with one"
    if text.startswith((b"{", b"[")):
        return "is text (JSON), not weights: it may list the files that hold them; pass one of those"
    if start[:1] == b"\x80":
        return (
            "is a pickle of Python, but not a checkpoint of torch.save, or is damaged: load it where you trust it, and "
            "save only the weights with torch.save"
        )
    if _is_tar(path):
        return "is a tar archive: unpack it first, and pass the checkpoint in it"
    return "is not a checkpoint of torch.save and no safetensors file, or is damaged or cut short"


def _is_tar(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:"):
            return True
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return False


def check_archive(path: Path) -> None:
    """Raises DataError unless the zip archive is one of torch.save and whole: every record has the checksum that the
    archive states, and none is larger than what lies in the file.

    torch reads records without comparing checksums, so a damaged weight would be taken for a weight.
    """
    size = path.stat().st_size
    try:
        with ZipFile(path) as archive:
            records = archive.infolist()
            if problem := _contents(records) or _bounds(records, size) or _ends(path, records):
                raise DataError(f"{path} ({size} bytes) {problem}")
            bad = archive.testzip()
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and struct each have their own for damaged records
        raise DataError(f"{path} ({size} bytes) is a damaged archive, or cut short: {reason(error)}") from error
    if bad is not None:
        raise DataError(
            f"{path} ({size} bytes) is damaged: record {bad!r} has not the checksum that the archive states; fetch the "
            "file again"
        )


def _contents(records: Sequence[ZipInfo]) -> str:
    """What an archive is that holds no checkpoint of torch.save; empty if it does."""
    names = [record.filename for record in records]
    if names and all(name.endswith(".npy") for name in names):
        return "is an .npz archive of NumPy arrays: load it there, and save tensors under timm's names with torch.save"
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "is TorchScript, a program with its weights: load it where you trust it and save the weights alone, "
            "torch.save(torch.jit.load(FILE).state_dict(), ...)"
        )
    if sum(name.endswith("/data.pkl") for name in names) == 1:
        return ""
    inside = next((name for name in names if name.endswith(_CHECKPOINTS) and not name.endswith("/data.pkl")), None)
    if inside is not None:
        return f"is a zip archive that holds {inside!r}: unpack it first, and pass that"
    return "is a zip archive, but not a checkpoint of torch.save (it has no data.pkl)"


def _bounds(records: Sequence[ZipInfo], size: int) -> str:
    """What is wrong with an archive's records by what the archive says of them; empty if nothing is."""
    seen: set[str] = set()
    for record in records:
        if record.filename in seen:
            return f"holds record {record.filename!r} twice: nothing says which is meant"
        seen.add(record.filename)
        if record.compress_type != ZIP_STORED or record.compress_size != record.file_size:
            return f"holds compressed record {record.filename!r}: torch.save compresses nothing"
        if record.filename.endswith("/data.pkl") and record.file_size > LARGEST_PICKLE:
            return f"holds a pickle of {record.file_size:,} bytes: more than {LARGEST_PICKLE:,} are not read"
    if sum(record.file_size for record in records) > size:
        return "states more bytes of records than it has"
    return ""


def _ends(path: Path, records: Sequence[ZipInfo]) -> str:
    """What is wrong if the file is more than its archive, so that another reader may find another archive in it."""
    with path.open("rb") as file:
        file.seek(-22, os.SEEK_END)
        last = file.read()  # the record that ends an archive, with a comment of no bytes
    whole = last.startswith(b"PK\x05\x06") and last.endswith(b"\0\0")
    return "" if whole and min(record.header_offset for record in records) == 0 else "holds bytes around the archive"


def reason(error: BaseException) -> str:
    """The first line of a library's error, without control characters and without advice to run code."""
    line = str(error).strip().partition("\n")[0].strip() or type(error).__name__
    if "weights_only" in line:
        line = type(error).__name__
    return (line if line.isprintable() else repr(line)[1:-1])[:200]
