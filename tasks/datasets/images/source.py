"""Sources of single images by index: rows of arrays, files, and smaller copies of other sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.images.decode import opened, opened_pixels

if TYPE_CHECKING:
    from PIL import Image

Pixels: TypeAlias = NDArray[np.uint8]
"""(height, width, 3), or (height, width) grey."""


class Source(ABC):
    """Images by index, as PIL images in RGB.

    Goes to worker processes (fork or pickle), where it must not grow: a Python object per image has a reference count,
    and each write to one copies memory that the processes share.
    """

    name: str
    """Name of the data set, for messages."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Decoded, RGB. Raises Unreadable."""

    def pixels(self, index: int) -> Pixels:
        """(height, width, 3): the pixels of `image`, in an array that may not be written to. Raises Unreadable."""
        return np.asarray(self.image(index))

    @abstractmethod
    def where(self, index: int) -> str:
        """A place at which a user finds the image: a path, or its position."""

    @abstractmethod
    def content(self) -> Iterator[bytes]:
        """Bytes that the digest of a data set is made from: pixels of images in memory; names of files below the root,
        because reading them all would take too long."""

    @abstractmethod
    def identity(self, first: int, last: int) -> bytes:
        """Bytes that tell the images [first, last) from any others that were ever in their place; they name the files
        of the node's cache."""


class Arrays(Source):
    """Images in memory: (n, h, w[, 3]), or a sequence of (h, w[, 3]) of several sizes."""

    def __init__(self, name: str, images: NDArray[np.uint8] | Sequence[Pixels]) -> None:
        self.name, self.images = name, images

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Image.Image:
        return picture(self.images[index])

    def where(self, index: int) -> str:
        return f"image {index}"

    def content(self) -> Iterator[bytes]:
        if isinstance(self.images, np.ndarray):
            yield self.images.tobytes()
        else:
            yield from (np.asarray(image.shape).tobytes() + image.tobytes() for image in self.images)

    def identity(self, first: int, last: int) -> bytes:
        part = self.images[first:last]
        return b"".join(repr(image.shape).encode() + image.tobytes() for image in part)


class Files(Source):
    """Files below a root."""

    def __init__(self, name: str, root: Path, paths: Sequence[Path]) -> None:
        self.name, self.root = name, root
        self._names = StringTable([str(path.relative_to(root)) for path in paths])

    def __len__(self) -> int:
        return len(self._names)

    def image(self, index: int) -> Image.Image:
        return opened(self.root / self._names[index], self.name, self.where(index))

    def pixels(self, index: int) -> Pixels:
        return opened_pixels(self.root / self._names[index], self.name, self.where(index))

    def where(self, index: int) -> str:
        return str(self.root / self._names[index])

    def content(self) -> Iterator[bytes]:
        yield "\n".join(self._names).encode(errors="surrogateescape")

    def identity(self, first: int, last: int) -> bytes:
        """Names, sizes and times of modification; the name alone for a missing file."""
        lines = []
        for name in (self._names[i] for i in range(first, last)):
            try:
                stat = (self.root / name).stat()
                lines.append(f"{self.root / name}\0{stat.st_size}\0{stat.st_mtime_ns}")
            except OSError:
                lines.append(f"{self.root / name}\0")
        return "\n".join(lines).encode(errors="surrogateescape")


class Resized(Source):
    """Another source's images, made smaller until the shorter side has `side` pixels; smaller images are unchanged."""

    def __init__(self, inner: Source, side: int, interpolation: str) -> None:
        """`interpolation`: bicubic or bilinear, Pillow's (smoothed first)."""
        self.name, self._inner, self._side, self._interpolation = inner.name, inner, side, interpolation

    def __len__(self) -> int:
        return len(self._inner)

    def image(self, index: int) -> Image.Image:
        return shrunk(self._inner.image(index), self._side, self._interpolation)

    def where(self, index: int) -> str:
        return self._inner.where(index)

    def content(self) -> Iterator[bytes]:
        """The inner source's: the size is a setting of the trial, not of the data."""
        return self._inner.content()

    def identity(self, first: int, last: int) -> bytes:
        return f"shorter side {self._side} {self._interpolation}\0".encode() + self._inner.identity(first, last)


class StringTable:
    """Many strings in two arrays: a list of a million would be copied into every worker process (see `Source`)."""

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [name.encode(errors="surrogateescape") for name in names]
        self.text: NDArray[np.uint8] = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self.ends: NDArray[np.int64] = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        """Where each begins, and the last one ends."""

    @classmethod
    def of_arrays(cls, text: NDArray[np.uint8], ends: NDArray[np.int64]) -> StringTable:
        names = cls([])
        names.text, names.ends = text, ends
        return names

    def taken(self, rows: NDArray[np.int64]) -> StringTable:
        return StringTable([self[row] for row in rows.tolist()])

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> str:
        first, last = self.ends[index], self.ends[index + 1]
        return self.text[first:last].tobytes().decode(errors="surrogateescape")


def picture(pixels: Pixels) -> Image.Image:
    """Pixels as an RGB image; grey ones three times."""
    from PIL import Image

    image = Image.fromarray(pixels)
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it once more


def shrunk(image: Image.Image, side: int, interpolation: str) -> Image.Image:
    """The image with its shorter side of `side` pixels, the longer one rounded down; unchanged if not larger."""
    from PIL import Image

    shorter = min(image.size)
    if shorter <= side:
        return image
    width, height = (int(side * length / shorter) for length in image.size)
    return image.resize((width, height), Image.Resampling[interpolation.upper()])
