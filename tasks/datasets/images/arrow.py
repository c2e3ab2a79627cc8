"""Reads images that are rows of Arrow files, as the library `datasets` saves them, one row at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.datasets.images.decode import Unreadable, opened
from tasks.datasets.images.source import Source

if TYPE_CHECKING:
    from PIL import Image


class ArrowImages(Source):
    """Encoded images in a column of Arrow streams, each a struct with `bytes`. The files are mapped into memory once in
    each process that reads from them, and a process holds no more of them than the rows it reads."""

    def __init__(self, name: str, base: Path, column: str, rows: Sequence[tuple[str, int]]) -> None:
        """`rows`: (file below `base`, row in it) of each image."""
        self.name, self.base, self.column = name, base, column
        self.files = list(dict.fromkeys(file for file, _ in rows))
        ranks = {file: rank for rank, file in enumerate(self.files)}
        self._file = np.array([ranks[file] for file, _ in rows], dtype=np.int32)
        self._row = np.array([row for _, row in rows], dtype=np.int64)
        self._mapped: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": {}}

    def __len__(self) -> int:
        return len(self._row)

    def encoded(self, index: int) -> bytes:
        """Raises Unreadable."""
        file = self.files[self._file[index]]
        try:
            if file not in self._mapped:
                self._mapped[file] = read_stream(self.base / file).column(self.column)
            return encoded(self._mapped[file][int(self._row[index])].as_py())
        except Exception as error:
            raise Unreadable(
                f"{self.name}: cannot read image {self.where(index)} ({error}); save the data set again"
            ) from error

    def taken(self, rows: Sequence[int]) -> ArrowImages:
        """The images at these positions."""
        which = [(self.files[self._file[i]], int(self._row[i])) for i in rows]
        return ArrowImages(self.name, self.base, self.column, which)

    def lengths(self) -> list[int]:
        """Bytes of each image, from the offsets of the files alone. Raises Unreadable."""
        from pyarrow import compute

        found = np.zeros(len(self), dtype=np.int64)
        for rank, file in enumerate(self.files):
            here = self._file == rank
            try:
                column = read_stream(self.base / file).column(self.column)
                lengths = compute.binary_length(compute.struct_field(column, "bytes")).to_numpy()
                found[here] = lengths[self._row[here]]
            except Exception as error:
                raise Unreadable(f"{self.name}: cannot read {self.base / file} ({error}); submit again") from error
        return [int(each) for each in found]

    def image(self, index: int) -> Image.Image:
        return opened(self.encoded(index), self.name, self.where(index))

    def where(self, index: int) -> str:
        return f"{self.base / self.files[self._file[index]]}, row {self._row[index] + 1}"

    def content(self) -> Iterator[bytes]:
        yield "\n".join(self.files).encode(errors="surrogateescape")
        yield self._file.tobytes() + self._row.tobytes()

    def identity(self, first: int, last: int) -> bytes:
        """Files with their sizes and times of modification, column and rows."""
        lines = [self.column]
        for file in np.unique(self._file[first:last]).tolist():
            status = (self.base / self.files[file]).stat()
            lines.append(f"{self.base / self.files[file]}\0{status.st_size}\0{status.st_mtime_ns}")
        which = self._file[first:last].tobytes() + self._row[first:last].tobytes()
        return "\n".join(lines).encode(errors="surrogateescape") + which


def read_stream(path: Path) -> Any:
    """A pyarrow table over an Arrow stream on disk, which is mapped and not copied. Raises OSError and ValueError."""
    import pyarrow

    return pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all()


def encoded(cell: Any) -> bytes:
    """The bytes of an image in a cell as `datasets` writes it. Raises ValueError for a cell without."""
    found = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(found, bytes):
        raise ValueError("it holds no bytes of an image")
    return found
