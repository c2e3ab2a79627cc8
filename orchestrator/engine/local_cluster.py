"""The files of a folder's local Ray cluster: its address, its locks, its token, and its private session folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil

from orchestrator import processes
from orchestrator.errors import BackendUnreachable
from orchestrator.settings import private_folder

TOKEN_PATH = Path("~/.ray/auth_token")
"""Where Ray keeps the token of the local cluster."""
LONGEST_SESSIONS = 40
"""Characters of a path below which Ray's sockets still fit into the 107 that Linux allows: Ray adds up to 64."""
LONGEST_TMPDIR = 60
"""Characters of a TMPDIR in which Python's own sockets (multiprocessing) fit too."""
SHORT_ROOTS = ("/tmp", "/var/tmp", "/dev/shm")

log = logging.getLogger(__name__)


# The address


def described(folder: Path) -> dict[str, Any] | None:
    """The running local cluster of this folder, as it described itself; None if its process is gone."""
    return signed_by(folder / "ray.json")


def describe(folder: Path, address: str, dashboard: str | None) -> None:
    """Publishes this process as the folder's local cluster."""
    written = folder / "ray.json.new"
    written.write_text(json.dumps({"address": address, "dashboard": dashboard, **this_process()}))
    written.rename(folder / "ray.json")


def this_process() -> dict[str, Any]:
    """The id of this process and when it began, by which `is_running` knows it again."""
    return {"pid": os.getpid(), "pid_started": processes.this_began()}


def is_running(state: dict[str, Any]) -> bool:
    """True if the process that `this_process` described still runs."""
    return processes.is_running(state["pid"], state["pid_started"])


def end_process(state: dict[str, Any]) -> None:
    """Kills the process that `this_process` described, and everything it has started, if it still runs."""
    with contextlib.suppress(psutil.NoSuchProcess, KeyError):
        if is_running(state):
            end_family(psutil.Process(state["pid"]))


def end_family(process: psutil.Process, itself: bool = True) -> None:
    """Kills a process (`itself`) and everything it has started."""
    family = [*process.children(recursive=True), *([process] if itself else [])]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=10)


# Locks


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[IO[str]]:
    """Keeps the local cluster of this folder from ending; several drivers may hold it."""
    private_folder(folder)
    with open(folder / "ray.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield lock


def alone(lock: IO[str]) -> bool:
    """True if nobody else holds the cluster that `hold` has locked by this file."""
    only = locked(lock)
    fcntl.flock(lock, fcntl.LOCK_SH)  # a lock that could not be changed may be lost
    return only


def held(folder: Path) -> bool:
    """True if a driver holds the local cluster of this folder."""
    with contextlib.suppress(OSError), open(folder / "ray.lock", "a") as lock:
        return not locked(lock)
    return False  # the folder is gone


def withdraw(folder: Path) -> bool:
    """Removes the cluster's address; False if a driver holds the cluster, which then stays."""
    with contextlib.suppress(OSError), open(folder / "ray.lock", "a") as lock:
        if not locked(lock):
            return False
        (folder / "ray.json").unlink(missing_ok=True)  # under the lock: the next driver finds none and starts another
    return True


def locked(lock: IO[str]) -> bool:
    """Tries, without waiting, to lock the file for this process alone; True if it succeeded."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sign(lock: IO[str]) -> None:
    """Notes in a lock file which process holds it."""
    lock.truncate(0)
    lock.write(json.dumps(this_process()))
    lock.flush()


def signed_by(path: Path) -> dict[str, Any] | None:
    """The living process that signed this file; None if there is none."""
    try:
        state: dict[str, Any] = json.loads(path.read_text())
        return state if is_running(state) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


# The token


def token_path() -> Path:
    """The file of the token: RAY_AUTH_TOKEN_PATH, or Ray's own place."""
    return Path(os.path.expanduser(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN_PATH))


def private_token() -> None:
    """Makes the token of the local cluster if there is none, and takes every right to it from other users.

    Ray would write it with the rights of the umask, and it is the only lock of the cluster. Raises BackendUnreachable
    if it belongs to another user or cannot be written.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    path = token_path()
    try:
        if not path.parent.exists():
            private_folder(path.parent)
        elif path == Path(os.path.expanduser(TOKEN_PATH)):
            _take_rights(path.parent)
        if not path.exists() or not path.stat().st_size:
            _write_token(path)
        if _take_rights(path):
            log.info(
                "%s could be read by other users of this machine; now it is private. If one of them may have read it, "
                "remove it while no Ray of yours runs: the next start makes another",
                path,
            )
    except OSError as error:
        raise BackendUnreachable(
            f"cannot keep Ray's token in {path}: {error.strerror or error}; set RAY_AUTH_TOKEN_PATH to a file of yours"
        ) from error


def _write_token(path: Path) -> None:
    """Writes a new token at once as a whole; of two processes that do so, one wins."""
    made, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # for the owner alone, by its contract
    part = Path(name)
    with os.fdopen(made, "w") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(file.fileno())
    try:
        if path.exists() and not path.stat().st_size:
            part.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(part, path)
    finally:
        part.unlink(missing_ok=True)


def _take_rights(path: Path) -> bool:
    """Takes all rights from the group and others; True if they had any. Raises OSError if it is another user's."""
    status = path.stat()
    if status.st_uid != os.getuid():
        raise PermissionError(0, "it belongs to another user")
    had = bool(status.st_mode & 0o077)
    if had:
        path.chmod(stat.S_IMODE(status.st_mode) & ~0o077)
    return had


# The session folder


@contextlib.contextmanager
def session_folder(folder: Path) -> Iterator[Path]:
    """A private folder for Ray's sessions, by a path that is short enough for their sockets; TMPDIR becomes short too.

    It lies below `folder`, or below RAY_TMPDIR if that is set; where no socket can be made there (some network file
    systems), below /tmp. The caller is the folder's only cluster: sessions of earlier ones are removed first, its own
    at the end of the block. Those of a cluster that was killed stay until the next one, so that its logs can be read.
    """
    base = os.environ.get("RAY_TMPDIR")
    name = f"ray-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}" if base else "ray"
    private = private_folder(Path(base or folder) / name)
    private.chmod(0o700)
    remove_sessions(private)
    sessions = private_folder(private / "s")  # which Ray opens to everybody
    short: Path | None = None
    temporary = tempfile.gettempdir()
    usable = _takes_sockets(sessions)
    if not usable or len(str(sessions)) > LONGEST_SESSIONS or len(temporary) > LONGEST_TMPDIR:
        short = _short_folder()
        (private / "short").write_text(str(short))
    try:
        if short is not None and len(temporary) > LONGEST_TMPDIR:
            (short / "t").symlink_to(temporary)
            os.environ["TMPDIR"] = str(short / "t")
        if short is None or (usable and len(str(sessions)) <= LONGEST_SESSIONS):
            yield sessions
        elif usable:
            (short / "r").symlink_to(sessions)
            yield short / "r"
        else:
            yield private_folder(short / "r")
    finally:
        if short is not None:
            shutil.rmtree(short, ignore_errors=True)
    remove_sessions(private)


def remove_sessions(private: Path) -> None:
    """Removes the sessions of clusters that have ended, and the short path of one that was killed."""
    with contextlib.suppress(OSError):
        short = Path((private / "short").read_text())
        (private / "short").unlink()
        if short.name.startswith("ray-") and str(short.parent) in SHORT_ROOTS and short.stat().st_uid == os.getuid():
            shutil.rmtree(short, ignore_errors=True)
    if not (private / "s").is_symlink():
        shutil.rmtree(private / "s", ignore_errors=True)


def _short_folder() -> Path:
    """A new private folder with a short path. Raises BackendUnreachable if none can be made."""
    for root in SHORT_ROOTS:
        with contextlib.suppress(OSError):
            return Path(tempfile.mkdtemp(prefix="ray-", dir=root))
    raise BackendUnreachable(
        f"no folder with a short path for Ray's sockets can be made in {', '.join(SHORT_ROOTS)}: set RAY_TMPDIR to a "
        f"folder whose path has at most {LONGEST_SESSIONS - len('/ray-01234567/s')} characters"
    )


def _takes_sockets(folder: Path) -> bool:
    """True if a socket can be made in this folder."""
    here = os.open(folder, os.O_RDONLY)
    probe = f"/proc/self/fd/{here}/probe"  # short, however long the folder's own path is
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(probe)
        os.unlink(probe)
        return True
    except OSError:
        return not Path("/proc/self/fd").exists()
    finally:
        os.close(here)
