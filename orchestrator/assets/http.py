"""Downloads a file, and resumes a download that was cut off."""

from __future__ import annotations

import fcntl
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from orchestrator.errors import BackendUnreachable

CHUNK = 1 << 20
LEFT_FREE = 2**28
"""Bytes of the disk that a download of unknown size leaves free."""
SILENT_S = 60.0
"""Seconds without an answer after which an address is given up."""

Progress = Callable[[str, int, int | None], None]
"""(name of the file, bytes so far, bytes in all if the server states them)"""


def part_of(path: Path) -> Path:
    """Where a download lies until it is complete and checked."""
    return path.with_name(f"{path.name}.part")


def http_download(
    url: str, path: Path, check: Callable[[Path], None], by_hand: str, progress: Progress = lambda *state: None
) -> None:
    """Downloads `url` (https://, http:// or file://) to `path`, from where an earlier call was cut off.

    `check` gets the complete file before it has its name; if it raises an error, the file is removed. `by_hand`: what
    the user can do instead, for messages. Raises BackendUnreachable if the address does not answer, if the download is
    cut off, if the disk refuses the file, or if another process is downloading it.
    """
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if part.exists() and not part.is_file():
            raise BackendUnreachable(f"{part} is in the way of the download, and is no file; remove it")
        with part.open("ab") as file:
            if not _locked(file, part):
                raise BackendUnreachable(f"{url}: another process is downloading it to {path}; wait for that one")
            try:
                _fill(url, file, path, by_hand, progress)
            except BackendUnreachable:
                if not file.tell():
                    part.unlink()
                raise
            file.flush()
            os.fsync(file.fileno())
            try:
                check(part)
            except Exception:
                part.unlink()
                raise
            part.replace(path)
    except OSError as error:
        raise BackendUnreachable(f"cannot write to {path.parent}: {error.strerror}") from error


def _locked(file: IO[bytes], part: Path) -> bool:
    """Locks the file for this process; False if another has it, or has renamed or removed it meanwhile."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    try:
        return os.path.samestat(os.fstat(file.fileno()), part.stat())
    except FileNotFoundError:
        return False


def _fill(url: str, file: IO[bytes], path: Path, by_hand: str, progress: Progress) -> None:
    """Appends what is missing of the file."""
    have = file.tell()
    with _opened(url, have, by_hand) as answer:
        if answer is None:  # the file is complete
            return
        begins = answer.headers.get("Content-Range", f"bytes {have}-").startswith(f"bytes {have}-")
        if answer.status == http.client.PARTIAL_CONTENT and not begins:
            raise BackendUnreachable(f"{url}: the server does not resume at byte {have:,}; remove {part_of(path)}")
        if answer.status != http.client.PARTIAL_CONTENT:  # the server sends the file from its beginning
            file.truncate(0)
            have = 0
        left = answer.headers.get("Content-Length", "")
        total = have + int(left) if left.isdecimal() else None
        if total is not None and shutil.disk_usage(path.parent).free < total - have:
            raise BackendUnreachable(f"{path.parent} has no room for the {total - have:,} bytes left of {url}")
        while chunk := _read(answer, url, by_hand):
            if total is None and shutil.disk_usage(path.parent).free < LEFT_FREE:
                raise BackendUnreachable(f"{path.parent} has no room for {url}, which does not say how large it is")
            file.write(chunk)
            have += len(chunk)
            progress(path.name, have, total)
    if total is not None and have != total:
        raise BackendUnreachable(
            f"{url}: cut off after {have:,} of {total:,} bytes; the same command again resumes there"
        )


@contextmanager
def _opened(url: str, have: int, by_hand: str) -> Iterator[Any]:
    """The server's answer from byte `have` on; None if there is nothing after it."""
    headers = {"User-Agent": "orchestrator", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SILENT_S)
    except urllib.error.HTTPError as error:
        if not have or error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise BackendUnreachable(f"{url}: {error.code} {error.reason}; {by_hand}") from error
        answer = None
    except (OSError, http.client.HTTPException) as error:
        raise _no_answer(url, error, by_hand) from error
    if answer is None:
        yield None
        return
    with answer:
        yield answer


def _read(answer: Any, url: str, by_hand: str) -> bytes:
    try:
        return bytes(answer.read(CHUNK))
    except (OSError, http.client.HTTPException) as error:
        raise _no_answer(url, error, by_hand) from error


def _no_answer(url: str, error: Exception, by_hand: str) -> BackendUnreachable:
    reason = getattr(error, "reason", None) or error
    return BackendUnreachable(f"{url}: {reason}; the same command again resumes there, or {by_hand}")
