"""Reads the bytes of a data set's files once and keeps their digests, so that a file that was changed is noticed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

from tasks.datasets.files import first_few, is_filled, open_regular
from tasks.datasets.images.cache_folder import CacheFolder, node_cache_folder
from tasks.datasets.manifest import folders_of
from tasks.errors import DataError

Content: TypeAlias = tuple[int, str]
"""Bytes of an image, and the first half of their SHA-256 in hex."""
Stamp: TypeAlias = tuple[int, int, int]
"""Size, time of the last change of anything about the file (ctime, ns), number on its file system."""
Known: TypeAlias = dict[str, tuple[Stamp, list[Content]]]

VERSION = 1
"""Of the file of remembered digests."""
RECENT = 2.0
"""Seconds: a file that was changed this shortly before it was read is read again the next time, because it could change
once more without another time."""
_AT_ONCE = 512
"""Files that a thread takes at a time."""


def digest_of(content: bytes) -> Content:
    return len(content), hashlib.sha256(content).hexdigest()[:32]


def digest_of_file(path: Path) -> list[Content]:
    """Raises OSError."""
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return [(file.tell(), digest[:32])]


def contents(
    name: str,
    base: Path,
    files: Sequence[str],
    folders: Sequence[Path],
    read: Callable[[Path], list[Content]] = digest_of_file,
    what: str = "",
) -> list[list[Content]]:
    """The contents of each file below `base`. A file is read once: after that its size, its ctime and its number stand
    for its bytes, for as long as they stay the same.

    `folders`: where what was read is remembered; the first that can be written. `read`: gives the images in a file;
    `what`: names what it reads, if not the whole file. Raises DataError naming files that are missing, empty or cannot
    be read.
    """
    place = f"{base.absolute()}\0{what}".encode(errors="surrogateescape")
    kept = f"contents-{hashlib.sha256(place).hexdigest()[:16]}.json"
    known, began = _load(folders, kept), time.time()
    absent: list[str] = []

    def one(file: str) -> tuple[Stamp, list[Content]] | None:
        path = base / file
        if not is_filled(path):
            return None
        status = path.stat()
        stamp = (status.st_size, status.st_ctime_ns, status.st_ino)
        before = known.get(file)
        return before if before and before[0] == stamp else (stamp, read(path))

    found: Known = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing and waiting for a disk let other threads run
        try:
            slices = (files[first : first + _AT_ONCE] for first in range(0, len(files), _AT_ONCE))
            for some in pool.map(lambda part: [(file, one(file)) for file in part], slices):
                for file, result in some:
                    if result is None:
                        absent.append(file)
                    else:
                        found[file] = result
        except OSError as error:
            raise DataError(f"{name}: a file of the data cannot be read: {error}") from error
    if absent:
        raise DataError(
            f"{name}: {len(absent):,} of {len(files):,} files are not there or empty: {first_few(absent)}; they are "
            f"looked for below {base}"
        )
    settled = {file: each for file, each in found.items() if each[0][1] < (began - RECENT) * 1e9}
    if settled.keys() - known.keys() or any(known[file] != each for file, each in settled.items()):
        _save(folders, kept, settled)
    return [found[file][1] for file in files]


def _load(folders: Sequence[Path], file: str) -> Known:
    """What was remembered; nothing where the file is missing or damaged: everything is then read again."""
    for folder in folders:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            read: Any = json.loads((folder / file).read_bytes())
            if read["version"] == VERSION:
                return dict(_entries(read["files"]))
    return {}


def _entries(files: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Stamp, list[Content]]]]:
    for name, (stamp, contents_) in files.items():
        size, changed, number = stamp
        yield name, ((size, changed, number), [(count, digest) for count, digest in contents_])


def _save(folders: Sequence[Path], name: str, known: Known) -> None:
    """All or nothing, into the first folder that can be written."""
    for folder in folders:
        part = folder / f".{name}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"version": VERSION, "files": known}))
            part.replace(folder / name)
            return
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()


def remembered_in(root: Path, others: Sequence[Path] = ()) -> list[Path]:
    """Folders in which digests of contents may lie: those of manifests, and then the node's folder of decoded images.
    `root`: the data root."""
    last: list[Path] = []
    with contextlib.suppress(DataError):  # loaders say what is wrong with that folder
        cache = node_cache_folder()
        last += [cache.folder] if isinstance(cache, CacheFolder) else []
    return [*folders_of(root, others), *last]
