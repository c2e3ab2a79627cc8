"""Keeps decoded images for all trials of a node: files of plain pixels, made once, mapped by all.

Measured against Ray's object store (benchmarks/images.py --candidates): both are mapped memory, equally fast to read;
files also outlive a driver, are dropped from memory when it is short, and need no Ray where images are read.

Images do not depend on the cache: it holds what the source gives, and the source gives what it does not hold. So
nothing here enters a trial's key.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.images import source as sources
from tasks.datasets.images.cache_folder import CacheFolder, boot, node_cache_folder, stat_of
from tasks.datasets.images.decode import Unreadable
from tasks.datasets.images.source import Arrays, Source

if TYPE_CHECKING:
    from PIL import Image

VERSION = b"pixels 2"
"""Enters the names of files and ends each of them: raise it when their form or what is decoded changes."""
IMAGES_PER_FILE = 512
"""One process decodes a file while others decode other files; when it is killed, this much is lost."""
MOST_FILES = 128
"""Most files of one list of images, however long: every process holds each of them open."""
MANY = 100_000
"""Lists longer than this: a sample is decoded before anything else."""
SAMPLE = 64
"""Images that are decoded to estimate the size of all."""
SMALL = 16 * 2**20
"""Bytes of images in memory below which sharing a copy is not worthwhile."""


class Cached(Source):
    """A source whose images come from the node's cache where it has them."""

    def __init__(self, inner: Source, files: list[Path], per_file: int) -> None:
        self.name, self._inner, self._files, self._per_file = inner.name, inner, files, per_file
        self._count = len(inner)
        self._open: dict[int, _Pixels | None] = {}

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> Image.Image:
        kept = self._kept(index)
        return self._inner.image(index) if kept is None else sources.picture(kept)

    def pixels(self, index: int) -> sources.Pixels:
        kept = self._kept(index)
        return self._inner.pixels(index) if kept is None else kept

    def _kept(self, index: int) -> sources.Pixels | None:
        number, row = divmod(index, self._per_file)
        pixels = self._mapped(number)
        return None if pixels is None else pixels.image(row)

    def where(self, index: int) -> str:
        return self._inner.where(index)

    def content(self) -> Iterator[bytes]:
        return self._inner.content()

    def identity(self, first: int, last: int) -> bytes:
        return self._inner.identity(first, last)

    def open_all(self) -> tuple[int, int]:
        """(files, bytes) that are there; from now on none of them is removed to make room."""
        opened = [pixels for number in range(len(self._files)) if (pixels := self._mapped(number))]
        if len(opened) == len(self._files) and isinstance(self._inner, Arrays):
            self._inner = Arrays(self.name, [])  # all of it is mapped: the copy in memory can go
        return len(opened), sum(pixels.bytes for pixels in opened)

    def _mapped(self, number: int) -> _Pixels | None:
        if number not in self._open:
            self._open[number] = _Pixels.open(self._files[number])
        return self._open[number]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


class _Pixels:
    """One file of the cache, mapped: images one after the other, then (offset, height, width) of each, then an end."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        """Raises ValueError for an incomplete file."""
        end = len(VERSION) + 8
        if len(data) < end or data[-len(VERSION) :].tobytes() != VERSION:
            raise ValueError("no end")
        count = int(data[-end : -len(VERSION)].view(np.int64)[0])
        table = len(data) - end - 24 * count
        if count < 0 or table < 0:
            raise ValueError("no table")
        self._data, self.bytes = data, len(data)
        self._rows = data[table : table + 24 * count].copy().view(np.int64).reshape(count, 3)

    @classmethod
    def open(cls, path: Path) -> _Pixels | None:
        """None if there is no such file. It is not removed as long as it is mapped."""
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH)  # the mapping keeps the lock when the file is closed
                if os.fstat(file.fileno()).st_nlink == 0:
                    return None
                os.utime(path)
                return cls(np.asarray(np.memmap(file, dtype=np.uint8, mode="r")))
        except FileNotFoundError:
            return None
        except ValueError:
            path.unlink(missing_ok=True)
            return None

    def image(self, row: int) -> NDArray[np.uint8] | None:
        offset, height, width = (int(value) for value in self._rows[row])
        if not height:
            return None
        return self._data[offset : offset + height * width * 3].reshape(height, width, 3)


def cached(source: Source, workers: int = 0) -> tuple[Source, str]:
    """The source behind the node's cache, which the first process fills (or several at once, each other files); and a
    summary of what is cached, in words. `workers`: processes to decode with.

    Waits for files that others are making. Raises DataError as `node_cache_folder` does.
    """
    place = node_cache_folder()
    if isinstance(place, str):
        return source, place
    if isinstance(source, Arrays) and (not isinstance(source.images, np.ndarray) or source.images.nbytes < SMALL):
        return source, "none: small and in memory"
    builder = _Builder(place, source)
    many = len(source) > MANY  # no file is looked at before it is clear that all of them fit
    if many or builder.missing():
        needed = int(builder.bytes_per_image() * len(source))
        if needed > place.limit:
            return source, f"none: {needed / 1e9:.1f} GB decoded, more than the {place.limit / 1e9:.1f} GB that fit"
        builder.fill(workers)
    behind = Cached(source, builder.files, builder.per_file)
    files, size = behind.open_all()
    return behind, f"{files} of {len(builder.files)} files, {size / 1e9:.2f} GB"


class _Builder:
    """Makes the files of one list of images. Pickles to worker processes."""

    def __init__(self, place: CacheFolder, source: Source) -> None:
        self.place, self.source = place, source
        self.per_file = max(IMAGES_PER_FILE, -(-len(source) // MOST_FILES))
        self._bytes_per_image: float | None = None

    @cached_property
    def files(self) -> list[Path]:
        """Named after their content. Reads the metadata of every image file, which takes a while for a million."""
        files = []
        for first in range(0, len(self.source), self.per_file):
            identity = self.source.identity(first, min(first + self.per_file, len(self.source)))
            digest = hashlib.sha256(VERSION + boot() + identity).hexdigest()
            files.append(self.place.folder / f"{digest[:40]}.pixels")
        return files

    def missing(self) -> list[int]:
        return [number for number, path in enumerate(self.files) if not path.exists()]

    def bytes_per_image(self) -> float:
        """Mean size of a decoded image, from a sample; 0 when none can be read."""
        if self._bytes_per_image is not None:
            return self._bytes_per_image
        sizes = []
        for index in np.linspace(0, len(self.source) - 1, min(SAMPLE, len(self.source))).astype(int).tolist():
            try:
                width, height = self.source.image(index).size
                sizes.append(width * height * 3)
            except Unreadable:
                continue
        self._bytes_per_image = float(np.mean(sizes)) if sizes else 0.0
        return self._bytes_per_image

    def fill(self, workers: int) -> None:
        """Makes the files that nobody is making; then those that others were making, when they are done or dead."""
        missing = self.missing()
        if workers and len(missing) > 1:
            from torch import Generator
            from torch.utils.data import DataLoader

            tasks: Any = _Files(self, missing)
            for _ in DataLoader(tasks, batch_size=None, num_workers=workers, generator=Generator()):
                pass
        for wait in (False, True):
            for number in self.missing():
                self.make(number, wait)

    def make(self, number: int, wait: bool) -> None:
        """Makes one file, under a lock that a killed process loses; it gets its name when it is complete.

        Does nothing if the file does not fit, or (without `wait`) if another process is making it.
        """
        path = self.files[number]
        part = path.with_suffix(".part")
        while not path.exists():
            with _open_part(part) as file:
                if _locked(file):
                    if _same(part, file):  # else another process finished it or gave up since we opened it
                        self._make_locked(file, number)
                        return
                elif not wait:
                    return
                else:
                    # Shared: it may have become the finished file, which all its readers hold so.
                    fcntl.flock(file, fcntl.LOCK_SH)

    def _make_locked(self, file: BinaryIO, number: int) -> None:
        path = self.files[number]
        part = path.with_suffix(".part")
        try:
            if not path.exists() and self._reserve(file, number):
                self._write(file, number)
                os.rename(part, path)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        finally:
            if _same(part, file):
                part.unlink(missing_ok=True)

    def _range(self, number: int) -> range:
        return range(number * self.per_file, min((number + 1) * self.per_file, len(self.source)))

    def _reserve(self, file: BinaryIO, number: int) -> bool:
        os.ftruncate(file.fileno(), 0)  # left by a killed process
        needed = int(self.bytes_per_image() * len(self._range(number)))
        with self.place.locked():
            if not self.place.make_room(needed):
                return False
            os.ftruncate(file.fileno(), needed)  # reserves the room for others to see, before anything is written
            return True

    def _write(self, file: BinaryIO, number: int) -> None:
        rows = np.zeros((len(self._range(number)), 3), dtype=np.int64)
        offset = 0
        for row, index in enumerate(self._range(number)):
            try:
                pixels = self.source.pixels(index)
            except Unreadable:
                continue  # the source raises it again when the image is asked for
            file.write(pixels.tobytes())
            rows[row] = offset, *pixels.shape[:2]
            offset += pixels.size
        file.write(rows.tobytes() + np.int64(len(rows)).tobytes() + VERSION)
        file.truncate()
        file.flush()


class _Files:
    """A data set for DataLoader whose items are made when they are asked for."""

    def __init__(self, builder: _Builder, numbers: list[int]) -> None:
        self._builder, self._numbers = builder, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, position: int) -> int:
        self._builder.make(self._numbers[position], wait=False)
        return position


def _open_part(part: Path) -> BinaryIO:
    return os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o600), "r+b")


def _locked(file: BinaryIO) -> bool:
    """True if the file could be locked exclusively, without waiting."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _same(path: Path, file: BinaryIO) -> bool:
    """True if the open file still has that name."""
    stat = stat_of(path)
    return stat is not None and stat.st_ino == os.fstat(file.fileno()).st_ino
