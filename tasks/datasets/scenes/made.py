"""Keeps generated sets below the data root: each is written once, whole or not at all, by whoever needs it first."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from tasks.datasets.photographs import PHOTOGRAPHS
from tasks.errors import DataError

FOLDER = "made"
"""Below the data root."""
VERSIONS = {
    "scene-crops": 1, "scene-people": 1, "scene-rooms": 1, "scene-tracks": 3, "scene-tracks-small": 3,
    "scene-objects": 1, "scene-objects-small": 1, "scene-maps": 1, "scene-maps-small": 1,
}  # fmt: skip
"""Raise a set's when its generator changes: the digests of its data, and so the keys of trials, change with it."""


def recipe(name: str) -> str:
    """SHA-256 (hex) of what a set is generated from: its version and the table of photographs. Pixels are no part of
    it: JPEG is decoded a little differently from one release of its library to the next."""
    table = [(photo.package, photo.file, photo.part) for photo in PHOTOGRAPHS]
    return hashlib.sha256(json.dumps([name, VERSIONS[name], table]).encode()).hexdigest()


def place(name: str, root: Path) -> Path:
    """Where the set lies or will lie. `root`: the data root."""
    return root / FOLDER / f"{name}-v{VERSIONS[name]}"


def made(name: str, root: Path) -> Path:
    """The folder of a generated set, which is written first if it is not there (a minute or two on one core).

    Processes that ask for the same set at once wait for one of them. Raises DataError when the data root cannot be
    written or a photograph is missing.
    """
    folder = place(name, root)
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f".{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _write(_writers()[name], folder)
    except OSError as error:
        raise DataError(
            f"{name} is generated on first use, and {folder} cannot be written ({error.strerror or error}); choose "
            "another data root with --data-root or DATA_ROOT"
        ) from error
    return folder


def _write(write: Callable[[Path], None], folder: Path) -> None:
    """Called while the set is locked: what lies beside it is of processes that were killed."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    part.mkdir()
    try:
        write(part)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _writers() -> Mapping[str, Callable[[Path], None]]:
    from tasks.datasets.scenes import crops, maps, objects, people, rooms, tracks

    return {
        crops.NAME: crops.write, people.NAME: people.write, rooms.NAME: rooms.write,
        **{name: partial(scenes.write, name=name) for scenes in (tracks, objects, maps) for name in scenes.SETS},
    }  # fmt: skip
