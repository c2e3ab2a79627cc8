"""Reads the small text files of sequences: boxes, flags of frames, and lists of names; one line for each fault."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.files import first_few, list_lines, plain, read_list, repeated
from tasks.datasets.sequences.types import Floats
from tasks.errors import DataError

LARGEST_BOX = 1e6
"""Pixels: a number beyond it is no position in an image."""


def read_boxes(path: Path, name: str) -> Floats:
    """(n, 4): x, y, width and height as the file has them, a line each; numbers are separated by commas or blanks.

    `name`: the data set, for messages. Raises DataError naming file, line and value.
    """
    text = _text(path, name).strip()
    lines = text.split("\n") if text else []
    if lines:
        with contextlib.suppress(ValueError):
            boxes = np.loadtxt(io.StringIO(text.replace(",", " ")), comments=None, ndmin=2)  # skips empty lines
            if boxes.shape == (len(lines), 4) and (np.abs(boxes) <= LARGEST_BOX).all():  # false for NaN
                return boxes
    raise DataError(f"{name}: {path}{_fault(lines)}")


def _fault(lines: Sequence[str]) -> str:
    """What is wrong with the first line that is no box."""
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split()
        if len(words) != 4:
            return f", line {number}: {line.strip()!r} has {len(words)} numbers; a box has 4: x, y, width, height"
        if not all(map(_is_number, words)):
            return f", line {number}: {line.strip()!r} is no box; write x, y, width, height in pixels"
    return " has no box; write a line with x, y, width, height for each frame"


def _is_number(word: str) -> bool:
    try:
        return abs(float(word)) <= LARGEST_BOX  # false for NaN
    except ValueError:
        return False


def read_numbers(path: Path, name: str, count: int) -> NDArray[np.int64]:
    """(count,): whole numbers, one for each frame, on one line or several. Raises DataError."""
    words = _text(path, name).replace(",", " ").split()
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError as error:
        raise DataError(f"{name}: {path}: {error}; write a number for each frame") from error
    if len(numbers) != count:
        raise DataError(
            f"{name}: {path} has {len(numbers)} numbers, and the sequence {count} boxes; get this file again"
        )
    wrong = [word for word, number in zip(words, numbers.tolist(), strict=True) if not _is_whole(number)]
    if wrong:
        raise DataError(f"{name}: {path}: {wrong[0]!r} is no whole number from 0 on; get this file again")
    return numbers.astype(np.int64)


def _is_whole(number: float) -> bool:
    return math.isfinite(number) and number == int(number) and 0 <= number < 2**31


def read_names(path: Path, name: str) -> list[str]:
    """The names in a list, a line each. Raises DataError, also for a name that is there twice."""
    try:
        names = [plain(line) for _, line in list_lines(path)]
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: cannot read the list {path} ({error}); get this file again") from error
    twice = repeated(names)
    if twice:
        raise DataError(f"{name}: {path} names {len(twice)} sequences twice: {first_few(twice)}; keep one line of each")
    return names


def read_info(path: Path, name: str, key: str) -> str:
    """The value of a `key: value` line. Raises DataError when there is none."""
    for line in _text(path, name).split("\n"):
        word, mark, value = line.partition(":")
        if mark and word.strip() == key:
            return value.strip()
    raise DataError(f"{name}: {path} has no line {key!r}; get this file again")


def _text(path: Path, name: str) -> str:
    try:
        return read_list(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{name}: cannot read {path} ({reason}); get this file again") from error
