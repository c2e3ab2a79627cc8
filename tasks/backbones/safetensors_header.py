"""The only place that knows what a weights file (safetensors) says of itself, and reads it without torch."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from tasks.backbones.swin_windows import Windows
from tasks.errors import DataError

KEY = "orchestrator"
"""The one entry we write: safetensors keeps several in no fixed order, and the same weights shall have one digest."""

_LARGEST_HEADER = 100_000_000  # safetensors' own limit


def packed(said: dict[str, Any]) -> dict[str, str]:
    """What to hand to safetensors as metadata. `said`: JSON values, among them `windows` where a model has some."""
    return {KEY: json.dumps(said, sort_keys=True)}


def read(path: Path) -> dict[str, Any]:
    """What the file says of itself; empty for a file that somebody else wrote. Raises DataError for no safetensors."""
    said = _header(path).get("__metadata__", {}).get(KEY)
    return dict(json.loads(said)) if said else {}


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Of every tensor, by name; none of them is read. Raises DataError for no safetensors."""
    return {name: tuple(entry["shape"]) for name, entry in _header(path).items() if name != "__metadata__"}


def _header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = dict(json.loads(file.read(length) if 2 <= length <= _LARGEST_HEADER else b""))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
    except (struct.error, ValueError, TypeError, LookupError):
        raise DataError(f"{path} is no safetensors file, or is cut short; make or fetch it again") from None
    size = path.stat().st_size
    if size != expected:
        raise DataError(f"{path} has {size} bytes and should have {expected}: cut short; make or fetch it again")
    return header


def windows(said: dict[str, Any]) -> Windows | None:
    """The windows that SwinV2's position bias refers to, where the file says them."""
    stages = said.get("windows")
    return tuple((int(height), int(width)) for height, width in stages) if stages else None
