"""Writes a generated set in as many processes as there are cores, each a share of its images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tasks.errors import DataError

Counts = Mapping[Any, int]
"""Part of a set -> its images."""


def share_of(counts: Counts, share: int, shares: int) -> list[tuple[Any, int]]:
    """Part and number in it of every image whose number in the whole set leaves this remainder."""
    return [(part, index) for part, count in counts.items() for index in range(count)][share::shares]


def save_entries(folder: Path, share: int, entries: list[dict[str, Any]]) -> None:
    """Keeps what a share has to say of its images, as JSON, until `take_entries`."""
    (folder / f".share{share}.json").write_text(json.dumps(entries))


def take_entries(folder: Path, shares: int) -> list[dict[str, Any]]:
    """What all shares kept, one after the other; nothing of it is left in the folder."""
    files = [folder / f".share{share}.json" for share in range(shares)]
    entries = [entry for file in files for entry in json.loads(file.read_text())]
    for file in files:
        file.unlink()
    return entries


def write_in_processes(
    write_share: Callable[[Path, Counts, int, int], None], folder: Path, name: str, counts: Counts
) -> int:
    """Calls `write_share(folder, counts, share, shares)`, a function of a module, for every share; how many there were.

    `name`: of the set. Raises DataError with the last line of what a process had to say; OSError where it could not be
    started.
    """
    cores = min(8, len(os.sched_getaffinity(0)))
    if cores == 1:
        write_share(folder, counts, 0, 1)
        return 1
    module, function = write_share.__module__, write_share.__name__
    code = f"import json, sys; from pathlib import Path; from {module} import {function} as write; "
    code += "write(Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))"
    start = partial(subprocess.Popen, stderr=subprocess.PIPE, text=True, env=_environment())
    command = [sys.executable, "-c", code, str(folder), json.dumps(dict(counts))]
    shares = [[*command, str(share), str(cores)] for share in range(cores)]
    running = [start(arguments) for arguments in shares]  # new processes: a fork of one with threads may never end
    failed = [last for last in (process.communicate()[1] for process in running) if last]
    if any(process.returncode for process in running):
        raise DataError(f"{name}: cannot be generated: {failed[-1].strip().splitlines()[-1] if failed else 'killed'}")
    return cores


def _environment() -> dict[str, str]:
    """With the modules of this process, wherever it found them."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
