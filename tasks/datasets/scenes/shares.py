"""Writes a generated set in as many processes as there are cores, each a share of its images."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

from tasks.errors import DataError


def write_in_processes(module: str, folder: Path, name: str) -> int:
    """Calls `write_share(folder, name, share, shares)` of a module for every share; how many there were.

    `name`: of the set. Raises DataError with the last line of what a process had to say; OSError where it could not be
    started.
    """
    cores = min(8, len(os.sched_getaffinity(0)))
    if cores == 1:
        import_module(module).write_share(folder, name, 0, 1)
        return 1
    code = f"import sys; from pathlib import Path; from {module} import write_share; "
    code += "write_share(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))"
    start = partial(subprocess.Popen, stderr=subprocess.PIPE, text=True, env=_environment())
    shares = [[sys.executable, "-c", code, str(folder), name, str(share), str(cores)] for share in range(cores)]
    running = [start(arguments) for arguments in shares]  # new processes: a fork of one with threads may never end
    failed = [last for last in (process.communicate()[1] for process in running) if last]
    if any(process.returncode for process in running):
        raise DataError(f"{name}: cannot be generated: {failed[-1].strip().splitlines()[-1] if failed else 'killed'}")
    return cores


def _environment() -> dict[str, str]:
    """With the modules of this process, wherever it found them."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
