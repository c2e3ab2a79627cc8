"""Packs images into tar files, and reads them from there in any order.

A million small files are slow on most shared storage; a few hundred tar files are not. The tar files have the layout of
WebDataset (`x.jpg` and its label `x.cls` side by side), so its tools can read and make them. Unlike WebDataset, we do
not stream them through a shuffle buffer: an index of offsets finds every image with one read, so order, resuming,
shares of ranks and figures are those of the same images in folders, bit for bit.

`<data root>/<set>/shards/*.tar` with their index replace the files that they hold.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.files import below, open_regular
from tasks.datasets.images.decode import Unreadable, opened, opened_pixels
from tasks.datasets.images.source import Pixels, Source, StringTable
from tasks.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

FOLDER = "shards"
INDEX = "index.npz"
SHARD_BYTES = 2**30
NO_LABEL = -1


@dataclass(frozen=True)
class Index:
    """The place of each image in the tar files of a folder; rows in the order of packing."""

    folder: Path
    shards: tuple[str, ...]
    """Names of the tar files."""
    names: StringTable
    """Paths of the images below the data root."""
    labels: NDArray[np.int64]
    """NO_LABEL where there is none."""
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    """Bytes."""

    def __len__(self) -> int:
        return len(self.names)

    def rows_of(self, names: Sequence[str]) -> NDArray[np.int64]:
        """The row of each name, -1 where there is none."""
        ours = np.array([name.encode(errors="surrogateescape") for name in self.names])
        wanted = np.array([name.encode(errors="surrogateescape") for name in names])
        order = np.argsort(ours)
        at = np.searchsorted(ours, wanted, sorter=order).clip(max=len(ours) - 1)
        return np.where(ours[order[at]] == wanted, order[at], -1)


def pack(
    root: Path, paths: Sequence[Path], labels: Sequence[int] | None, out: Path, shard_bytes: int = SHARD_BYTES
) -> Index:
    """Copies files below `root`, as they are, into tar files of about `shard_bytes` in the new folder `out`.

    They are made in a folder beside it, with ".part" after its name, which is renamed to `out` when it is complete, so
    that a killed run can be repeated. Raises DataError when `out` exists, when two files differ in their suffix alone,
    and for a path that is not below `root`; OSError for one that is no file.
    """
    if out.exists():
        raise DataError(f"{out} is there already; remove it to pack these images again")
    try:
        names = list(below(root, paths))
    except ValueError as error:
        raise DataError(f"{out}: {error}") from error
    if len({_stem(name) for name in names}) < len(names):
        raise DataError(f"{out}: two images differ in the suffix alone, which WebDataset's tar files cannot hold")
    unfinished = out.with_name(f"{out.name}.part")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(parents=True)
    position = number = 0
    while position < len(paths):
        with (unfinished / f"{number:06d}.tar").open("wb") as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                while position < len(paths) and (file.tell() == 0 or file.tell() < shard_bytes):
                    with open_regular(paths[position]) as image:
                        _add(tar, names[position], image.read())
                    if labels is not None:
                        _add(tar, f"{_stem(names[position])}.cls", str(labels[position]).encode())
                    position += 1
            file.flush()
            os.fsync(file.fileno())
        number += 1
    index(unfinished)
    unfinished.rename(out)
    return _written(out)


def index(out: Path) -> Index:
    """Reads the headers of all tar files in a folder, ours or WebDataset's, and writes their index."""
    members: list[tuple[str, int, int, int]] = []
    labels: dict[str, int] = {}
    shards = sorted(out.glob("*.tar"))
    for number, path in enumerate(shards):
        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    if not member.isfile():
                        continue
                    if member.name.endswith(".cls"):
                        content = tar.extractfile(member)
                        labels[_stem(member.name)] = int(content.read()) if content else NO_LABEL
                    elif member.name.lower().endswith((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm")):
                        members.append((member.name, number, member.offset_data, member.size))
        except (tarfile.TarError, OSError, ValueError) as error:
            raise DataError(f"{path} is no whole tar file of images ({error}); pack or get it again") from error
    if not members:
        raise DataError(f"no tar files with images in {out}")
    names = StringTable([name for name, *_ in members])
    columns = {
        "shards": np.array([path.name for path in shards]),
        "bytes": np.array([path.stat().st_size for path in shards]),
        "names": names.text,
        "ends": names.ends,
        "labels": np.array([labels.get(_stem(name), NO_LABEL) for name, *_ in members], dtype=np.int64),
        "shard": np.array([row[1] for row in members], dtype=np.int32),
        "offset": np.array([row[2] for row in members], dtype=np.int64),
        "size": np.array([row[3] for row in members], dtype=np.int64),
    }
    part = out / f"{INDEX}.part"
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **columns)
        file.flush()
        os.fsync(file.fileno())
    part.rename(out / INDEX)
    return _written(out)


def _written(out: Path) -> Index:
    """The index that was just written."""
    made = read_index(out)
    assert made is not None
    return made


def read_index(out: Path) -> Index | None:
    """The index of a folder, or None. Raises DataError when it does not fit the tar files beside it."""
    path = out / INDEX
    if not path.is_file():
        return None
    remedy = "pack these images again, or remove that folder to read the images themselves"
    try:
        with np.load(path, allow_pickle=False) as columns:
            column = {name: columns[name] for name in columns.files}
        shards = tuple(str(name) for name in column["shards"])
        for name, size in zip(shards, column["bytes"].tolist(), strict=True):
            if (out / name).stat().st_size != size:
                raise ValueError(f"{name} is not of the {size} bytes that it had")
        _check_places(shards, column)
        names = StringTable.of_arrays(column["names"], column["ends"])
        return Index(out, shards, names, column["labels"], column["shard"], column["offset"], column["size"])
    except (OSError, ValueError, LookupError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} does not fit the tar files beside it: {error}; {remedy}") from error


def _check_places(shards: tuple[str, ...], column: dict[str, NDArray[Any]]) -> None:
    """Raises ValueError for a tar file outside the folder, and for a place beyond the end of one."""
    if any(PurePosixPath(name).name != name for name in shards):
        raise ValueError("it names a tar file outside the folder")
    shard, offset, size, ends = (column[name].astype(np.int64) for name in ("shard", "offset", "size", "ends"))
    if not len(shard) == len(offset) == len(size) == len(column["labels"]) == len(ends) - 1:
        raise ValueError("its columns are not of one length")
    whole = column["bytes"].astype(np.int64)[shard]
    if (shard < 0).any() or (offset < 0).any() or (size < 0).any() or (size > whole - offset).any():
        raise ValueError("it names a place that no tar file has")
    if ends[0] != 0 or (np.diff(ends) < 0).any() or ends[-1] != len(column["names"]):
        raise ValueError("its names are cut short")


class Packed(Source):
    """Images in tar files; each is one read at a known offset."""

    def __init__(self, name: str, index: Index, rows: NDArray[np.int64]) -> None:
        """`rows`: which of the index's images, in which order."""
        self.name, self._folder, self._shards = name, index.folder, index.shards
        self._names = index.names.taken(rows)
        self._shard, self._offset, self._size = index.shard[rows], index.offset[rows], index.size[rows]
        self._open: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._names)

    def image(self, index: int) -> Image.Image:
        return opened(self._encoded(index), self.name, self.where(index))

    def pixels(self, index: int) -> Pixels:
        return opened_pixels(self._encoded(index), self.name, self.where(index))

    def _encoded(self, index: int) -> bytes:
        shard, size = int(self._shard[index]), int(self._size[index])
        try:
            if shard not in self._open:
                self._open[shard] = os.open(self._folder / self._shards[shard], os.O_RDONLY)
            return os.pread(self._open[shard], size, int(self._offset[index]))
        except OSError as error:
            raise Unreadable(f"{self.name}: cannot read image {self.where(index)} ({error}); see its disk") from error

    def where(self, index: int) -> str:
        return f"{self._names[index]} in {self._folder / self._shards[int(self._shard[index])]}"

    def content(self) -> Iterator[bytes]:
        yield "\n".join(self._names).encode(errors="surrogateescape")

    def identity(self, first: int, last: int) -> bytes:
        stats = [(self._folder / name).stat() for name in self._shards]
        lines = []
        for i in range(first, last):
            number = int(self._shard[i])
            stat, shard = stats[number], self._folder / self._shards[number]
            lines.append(f"{shard}\0{stat.st_size}\0{stat.st_mtime_ns}\0{self._offset[i]}\0{self._size[i]}")
        return "\n".join(lines).encode(errors="surrogateescape")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def __del__(self) -> None:
        for file in self.__dict__.get("_open", {}).values():
            os.close(file)


def find_packed(name: str, root: Path, paths: Sequence[Path]) -> Packed | None:
    """These files in the shards of their data set (the first folder below the root); None if it has no shards, or none
    of these files is packed. Raises DataError when only some are packed."""
    if not paths:
        return None
    names = [str(path.relative_to(root)) for path in paths]
    packed = read_index(root / Path(names[0]).parts[0] / FOLDER)
    if packed is None:
        return None
    rows = packed.rows_of(names)
    missing = np.flatnonzero(rows < 0)
    if len(missing) == len(rows):
        return None
    if len(missing):
        raise DataError(
            f"{name}: {len(missing)} of {len(rows)} images are not in the tar files of {packed.folder}, for example "
            f"{names[missing[0]]}; pack them again, or remove that folder to read the images themselves"
        )
    return Packed(name, packed, rows)


def packed_below(root: Path, folder: Path) -> list[Path] | None:
    """The packed images of a data set below one of its folders; None if there are none."""
    below = folder.relative_to(root)
    packed = read_index(root / below.parts[0] / FOLDER)
    if packed is None:
        return None
    paths = [root / name for name in packed.names if name.startswith(f"{below.as_posix()}/")]
    return paths or None


def _stem(name: str) -> str:
    """WebDataset's key of a file: its path up to the first dot of its name."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
