"""Downloads data sets: resumes what was cut off, compares sums, unpacks.

Addresses and sums are torchvision's. Its own downloader starts again after a cut, which is too slow for 120 GB.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import zipfile
import zlib
from functools import partial
from pathlib import Path

from orchestrator.assets.http import Progress, http_download, part_of
from orchestrator.errors import BackendUnreachable, NotFound
from tasks.datasets.info import DatasetInfo, Download

FOLDER = "downloads"
"""Below the data root: archives, until they are unpacked."""


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
    if info.missing(root) is None and not any(path.exists() or part_of(path).exists() for path in archives):
        return
    for download, path in zip(info.downloads, archives, strict=True):
        if not path.exists():
            check = partial(_verify, download, progress)
            http_download(download.url, path, check, _BY_HAND, progress)
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


_BY_HAND = "get the file by other means into the folder downloads below the data root and run the same command again"


def _verify(download: Download, progress: Progress, part: Path) -> None:
    if download.md5 is None:
        return
    progress(f"checking {name_of(download)}", 0, None)
    with part.open("rb") as file:
        actual = hashlib.file_digest(file, "md5").hexdigest()
    if actual != download.md5:
        raise BackendUnreachable(
            f"{download.url}: the file has MD5 {actual}, not {download.md5}; it was removed: run the same command again"
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
