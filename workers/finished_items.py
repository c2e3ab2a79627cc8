"""Keeps the results of finished evaluation items in the trial's folder, so that an interrupted evaluation measures only
the others."""

from __future__ import annotations

import json
import os
from typing import Any, BinaryIO

from workers.checkpoint import EVALUATED, Folder, storage_refused


def finished_items(folder: Folder, state: str, of: str = "") -> dict[str, Any]:
    """Results, by item, that earlier attempts measured of the model in this state, or of what `of` names in it. Removes
    files of other states."""
    parts: dict[str, Any] = {}
    for path in sorted(folder.path.glob(EVALUATED)):
        lines = [entry for line in path.read_bytes().splitlines() if (entry := _entry(line)) is not None]
        if not any(entry["state"].startswith(state) for entry in lines):
            path.unlink()
        parts.update({entry["item"]: entry["part"] for entry in lines if entry["state"] == state + of})
    return parts


def _entry(line: bytes) -> dict[str, Any] | None:
    """None for the line that a killed process was writing."""
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return entry


class FinishedItems:
    """The file of one rank of this attempt, a JSON object a line: state, item, part."""

    def __init__(self, folder: Folder, state: str, rank: int) -> None:
        self._path = folder.path / EVALUATED.replace("*", f"{folder.token}-{rank}")
        self._state = state
        self._file: BinaryIO | None = None

    def add(self, item: str, part: Any) -> Any:
        """Writes the item to the disk; returns its part as a later attempt would read it.

        Raises TrialError (data) when the storage refuses, ValueError for a part that is no JSON value.
        """
        try:
            line = json.dumps({"state": self._state, "item": item, "part": part}).encode()
        except TypeError as error:
            raise ValueError(
                f"item {item}: {error}; a task with resumes_evaluation must measure JSON values: numbers, strings, "
                "lists and dictionaries of them"
            ) from error
        try:
            if self._file is None:
                self._file = self._path.open("ab")
                self._file.write(b"\n")  # after what a killed process left unfinished
            self._file.write(line + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise storage_refused(self._path, error) from error
        return json.loads(line)["part"]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
