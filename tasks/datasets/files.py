"""Opens the files that others name or left in a folder: regular ones only, below their folder, of bounded size."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from tasks.errors import printable

Name = TypeVar("Name", bound=Hashable)
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff", ".gif")
"""Of images, in lower case; files with another suffix are no images."""
SHOWN = 3
"""Names that a line of a message has; the others are counted."""
LARGEST_LIST = 2**30
"""Bytes of a list of images; that of iNaturalist 2018, the longest known, has 130 MB."""
_LEFT_BY_PROGRAMS = frozenset({
    "@eadir", "#recycle", "$recycle.bin", "__macosx", "desktop.ini", "ehthumbs.db", "lost+found",
    "system volume information", "thumbs.db",
})  # fmt: skip
"""What Synology, Windows, macOS and ext4 put into folders, in lower case. (Jupyter's .ipynb_checkpoints is hidden.)"""
_KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


def open_regular(path: Path) -> BufferedReader:
    """Opens a file to read. Raises OSError, also for whatever is no file: a named pipe would block for ever."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(number, "rb")
    os.close(number)
    kind = next((words for test, words in _KINDS if test(mode)), "something else")
    raise OSError(f"{path} is no file but {kind}")


def read_list(path: Path) -> str:
    """The text of a list: UTF-8, with or without a byte order mark; bytes that are none stay in names of files.

    Raises OSError, and ValueError for a list beyond LARGEST_LIST.
    """
    with open_regular(path) as file:
        content = file.read(LARGEST_LIST + 1)
    if len(content) > LARGEST_LIST:
        raise ValueError(f"{path} is larger than {LARGEST_LIST / 2**30:g} GiB: no list of images")
    return content.decode("utf-8-sig", errors="surrogateescape")


def list_lines(path: Path) -> list[tuple[int, str]]:
    """(line number, content) of the lines of a list that are not empty, without blanks at their ends.

    Raises OSError and ValueError as `read_list` does.
    """
    numbered = enumerate(read_list(path).split("\n"), 1)  # splitlines() would also split at rare characters in names
    return [(number, line.strip()) for number, line in numbered if line.strip()]


def plain(name: str) -> str:
    """The name of a file in a list, without `./` and double slashes. Raises ValueError for one that may lie outside the
    folder of the list: absolute, or with `..` in it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise ValueError(f"{name!r} names no file below the folder of the data")
    return str(path)


def below(base: Path, paths: Iterable[Path]) -> Iterator[str]:
    """The names of files below a folder. Raises ValueError for one that is not below it by its name (a link within the
    folder may lead elsewhere: whoever owns the folder made it)."""
    start = f"{base.as_posix().rstrip('/')}/" if base.parts else ""
    for path in paths:
        whole = path.as_posix()
        name = whole[len(start) :]
        if not whole.startswith(start) or name.startswith("/") or "/../" in f"/{name}/" or "\0" in name:
            raise ValueError(f"{whole!r} is not below {base}")
        yield name


def is_filled(path: Path) -> bool:
    """True for a file (no folder, named pipe, device) with content."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size > 0


def first_few(items: Sequence[Any], shown: int = SHOWN) -> str:
    """The first of the items, as they can be printed, and how many others there are."""
    more = f", and {len(items) - shown:,} others" if len(items) > shown else ""
    return printable(", ".join(map(str, items[:shown])) + more)


def repeated(names: Iterable[Name]) -> list[Name]:
    """The names that occur more than once, each once, in their order."""
    return [name for name, times in Counter(names).items() if times > 1]


def ignored(name: str) -> bool:
    """True for hidden files and folders, and for those that operating systems and file servers leave behind."""
    return name.startswith(".") or name.lower() in _LEFT_BY_PROGRAMS


def text_of(value: Any, what: str) -> str:
    """The value. Raises ValueError unless it is text. `what`: its place, for the message."""
    if not isinstance(value, str):
        raise ValueError(f"{what}: {value!r} is no text")
    return value
