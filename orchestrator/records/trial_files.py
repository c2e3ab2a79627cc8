"""The layout of trials' files in the storage folder, and how the store names them."""

from __future__ import annotations

from pathlib import Path

from orchestrator.paths import inside

TRIALS = "trials"


def trial_folder(storage: str | Path, key: str) -> Path:
    """The folder of a trial's files: storage/trials/KE/KEY, so that no folder holds tens of thousands of others."""
    return inside(Path(storage) / TRIALS, key[:2], key)


def recorded_path(storage: str | Path, file: str | Path) -> str:
    """A file as the store names it: relative to the storage folder if it lies in it, so that the folder can be moved;
    else its whole path."""
    path, root = Path(file), Path(storage)
    return str(path.relative_to(root)) if path.is_absolute() and path.is_relative_to(root) else str(path)


def stored_file(storage: str | Path, recorded: str) -> Path:
    """Where a recorded file lies now. Earlier versions recorded whole paths: of a storage folder that was moved since,
    the file is looked for at the same place in this one."""
    path = Path(recorded)
    if not path.is_absolute():
        return Path(storage) / path
    if TRIALS in path.parts and not path.exists():
        last = len(path.parts) - 1 - path.parts[::-1].index(TRIALS)
        moved = Path(storage).joinpath(*path.parts[last:])
        if moved.exists():
            return moved
    return path
