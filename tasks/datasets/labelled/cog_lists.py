"""Turns CoG's published pickles into lists that anyone can read; no code in them is ever run."""

from __future__ import annotations

import itertools
import json
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.backbones.checkpoint_format import reason
from tasks.datasets.info import Conversion
from tasks.errors import DataError

COG_FEWEST, COG_MOST, COG_TEST = 732, 1_300, 50
"""Training images of a class, fewest and most, and test images of each (CoG's public code checks the same)."""
LEVELS = 5
CONCEPTS = 1_000
"""Number of concepts in each level."""
MOST_VALUES = 30_000_000
"""Values in a file of lists: one for each image of ImageNet-21k makes 14 million."""
DEEPEST = 20
"""Levels of containers in containers."""
_WNID = re.compile(r"n\d{8}")
_FILE = re.compile(r"n\d{8}/[A-Za-z0-9_-]+\.[A-Za-z]+")


class _Refused(pickle.UnpicklingError):
    """The pickle holds something other than containers of text."""


class _Dtype:
    """Stands for numpy.dtype."""

    def __init__(self, code: str = "", *arguments: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])


class _Array:
    """Stands for numpy.ndarray: one dimension of text, kept as a list."""

    def __init__(self, *arguments: Any) -> None:
        self.values: list[Any] = []

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, _, data = state
        if not isinstance(dtype, _Dtype) or len(shape) != 1:
            raise _Refused("an array that is no list of names")
        kind, size = dtype.code[:1], int(dtype.code[1:] or 0)
        if isinstance(data, list):
            self.values = data
        elif kind == "U" and isinstance(data, bytes):
            text = data.decode("utf-32-be" if dtype.order == ">" else "utf-32-le")
            self.values = [text[i : i + size].rstrip("\0") for i in range(0, len(text), size)]
        elif kind == "S" and isinstance(data, bytes):
            self.values = [data[i : i + size].rstrip(b"\0").decode() for i in range(0, len(data), size)]
        else:
            raise _Refused(f"an array of {dtype.code}, not of names")


def _scalar(dtype: Any, data: Any) -> str:
    """Stands for a numpy scalar: text only."""
    if not isinstance(dtype, _Dtype) or dtype.code[:1] != "U" or not isinstance(data, bytes):
        raise _Refused("a numpy scalar that is no text")
    return data.decode("utf-32-be" if dtype.order == ">" else "utf-32-le").rstrip("\0")


def _empty_dict(*arguments: Any) -> dict[Any, Any]:
    return {}


def _bytes(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "list"): list,
    ("collections", "OrderedDict"): _empty_dict,
    ("collections", "defaultdict"): _empty_dict,
    ("_codecs", "encode"): _bytes,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _Reader(pickle.Unpickler):
    """Reads containers, text, numbers and arrays of text; refuses by name whatever else a pickle contains."""

    def find_class(self, module: str, name: str) -> Any:
        known = _STAND_INS.get(("builtins" if module == "__builtin__" else module, name))
        if known is None:
            asked = f"{module}.{name}"
            shown = asked if asked.isprintable() and len(asked) <= 200 else repr(asked[:200])
            raise _Refused(f"it asks for {shown}, which would have to be run")
        return known


def read(path: Path) -> Any:
    """The content of a pickle of plain containers. Raises DataError for anything else, without running any of it."""
    if not path.is_file():
        raise DataError(f"{path} is no file" if path.exists() else f"no file {path}")
    try:
        with path.open("rb") as file:
            return _plain(_Reader(file).load(), itertools.count(), 0)
    except _Refused as error:
        raise DataError(f"{path} was not read, and nothing of it was run: {error}") from error
    except (
        pickle.UnpicklingError,
        OSError,
        EOFError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        ArithmeticError,
        MemoryError,
        RecursionError,
    ) as error:
        raise DataError(f"{path} is no pickle, or is cut short: {reason(error)}") from error


def _plain(value: Any, values: Iterator[int], depth: int) -> Any:
    """Replaces arrays, tuples and sets by lists. Raises _Refused for more values or levels than lists of files have."""
    if next(values) >= MOST_VALUES or depth > DEEPEST:
        raise _Refused(f"it holds more than {MOST_VALUES:,} values, or {DEEPEST} levels, or one that contains itself")
    if isinstance(value, _Array):
        value = value.values
    if isinstance(value, Mapping):
        return {key: _plain(item, values, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, values, depth + 1) for item in value]
    return value


def convert(files: Sequence[Path], root: Path, any_count: bool = False) -> list[Path]:
    """cog_levels_mapping_file.pkl and cog_concepts_split_file.pkl, in any order -> root/cog/l1.json to l5.json:
    {WordNet id: {"train": [file, ...], "test": [...]}}, files below imagenet21k/, sorted.

    Raises DataError when a file is not what it should be, or the counts are not CoG's (`any_count`: whatever they
    are); then nothing is written.
    """
    contents = {path: read(path) for path in files}
    levels = next((_levels(content) for content in contents.values() if _levels(content)), None)
    split = next((content for content in contents.values() if _is_split(content)), None)
    if levels is None or split is None:
        lacks = "lists of concepts of five levels" if levels is None else "lists of train and test files of concepts"
        raise DataError(
            f"none of {', '.join(map(str, files))} holds {lacks}; needed are cog_levels_mapping_file.pkl and "
            "cog_concepts_split_file.pkl"
        )
    concepts = [name for level in levels for name in level]
    if len(set(concepts)) != len(concepts):
        raise DataError("a concept is in two levels: not CoG's file")
    unlisted = [wnid for wnid in concepts if wnid not in split]
    if unlisted:
        raise DataError(
            f"concept {unlisted[0]} is in a level but has no list of files, like {len(unlisted) - 1} others"
        )
    written = [{wnid: _files(wnid, split, any_count) for wnid in sorted(level)} for level in levels]
    if not any_count and any(len(level) != CONCEPTS for level in levels):
        raise DataError(
            f"levels of {', '.join(str(len(level)) for level in levels)} concepts, expected {CONCEPTS} each"
        )
    (root / "cog").mkdir(parents=True, exist_ok=True)
    paths = []
    for number, content in enumerate(written, 1):
        path = root / "cog" / f"l{number}.json"
        path.write_text(json.dumps(content, separators=(",", ":")) + "\n")
        paths.append(path)
    return paths


def _levels(content: Any) -> list[list[str]] | None:
    """Five lists of WordNet ids: as a list, or by level as the key."""
    lists = [content[key] for key in sorted(content, key=str)] if isinstance(content, dict) else content
    if not isinstance(lists, list) or len(lists) != LEVELS:
        return None
    named = all(
        isinstance(level, list) and level and all(isinstance(name, str) and _WNID.fullmatch(name) for name in level)
        for level in lists
    )
    return lists if named else None


def _is_split(content: Any) -> bool:
    parts = content.values() if isinstance(content, dict) else []
    return bool(parts) and all(isinstance(part, dict) and {"train", "test"} <= set(part) for part in parts)


def _files(wnid: str, split: dict[str, Any], any_count: bool) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    for part in ("train", "test"):
        if not isinstance(split[wnid][part], list):
            raise DataError(f"{wnid}: its {part} is a {type(split[wnid][part]).__name__}, not a list of files")
        names = [str(name).lstrip("/\\") for name in split[wnid][part]]
        names = sorted(name if "/" in name else f"{wnid}/{name}" for name in names)
        wrong = [name for name in names if not _FILE.fullmatch(name)]
        if wrong:
            raise DataError(f"{wnid}: {wrong[0]!r} is no image below the folder of a concept")
        parts[part] = names
    if set(parts["train"]) & set(parts["test"]) or any(len(set(names)) != len(names) for names in parts.values()):
        raise DataError(f"{wnid}: a file is named twice")
    train, test = len(parts["train"]), len(parts["test"])
    if not any_count and not (COG_FEWEST <= train <= COG_MOST and test == COG_TEST):
        raise DataError(
            f"{wnid}: {train} images to train on and {test} to test on, expected {COG_FEWEST} to {COG_MOST} and "
            f"{COG_TEST}"
        )
    return parts


CONVERSION = Conversion(
    "cog",
    "CoG's two pickles, in any order, into cog/l1.json to cog/l5.json below the data root. No code in them is run.",
    convert,
)
