"""Unpacks archives of others: plain files below one new folder, of bounded size, read to the archive's end.

Neither tarfile's filters (which Python before 3.11.4 lacks, and which let chains of long links out of the folder until
3.11.13) nor extractall: links, devices, and absolute or climbing names are refused, so there is nothing to follow.
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Self

from orchestrator.errors import BadInput
from orchestrator.printable import printable
from tasks.datasets.files import open_regular, plain

MOST_FILES = 2_000_000
"""Of one archive; that of iNaturalist 2018, the largest known, has 461,939."""
MOST_TIMES = 100
"""An archive may unpack to this many times its own size (images: 1, lists of text: 15) ..."""
AND_BYTES = 2**28
"""... and this much more, for small ones."""
DEEPEST = 64
"""Folders in folders."""
CHUNK = 1 << 20
LONGEST_HEADER = 1 << 20
"""Bytes of the header of a tar file that holds a long name; tarfile reads it into memory."""
_LONG_HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


class _Refused(Exception):
    """What is wrong with an archive, in words."""


def unpack(path: Path, folder: Path) -> list[Path]:
    """Unpacks a tar file (plain or gzipped) or a zip file into `folder`, which must not exist yet; the files in it.

    Raises BadInput for an archive that is damaged or refused (then `folder` holds a part of it), OSError for a disk
    that refuses a file.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        folder.mkdir(parents=True)
        room = _Room(folder, AND_BYTES + MOST_TIMES * size)
        try:
            return [*_unpacked(file, room)]
        except _DiskError as error:
            raise error.args[0] from error
        except _Refused as error:
            reason = str(error)
        except Exception as error:  # whatever tarfile, zipfile, gzip and zlib raise on damaged bytes
            reason = f"it is damaged: {error or type(error).__name__}"
    raise BadInput(f"{path} is not unpacked: {printable(reason, 1000)}")


def move_into(unpacked: Path, folder: Path) -> None:
    """Moves what was unpacked into a folder, which may hold some of it already; those files are replaced, all others
    stay. Raises OSError, for example where a file is in the place of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in sorted(unpacked.iterdir()):
        target = folder / entry.name
        if entry.is_dir() and target.is_dir():
            move_into(entry, target)
        elif entry.is_dir() and os.path.lexists(target):
            raise FileExistsError(f"{target} is no folder; the archive has a folder of that name")
        elif target.is_dir():
            raise FileExistsError(f"{target} is a folder; the archive has a file of that name")
        elif entry.is_dir() or os.stat(entry).st_dev == os.stat(folder).st_dev:
            shutil.move(entry, target)
        else:  # the folder is a link to another disk
            part = folder / f".{entry.name}.part"
            shutil.copyfile(entry, part)
            part.replace(target)


def _shown(name: str) -> str:
    """A name in the archive for a message: a stranger may have given it 65,535 characters."""
    return f"'{printable(name, 120)}'"


class _DiskError(Exception):
    """An OSError of the disk that is written to, apart from those that damaged archives cause."""


class _Room:
    """The folder that files go to, and what is left of the bounds."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder, self._bound, self._left, self._files = folder, most_bytes, most_bytes, 0

    def take(self, size: int) -> None:
        """Counts bytes that the archive was unpacked to, also those that are not written."""
        self._left -= size
        if self._left < 0:
            raise _Refused(f"it unpacks to more than {self._bound:,} bytes, too many for an archive of its size")

    def name(self, name: str) -> Path:
        """The place of a file or folder, by its name in the archive."""
        self._files += 1
        if self._files > MOST_FILES:
            raise _Refused(f"it has more than {MOST_FILES:,} files")
        try:
            below = plain(name)
        except ValueError:
            raise _Refused(f"{_shown(name)} is not below its folder") from None
        if below.count("/") > DEEPEST:
            raise _Refused(f"{_shown(name)} lies more than {DEEPEST} folders deep")
        return self._folder / below

    def write(self, name: str, content: IO[bytes]) -> Path:
        """A file of this content; its path."""
        path = self.name(name)
        with _disk(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                while chunk := _read(content):
                    self.take(len(chunk))
                    file.write(chunk)
        return path

    def make(self, name: str) -> None:
        """A folder; that of the archive as a whole (`./`) is there already."""
        if name.strip("./") or ".." in name:
            with _disk(name):
                self.name(name).mkdir(parents=True, exist_ok=True)


@contextmanager
def _disk(name: str) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise _Refused(f"{_shown(name)} is in it twice, or as a file and as a folder") from None
    except OSError as error:
        raise _DiskError(error) from error


def _read(content: IO[bytes]) -> bytes:
    try:
        return content.read(CHUNK)
    except OSError as error:  # of gzip, for example: not the disk's
        raise _Refused(f"it is damaged: {error}") from error


def _unpacked(file: BinaryIO, room: _Room) -> Iterator[Path]:
    first = file.read(4)
    file.seek(0)
    if first in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip(file, room)
    if first[:2] == b"\x1f\x8b":
        return _tar(gzip.GzipFile(fileobj=file), room)
    return _tar(file, room)


def _zip(file: BinaryIO, room: _Room) -> Iterator[Path]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Refused(f"{_shown(member.filename)} is neither a file nor a folder")
            if member.flag_bits & 1:
                raise _Refused(f"{_shown(member.filename)} is encrypted")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _Refused(
                    f"{_shown(member.filename)} is compressed in a way ({member.compress_type}) that is not read"
                )
            if "\0" in member.orig_filename:
                raise _Refused(f"{_shown(member.orig_filename)} is no name of a file")
            if member.is_dir():
                room.make(member.filename)
                continue
            with archive.open(member) as content:  # checks the sum when it is read to its end
                yield room.write(member.filename, content)


class _Member(tarfile.TarInfo):
    """A header of a tar file. tarfile takes a damaged one in the middle for the archive's end; this one does not."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) != tarfile.BLOCKSIZE:
            raise _Refused("it is cut short, or no archive: a tar file (plain or gzipped) or a zip file is read")
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not any(buf):
                raise  # the mark of the end
            raise _Refused(f"it is damaged, or no archive: {error}") from None
        if member.size < 0 or (member.type in _LONG_HEADERS and member.size > LONGEST_HEADER):
            raise _Refused(f"a header states a size of {member.size:,} bytes")
        return member


def _tar(file: Any, room: _Room) -> Iterator[Path]:
    counted: Any = _Counted(file, room)
    with closing(file), tarfile.open(fileobj=counted, mode="r|", tarinfo=_Member) as opened:
        archive: Any = opened
        while (member := archive.next()) is not None:
            archive.members = []  # else it keeps every header
            if member.isdir():
                room.make(member.name)
            elif not member.isreg() or member.sparse is not None:
                raise _Refused(f"{_shown(member.name)} is neither a plain file nor a folder")
            else:
                yield room.write(member.name, archive.extractfile(member))
        while chunk := archive.fileobj.read(CHUNK):  # to the end: there gzip has its sum
            if any(chunk):
                raise _Refused("it has more after its end")


class _Counted:
    """A stream whose every byte counts against the room: headers and padding too."""

    def __init__(self, file: Any, room: _Room) -> None:
        self._file, self._room = file, room

    def read(self, size: int) -> bytes:
        chunk: bytes = self._file.read(size)
        self._room.take(len(chunk))
        return chunk
