"""Keeps the results of finished evaluation items, and pieces of others, in the trial's folder, so that an interrupted
evaluation measures only what is missing."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from workers.checkpoint import EVALUATED, Folder, storage_refused


@dataclass(frozen=True)
class Kept:
    """What earlier attempts measured."""

    parts: dict[str, Any] = field(default_factory=dict)
    """Results, by item."""
    pieces: dict[str, list[Any]] = field(default_factory=dict)
    """Values of the pieces of unfinished items, by item, in the order in which they were written."""


def finished_items(folder: Folder, state: str, of: str = "") -> Kept:
    """What earlier attempts measured of the model in this state, or of what `of` names in it. Removes files of other
    states."""
    kept = Kept()
    for path in sorted(folder.path.glob(EVALUATED), key=_attempt_and_rank):
        lines = [entry for line in path.read_bytes().splitlines() if (entry := _entry(line)) is not None]
        if not any(entry["state"].startswith(state) for entry in lines):
            path.unlink()
        for entry in lines:
            if entry["state"] == state + of and "part" in entry:
                kept.parts[entry["item"]] = entry["part"]
            elif entry["state"] == state + of:
                kept.pieces.setdefault(entry["item"], []).append(entry["piece"])
    for item in kept.pieces.keys() & kept.parts.keys():
        del kept.pieces[item]
    return kept


def _attempt_and_rank(path: Path) -> list[int]:
    return [int(number) for number in path.stem.split("-")[1:]]


def _entry(line: bytes) -> dict[str, Any] | None:
    """None for the line that a killed process was writing."""
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return entry


class FinishedItems:
    """The file of one rank of this attempt, a JSON object a line: state, item, and part or piece."""

    def __init__(self, folder: Folder, state: str, rank: int) -> None:
        self._path = folder.path / EVALUATED.replace("*", f"{folder.token}-{rank}")
        self._state = state
        self._file: BinaryIO | None = None

    def add(self, item: str, part: Any) -> Any:
        """Writes the item to the disk; returns its part as a later attempt would read it.

        Raises TrialError (data) when the storage refuses, ValueError for a part that is no JSON value.
        """
        return json.loads(self._written(item, {"part": part}, durable=True))["part"]

    def add_piece(self, item: str, piece: Any) -> None:
        """Writes a piece of an unfinished item; what a power cut takes of it is measured again. Raises as `add`."""
        self._written(item, {"piece": piece}, durable=False)

    def _written(self, item: str, what: dict[str, Any], durable: bool) -> bytes:
        try:
            line = json.dumps({"state": self._state, "item": item, **what}).encode()
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
            if durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise storage_refused(self._path, error) from error
        return line

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
