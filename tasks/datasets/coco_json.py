"""Reads the JSON files of COCO and of data sets in its form: annotations of persons and objects, and boxes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.datasets.files import open_regular
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
