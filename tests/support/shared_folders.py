"""Folders that all tests of a process share."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path


def shared_folder(name: str) -> Path:
    """A new temporary folder, which goes when the process ends. `name`: the beginning of its name."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
