"""The folder in which a node keeps decoded images: its place, its limit, and how room is made in it.

ORCHESTRATOR_CACHE (on each node): a folder on a local disk or /dev/shm, in which orchestrator-cache-UID is made, or
`off`; default: the folder for temporary files. ORCHESTRATOR_CACHE_GB: its largest size; default 20, and never more than
half of what that file system could give it. A list of images that needs more is not cached; to make room, files that no
process has open are removed, those opened longest ago first.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tasks.errors import DataError

DEFAULT_GB = 20.0


@dataclass(frozen=True)
class CacheFolder:
    """A folder of decoded images with a limit."""

    folder: Path
    limit: int
    """Bytes."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Held while room is counted and taken."""
        with (self.folder / "room.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def make_room(self, needed: int) -> bool:
        """Removes files until `needed` more bytes fit. Returns True if they do. Called while `locked`."""
        files = [*self.folder.glob("*.pixels"), *self.folder.glob("*.part")]
        by_age = sorted((stat.st_mtime, stat.st_size, path) for path in files if (stat := stat_of(path)))
        total = sum(size for _, size, _ in by_age)
        for _, size, path in by_age:
            if total + needed <= self.limit:
                break
            if _remove_unused(path):
                total -= size
        return total + needed <= self.limit


def node_cache_folder() -> CacheFolder | str:
    """The folder of this node, by its environment; or the reason why there is none, in words. Raises DataError for
    impossible settings."""
    place = os.environ.get("ORCHESTRATOR_CACHE", "")
    if place == "off":
        return "off (ORCHESTRATOR_CACHE)"
    home = os.path.expanduser(place)
    if home.startswith("~"):
        raise DataError(
            f"ORCHESTRATOR_CACHE {place!r}: the home folder that ~ stands for is unknown; write a whole path"
        )
    folder = Path(home or tempfile.gettempdir()).absolute() / f"orchestrator-cache-{os.getuid()}"
    amount = os.environ.get("ORCHESTRATOR_CACHE_GB", "")
    try:
        gigabytes = float(amount or DEFAULT_GB)
        if not gigabytes > 0:
            raise ValueError
    except ValueError:
        raise DataError(
            f"ORCHESTRATOR_CACHE_GB {amount!r} is not a number above 0; unset it for {DEFAULT_GB:g}"
        ) from None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stat = folder.stat()
        # Anybody can make a folder below the one for temporary files: pixels that others wrote are not trained on.
        if stat.st_uid != os.getuid() or stat.st_mode & 0o022 or not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "others can write to it, or we cannot")
        free = os.statvfs(folder)
    except OSError as error:
        remedy = "set ORCHESTRATOR_CACHE to a folder of your own on a local disk, or to off"
        raise DataError(f"image cache {folder}: {error.strerror}; {remedy}") from error
    held = sum(entry.st_size for path in folder.iterdir() if (entry := stat_of(path)))
    return CacheFolder(folder, min(int(gigabytes * 1e9), (free.f_bavail * free.f_frsize + held) // 2))


@cache
def boot() -> bytes:
    """Identifies this start of the machine; enters the names of files. After a crash of the machine a file may have its
    name without its content, and flushing each one to disk can take a minute where others write too."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        import psutil  # here: Linux does without it

        return str(int(psutil.boot_time())).encode()


def _remove_unused(path: Path) -> bool:
    """Removes a file of the cache, unless a process has it open."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            return True
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False


def stat_of(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
