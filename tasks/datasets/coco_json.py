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
