"""Downloads data sets: resumes what was cut off, compares sums, unpacks.

Addresses and sums are torchvision's; its own downloader begins anew after a cut, which 120 GB do not forgive.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import BackendUnreachable, NotFound
from tasks.datasets.info import DatasetInfo, Download

FOLDER = "downloads"
"""Below the data root: archives, until they are unpacked."""
CHUNK = 1 << 20
SILENT_S = 60.0
"""Seconds without an answer after which an address is given up."""

Progress = Callable[[str, int, int | None], None]
"""(what is fetched, bytes so far, bytes in all if the server states them)"""


def fetch(info: DatasetInfo, root: Path, progress: Progress, keep: bool = False) -> None:
    """Gets and unpacks what the data set needs below `root`; what is there already is not fetched again.

    Cut off in the middle, the next call resumes there. Raises NotFound, with what to do by hand, where its makers
    give no address that a program may use; BackendUnreachable when an address does not answer or a sum is wrong.
    """
    if info.source != "folder":
        raise NotFound(f"{info.name} needs no download. {info.how_to_get}")
    if not info.downloads:
        raise NotFound(f"{info.name} cannot be fetched by a program. Below {root}: {info.how_to_get}")
    archives = [root / FOLDER / name_of(download) for download in info.downloads]
    if info.missing(root) is None and not any(path.exists() or _part(path).exists() for path in archives):
        return
    for download, path in zip(info.downloads, archives, strict=True):
        if not path.exists():
            _download(download, path, progress)
            _verify(download, _part(path), progress)
            _part(path).rename(path)
    for download, path in zip(info.downloads, archives, strict=True):
        progress(f"unpacking {path.name}", 0, None)
        _unpack(path, root / download.folder, download.unpack)
        if not keep:
            path.unlink()
    problem = info.missing(root)
    if problem:
        raise NotFound(f"downloaded and unpacked, but files are missing: {problem}")


def name_of(download: Download) -> str:
    return download.url.rpartition("/")[2]


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _download(download: Download, path: Path, progress: Progress) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    have = part.stat().st_size if part.exists() else 0
    with _opened(download.url, have) as answer:
        if answer is None:  # the file was complete
            return
        if answer.status != http.client.PARTIAL_CONTENT:  # the server sends the file from its beginning
            have = 0
        left = answer.headers.get("Content-Length")
        total = have + int(left) if left is not None else None
        if total is not None and shutil.disk_usage(path.parent).free < total - have:
            raise BackendUnreachable(f"{path.parent} has no room for the {total - have:,} bytes left of {download.url}")
        with part.open("ab" if have else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                progress(path.name, have, total)
    if total is not None and have != total:
        raise BackendUnreachable(
            f"{download.url}: cut off after {have:,} of {total:,} bytes; the same command again goes on from there"
        )


@contextmanager
def _opened(url: str, have: int) -> Iterator[http.client.HTTPResponse | None]:
    """The server's answer from byte `have` on; None when there is nothing after it."""
    headers = {"User-Agent": "orchestrator (data fetch)", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SILENT_S) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            yield None
            return
        raise BackendUnreachable(f"{url}: {error.code} {error.reason}; {_BY_HAND}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise BackendUnreachable(
            f"{url}: {reason}; the same command again goes on from there, or {_BY_HAND}"
        ) from error


_BY_HAND = "get the file by other means into the folder downloads below the data root and run the same command again"


def _verify(download: Download, part: Path, progress: Progress) -> None:
    if download.md5 is None:
        return
    progress(f"checking {name_of(download)}", 0, None)
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != download.md5:
        part.unlink()
        raise BackendUnreachable(
            f"{download.url}: what came has MD5 {found}, not {download.md5}; it was removed: run the same command again"
        )


def _unpack(path: Path, folder: Path, unpack: bool) -> None:
    """Into the folder; archives inside an archive (Caltech-101) too. An archive that was unpacked halfway is unpacked
    again from its beginning."""
    folder.mkdir(parents=True, exist_ok=True)
    if not unpack:
        shutil.copyfile(path, folder / path.name)
        return
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
                inner = [name for name in archive.namelist() if name.endswith(".tar.gz")]
                names = [name for name in inner if not Path(name).name.startswith("._")]  # what macOS adds
        else:
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
            names = []
        for name in names:
            with tarfile.open(folder / name) as archive:
                archive.extractall(folder, filter="data")
            (folder / name).unlink()
    except (EOFError, tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error) as error:
        path.unlink()
        raise BackendUnreachable(f"{path} is damaged ({error}); it was removed: run the same command again") from error
    except OSError as error:
        raise BackendUnreachable(f"{path} cannot be unpacked into {folder}: {error}") from error
