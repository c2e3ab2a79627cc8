"""Names and colours of classes: a list of one's own, and the default colours where it has none."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tasks.datasets.class_maps.types import IGNORED, Pixels
from tasks.datasets.files import list_lines, repeated
from tasks.errors import DataError

_COLOUR = re.compile(r"#([0-9a-fA-F]{6})")


def read_names(path: Path, name: str, most: int) -> tuple[tuple[str, ...], Pixels]:
    """The classes of a list and their colours (classes, 3): a name a line, and perhaps after a tab its colour as
    #rrggbb. A table as ADE20K's objectInfo150.txt has its names in the last column, of which the first word before a
    comma counts.

    `name`: the data set, for messages; `most`: classes that can be told apart. Raises DataError.
    """
    try:
        lines = list_lines(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{name}: cannot read the list of classes {path} ({reason}); write the name of a class in each line"
        ) from error
    if lines and lines[0][1].split()[0].lower() == "idx":
        names, colours = [line.split("\t")[-1].split(",")[0].strip() for _, line in lines[1:]], dict[int, str]()
    else:
        names, colours = [line.split("\t")[0].strip() for _, line in lines], {}
        for row, (number, line) in enumerate(lines):
            if "\t" not in line:
                continue
            match = _COLOUR.fullmatch(line.split("\t")[1].strip())
            if not match:
                raise DataError(f"{name}: {path}, line {number}: {line!r} has no colour #rrggbb after its name")
            colours[row] = match[1]
    if twice := repeated(names):
        raise DataError(f"{name}: {path} names the class {twice[0]!r} twice; keep one line of it")
    if not 1 <= len(names) <= most:
        raise DataError(f"{name}: {path} names {len(names)} classes; a map of 8 bits tells 1 to {most} apart")
    palette = default_palette(len(names))
    for row, colour in colours.items():
        palette[row] = list(bytes.fromhex(colour))
    return tuple(names), palette


def default_palette(classes: int) -> Pixels:
    """(classes, 3): the colours that PASCAL VOC's development kit gives numbers, from its 1 on (0 is black there)."""
    numbers = np.arange(1, classes + 1)[:, None]
    colours = np.zeros((classes, 3), dtype=np.int64)
    for bit in range(8):
        colours |= ((numbers >> np.arange(3)) & 1) << (7 - bit)
        numbers = numbers >> 3
    return colours.astype(np.uint8)


def palette_of(colours: Sequence[str]) -> Pixels:
    """(classes, 3) from rrggbb."""
    return np.array([list(bytes.fromhex(colour)) for colour in colours], dtype=np.uint8).reshape(-1, 3)


MOST_CLASSES = IGNORED
