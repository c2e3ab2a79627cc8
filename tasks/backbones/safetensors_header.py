"""Reads and writes the metadata of weights files (safetensors), without torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from tasks.backbones.swin_windows import Windows
from tasks.errors import DataError

KEY = "orchestrator"
"""The one entry that we write: the order of several is not fixed, and the same weights must give the same digest."""

_LARGEST_HEADER = 100_000_000  # safetensors' own limit


def packed(metadata: dict[str, Any]) -> dict[str, str]:
    """Metadata in the form that safetensors takes. `metadata`: JSON values, with `windows` for a SwinV2."""
    return {KEY: json.dumps(metadata, sort_keys=True)}


def read(path: Path) -> dict[str, Any]:
    """The metadata that we wrote; empty for a file from elsewhere. Raises DataError if it is no safetensors file."""
    metadata = _header(path).get("__metadata__", {}).get(KEY)
    return dict(json.loads(metadata)) if metadata else {}


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by name, from the header alone. Raises DataError if it is no safetensors file."""
    return {name: tuple(entry["shape"]) for name, entry in _header(path).items() if name != "__metadata__"}


def _header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = dict(json.loads(file.read(length) if 2 <= length <= _LARGEST_HEADER else b""))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
    except (struct.error, ValueError, TypeError, LookupError):
        raise DataError(f"{path} is not a safetensors file, or is cut short; make or fetch it again") from None
    size = path.stat().st_size
    if size != expected:
        raise DataError(f"{path} has {size} bytes and should have {expected}: cut short; make or fetch it again")
    return header


def windows(metadata: dict[str, Any]) -> Windows | None:
    """The windows that SwinV2's position bias refers to, if the metadata has them."""
    stages = metadata.get("windows")
    return tuple((int(height), int(width)) for height, width in stages) if stages else None
