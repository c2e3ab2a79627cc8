"""Runs the reading of a stranger's file in a process of its own, with a limit on memory and processor time.

Libraries that read checkpoints are written in C++ and have been made to crash and to fill the memory by files of some
hundred bytes. Here that ends a child, and becomes one line.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.errors import BackendUnreachable, BadInput, Conflict, NotFound, OrchestratorError
from tasks.errors import DataError

LEAST_MEMORY = 2 * 2**30
"""Bytes that reading may take, whatever the size of the file."""
LEAST_SECONDS = 120
"""Seconds of processor time, likewise; a slow disk does not count."""
_ERRORS: tuple[type[OrchestratorError], ...] = (BadInput, BackendUnreachable, Conflict, NotFound)


def require(file: Path) -> None:
    """Raises NotFound if there is nothing of this name, BadInput if the system refuses to say."""
    try:
        there = file.exists()
    except OSError as error:  # a name too long, a folder that may not be searched
        raise BadInput(f"{file}: {error.strerror or error}") from error
    if not there:
        raise NotFound(f"no file {file}")


def in_child(work: Callable[[], Any], *files: Path, torch: bool = False, memory: int | None = None) -> Any:
    """What `work` returns, a JSON value, from a fork of this process, which works with a copy of everything here.

    `files`: what is read, for messages and limits: 6 times their size, at least `LEAST_MEMORY` (or `memory`, in
    bytes), beyond what the process has when it starts. `torch`: import it before the limit is set; this process need
    not.

    Raises the OrchestratorError that `work` raises, and BadInput for a DataError, for a crash, and at a limit.
    """
    size = sum(file.stat().st_size for file in files if file.is_file())
    title = " or ".join(map(str, files))
    limit = memory or max(LEAST_MEMORY, 6 * size)
    seconds = LEAST_SECONDS + size // 10_000_000
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run(work, writer, torch, limit, seconds)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as answers:
            answer = answers.read()
    except BaseException:  # Ctrl-C: the child must not go on
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    return _result(answer, status, title, limit, seconds)


def _run(work: Callable[[], Any], writer: int, torch: bool, limit: int, seconds: int) -> None:
    """The child's whole life; does not return."""
    answer: dict[str, Any]
    try:
        _set_limits(torch, limit, seconds)
        answer = {"value": work()}
    except DataError as error:
        answer = {"error": "BadInput", "message": str(error)}
    except _ERRORS as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        answer = {"error": "memory"}
    except RecursionError:
        answer = {"error": "unforeseen", "message": "it is nested too deeply"}
    except BaseException as error:  # our own mistake, or Ctrl-C
        answer = {"error": "unforeseen", "message": f"{type(error).__name__}: {error}".partition("\n")[0][:300]}
    code = 1
    with contextlib.suppress(Exception), os.fdopen(writer, "wb") as file:
        file.write(json.dumps(answer).encode())
        code = 0
    os._exit(code)


def _set_limits(torch: bool, limit: int, seconds: int) -> None:
    if faulthandler.is_enabled():
        faulthandler.disable()  # a crash is told by the parent
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if torch:
        import torch as library

        library.set_num_threads(1)  # a fork has none of its parent's threads, and would wait for them
    own = _mapped()
    if own is not None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = own + limit
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds + int(used.ru_utime + used.ru_stime), resource.RLIM_INFINITY))


def _mapped() -> int | None:
    """Bytes of address space that this process has; None where the system does not tell, and sets no limit."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return None


def _result(answer: bytes, status: int, title: str, limit: int, seconds: int) -> Any:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        why = f"reading it crashed ({signal.Signals(number).name}): it is damaged, or made to break what reads it"
        if number == signal.SIGXCPU:
            why = f"reading it took more than {seconds} s of processor time: damaged, or made to take long"
        elif number in (signal.SIGKILL, signal.SIGTERM):
            why = f"the process that read it was ended ({signal.Signals(number).name}), perhaps for want of memory"
        raise BadInput(f"{title}: {why}; nothing of it was taken")
    try:
        content = json.loads(answer)
    except ValueError:
        content = {"error": "unforeseen", "message": "the process that read it ended without a word"}
    if "error" not in content:
        return content["value"]
    if content["error"] == "memory":
        room = f"{limit / 2**30:.1f} GiB"
        raise BadInput(f"{title}: reading it takes more than {room} of memory: damaged, or made to fill the memory")
    for kind in _ERRORS:
        if kind.__name__ == content["error"]:
            raise kind(content["message"])
    raise BadInput(f"{title} cannot be read, for an unforeseen reason: {content['message']}")
