"""Reads and writes the metadata of weights files (safetensors), without torch."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from tasks.backbones.checkpoint_format import format_of, reason
from tasks.backbones.swin_windows import Windows
from tasks.errors import DataError

KEY = "orchestrator"
"""The one entry that we write: the order of several is not fixed, and the same weights must give the same digest."""

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip
"""safetensors' name of each kind of number that weights may have -> torch's."""
_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


def packed(metadata: dict[str, Any]) -> dict[str, str]:
    """Metadata in the form that safetensors takes. `metadata`: JSON values, with `windows` for a SwinV2."""
    return {KEY: json.dumps(metadata, sort_keys=True)}


def read(path: Path) -> dict[str, Any]:
    """The metadata that we wrote; empty for a file from elsewhere. Raises DataError if it is no safetensors file."""
    written = _header(path).get("__metadata__", {}).get(KEY)
    if written is None:
        return {}
    try:
        metadata = json.loads(written)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise DataError(f"{path}: its metadata {KEY!r} are no JSON mapping; make or fetch the file again")
    return metadata


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by name, from the header alone. Raises DataError if it is no safetensors file."""
    return {name: tuple(entry["shape"]) for name, entry in _header(path).items() if name != "__metadata__"}


def _header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file. Raises DataError, with what is wrong, for any other file, and where the header
    says anything that the file does not hold: each byte after it belongs to one tensor."""
    if format_of(path) != "safetensors":
        raise DataError(f"{path} is not a safetensors file, whatever its name; convert it once: weights import {path}")
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if 8 + length > size:
            raise DataError(f"{path} has {size} bytes, and its header alone {8 + length}: cut short; fetch it again")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a safetensors file, or is damaged: {reason(error)}") from error
    if not isinstance(header, dict):
        raise DataError(f"{path} is not a safetensors file: its header is no mapping")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DataError(f"{path} is damaged: its __metadata__ are no mapping of text to text; fetch it again")
    ends = [_check_entry(path, name, entry) for name, entry in header.items() if name != "__metadata__"]
    _check_spans(path, ends, size - 8 - length)
    return header


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("it has one name twice, and nothing says which is meant")
    return entries


def _check_entry(path: Path, name: str, entry: Any) -> tuple[int, int, str]:
    """Begin and end of a tensor's bytes, and its name. Raises DataError unless they are those of its shape."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise DataError(f"{path} is damaged: tensor {name!r} lacks its dtype, shape or place") from None
    numbers = [*shape, begin, end] if isinstance(shape, list) else [None]
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers) or not isinstance(dtype, str):
        raise DataError(f"{path} is damaged: tensor {name!r} has a dtype, shape or place that cannot be")
    if dtype not in DTYPES:
        raise DataError(f"{path}: tensor {name!r} has numbers of kind {dtype[:20]!r}, which no backbone here takes")
    expected = math.prod(shape) * _BYTES.get(dtype, 1)
    if end - begin != expected:
        raise DataError(
            f"{path} is damaged: tensor {name!r} of shape {shape} needs {expected} bytes, not {end - begin}"
        )
    return begin, end, name


def _check_spans(path: Path, spans: list[tuple[int, int, str]], size: int) -> None:
    """Raises DataError unless the tensors lie one after another and fill the file."""
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            raise DataError(f"{path} is damaged: tensor {name!r} begins at byte {begin} of the data, expected {at}")
        at = end
    if at != size:
        raise DataError(f"{path} has {size} bytes of weights and should have {at}: cut short; make or fetch it again")


def windows(metadata: dict[str, Any]) -> Windows | None:
    """The windows that SwinV2's position bias refers to, if the metadata has them. Raises DataError for others."""
    stages = metadata.get("windows")
    if not stages:
        return None
    known: list[tuple[int, int]] = []
    for pair in stages if isinstance(stages, list | tuple) else [stages]:
        sides = [side for side in pair if type(side) is int and 0 < side < 2**31] if isinstance(pair, list) else []
        if len(sides) != 2 or len(pair) != 2:
            raise DataError("its metadata name windows that are none: expected height and width of each stage")
        known.append((sides[0], sides[1]))
    return tuple(known)
