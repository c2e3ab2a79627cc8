"""Reads the JSON files of COCO and of data sets in its form: annotations of persons and objects, and boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.datasets.files import first_few, open_regular, plain, repeated
from tasks.datasets.images.decode import MOST_PIXELS
from tasks.errors import DataError

LARGEST = 2**32
"""Bytes of an annotation file; COCO's largest has 450 MB."""
LARGEST_ID = 10**18
"""Numbers from here on are none in COCO's form: they would not fit into 64 bits."""


def read_json(path: Path, name: str) -> Any:
    """The content of a JSON file. Raises DataError."""
    try:
        with open_regular(path) as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError(f"larger than {LARGEST / 2**30:g} GiB")
        return json.loads(text)
    except OSError as error:
        raise DataError(f"{name}: {path}: {error.strerror or error}; get this file again") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: {path} is no JSON file ({error}); get this file again") from error


def listed(content: Any, key: str) -> list[Any]:
    """The list of this key. Raises ValueError when there is none."""
    if not isinstance(content, Mapping) or not isinstance(content.get(key), list):
        raise ValueError(f"no list {key!r}, so these are no annotations in COCO's form")
    values: list[Any] = content[key]
    return values


def entries_of(content: Any, key: str) -> list[Mapping[str, Any]]:
    """The list of this key, whose entries have an id each. Raises ValueError."""
    entries = listed(content, key)
    for place, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping):
            raise ValueError(f"entry {place} of {key!r} is no object with fields")
        if "id" not in entry:
            raise ValueError(f"entry {place} of {key!r} has no id; give each its own number")
    return entries


def whole(entry: Mapping[str, Any], key: str, of: str) -> int:
    """The whole number of this key, also where it is written as text. `of`: the entry, for messages. Raises
    ValueError."""
    value = entry.get(key)
    if type(value) is int and abs(value) < LARGEST_ID:
        return value
    if value is None:
        raise ValueError(f"{of} has no {key}; write a whole number")
    given = value.strip() if isinstance(value, str) else value
    try:
        number = int(given)
    except (TypeError, ValueError, OverflowError):
        number = LARGEST_ID
    if isinstance(given, bool) or abs(number) >= LARGEST_ID or (isinstance(given, float) and given != number):
        raise ValueError(f"{of}: {key} {value!r} is no whole number of at most 18 digits; write one")
    return number


def image_entry(entry: Mapping[str, Any]) -> tuple[int, str, tuple[int, int]]:
    """Id, file, and height and width in pixels of an entry of 'images', which has an id. Raises ValueError."""
    of = f"image {entry['id']}"
    if not isinstance(entry.get("file_name"), str):
        raise ValueError(f"{of} has no file_name; write the file that shows it")
    number, height, width = (whole(entry, key, of) for key in ("id", "height", "width"))
    if min(height, width) < 1:
        raise ValueError(f"{of} of {height} x {width} pixels")
    if height * width > MOST_PIXELS:
        raise ValueError(f"{of} of {height} x {width} pixels, more than {MOST_PIXELS:,}; make it smaller")
    return number, plain(entry["file_name"]), (height, width)


def positions(images: Sequence[tuple[int, str, tuple[int, int]]]) -> dict[int, int]:
    """The place of each image by its id. Raises ValueError where two have one id or one file."""
    found = {number: place for place, (number, *_) in enumerate(images)}
    if len(found) < len(images):
        raise ValueError(f"two images have the id {repeated(number for number, *_ in images)[0]}; give each its own")
    if files := repeated(file for _, file, _ in images):
        raise ValueError(f"{len(files)} files are of two images each: {first_few(files)}; name each once")
    return found


def is_crowd(entry: Mapping[str, Any], of: str) -> bool:
    """`iscrowd` of an annotation; False where it is not stated. Raises ValueError."""
    given = entry.get("iscrowd")
    if given in (None, 0, "0"):
        return False
    if given not in (1, "1"):
        raise ValueError(f"{of}: iscrowd {given!r} is neither 0 nor 1")
    return True
