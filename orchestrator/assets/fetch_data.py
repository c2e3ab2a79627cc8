"""Downloads data sets: resumes what was cut off, compares sums, unpacks.

Addresses and sums are torchvision's. Its own downloader starts again after a cut, which is too slow for 120 GB.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from orchestrator.assets.archives import move_into, unpack
from orchestrator.assets.http import CHUNK, Progress, http_download, part_of
from orchestrator.errors import BackendUnreachable, BadInput, NotFound
from tasks.datasets.files import open_regular
from tasks.datasets.info import DatasetInfo, Download

FOLDER = "downloads"
"""Below the data root: archives, until they are unpacked."""


def fetch(info: DatasetInfo, root: Path, progress: Progress, keep: bool = False) -> None:
    """Gets and unpacks what the data set needs below `root`; what is there already is not fetched again.

    Cut off in the middle, the next call resumes there. A file that was put into `root`/downloads by hand is compared
    with its sum like any other, and never removed. Raises NotFound, with what to do by hand, where its makers give no
    address that a program may use; BackendUnreachable when an address does not answer, its file has a wrong sum, or the
    disk refuses; BadInput for an archive that is damaged, and for a file put there by hand that has a wrong sum.
    """
    if info.source != "folder":
        raise NotFound(f"{info.name} needs no download. {info.how_to_get}")
    if not info.downloads:
        raise NotFound(f"{info.name} cannot be fetched by a program. Below {root}: {info.how_to_get}")
    archives = [root / FOLDER / name_of(download) for download in info.downloads]
    complete = info.missing(root) is None and not any(_unfinished(path) for path in archives)
    if complete and not any(path.exists() for path in archives):
        return
    for download, path in zip(info.downloads, archives, strict=True):
        if path.exists():
            _verify(download, progress, path)
        elif not complete:
            http_download(download.url, path, partial(_verify_download, download, progress), _BY_HAND, progress)
            _mark(path)
    for download, path in zip(info.downloads, archives, strict=True):
        if path.exists() and not (complete and download.md5):
            progress(f"unpacking {path.name}", 0, None)
            _unpack(path, root / download.folder, download.unpack)
        if _is_ours(path) and not keep:
            path.unlink()
        _marker(path).unlink(missing_ok=True)
    problem = info.missing(root)
    if problem:
        raise NotFound(f"downloaded and unpacked, but files are missing: {problem}")


def name_of(download: Download) -> str:
    return download.url.rpartition("/")[2]


_BY_HAND = "get the file by other means into the folder downloads below the data root and run the same command again"


def _unfinished(path: Path) -> bool:
    """True if an earlier call left a part of a download, an archive of its own, or an archive unpacked halfway."""
    return part_of(path).exists() or _is_ours(path) or os.path.lexists(_unpacked(path))


def _unpacked(path: Path) -> Path:
    """Where an archive is unpacked, before its files go to their place."""
    return path.with_name(f"{path.name}.unpacked")


def _marker(path: Path) -> Path:
    """Says of an archive that we downloaded it: only such are removed."""
    return path.with_name(f"{path.name}.fetched")


def _version(path: Path) -> str:
    state = path.stat()
    return f"{state.st_size} bytes, changed at {state.st_mtime_ns} ns\n"


def _mark(path: Path) -> None:
    try:
        _marker(path).write_text(_version(path))
    except OSError as error:
        raise BackendUnreachable(f"cannot write to {path.parent}: {error.strerror}") from error


def _is_ours(path: Path) -> bool:
    """True if an earlier or this call downloaded the file, and nobody has put another in its place."""
    try:
        return _marker(path).read_text() == _version(path)
    except (OSError, UnicodeDecodeError):
        return False


def _sum(download: Download, progress: Progress, path: Path) -> str | None:
    """The MD5 sum of a file; None where nobody publishes one to compare it with. Raises OSError."""
    if download.md5 is None:
        return None
    progress(f"checking {name_of(download)}", 0, None)
    total = hashlib.md5(usedforsecurity=False)
    with open_regular(path) as file:
        while chunk := file.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()


def _verify_download(download: Download, progress: Progress, part: Path) -> None:
    actual = _sum(download, progress, part)
    if actual != download.md5:
        raise BackendUnreachable(
            f"{download.url}: the file has MD5 {actual}, not {download.md5}; it was removed: run the same command again"
        )


def _verify(download: Download, progress: Progress, path: Path) -> None:
    """Looks at a file that lies in the folder of downloads, whoever put it there."""
    try:
        actual = _sum(download, progress, path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    if actual != download.md5:
        raise BadInput(
            f"{path} has MD5 {actual}, not {download.md5} as {download.url} has: it is another file, or not whole; "
            "put the right one there, or remove it and run the same command again"
        )


def _unpack(path: Path, folder: Path, unpacks: bool) -> None:
    """Into the folder; archives inside a zip file (Caltech-101) too. An archive that was unpacked halfway is unpacked
    again from its beginning. Nothing reaches the folder before all of the archive has been read."""
    aside = _unpacked(path)
    ours = _is_ours(path)
    try:
        with _locked(path):
            if os.path.lexists(aside):
                shutil.rmtree(aside)  # left by a call that was killed
            if unpacks:
                files = unpack(path, aside / "outer")
                inner = [file for file in files if path.suffix == ".zip" and file.name.endswith(".tar.gz")]
                for number, file in enumerate(inner):
                    if not file.name.startswith("._"):  # what macOS adds
                        unpack(file, aside / f"inner{number}")
                        file.unlink()
            else:
                (aside / "outer").mkdir(parents=True)
                with open_regular(path) as source, (aside / "outer" / path.name).open("xb") as copy:
                    shutil.copyfileobj(source, copy)
            for part in sorted(aside.iterdir()):
                move_into(part, folder)
            shutil.rmtree(aside)
    except BadInput as error:
        shutil.rmtree(aside, ignore_errors=True)
        if not ours:
            raise BadInput(f"{error}; put another there, or remove it and run the same command again") from error
        path.unlink()
        raise BadInput(f"{error}; it was removed: run the same command again") from error
    except OSError as error:
        raise BackendUnreachable(f"{path} cannot be unpacked into {folder}: {error}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held while an archive is unpacked. Raises BackendUnreachable if another process holds it."""
    with open_regular(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackendUnreachable(f"{path}: another process is unpacking it; wait for that one") from None
        except OSError:
            pass  # a file system without locks
        yield
