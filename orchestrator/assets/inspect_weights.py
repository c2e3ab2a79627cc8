"""Lists what a weights file contains, ours or other people's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from orchestrator.assets.child_process import in_child, require
from orchestrator.assets.convert_weights import digest, sidecar, translated
from tasks.backbones import safetensors_header
from tasks.backbones.checkpoint_format import format_of, reason
from tasks.backbones.checkpoint_reader import shown
from tasks.errors import DataError


def contained(file: Path, names: bool = False) -> dict[str, Any]:
    """Label -> text, list or dictionary; `names`: also every tensor.

    Raises NotFound without the file, BadInput if it holds no weights.
    """
    require(file)

    def read() -> dict[str, Any]:
        form = format_of(file)
        content = _safetensors(file, names) if form == "safetensors" else _checkpoint(file, names)
        return {"file": str(file), "bytes": f"{file.stat().st_size:,}", "SHA-256": digest(file), **content}

    content: dict[str, Any] = in_child(read, file, torch=_is_pickle(file))
    return content


def _is_pickle(file: Path) -> bool:
    """True if torch has to read it, which takes seconds to import."""
    try:
        return format_of(file) != "safetensors"
    except DataError:
        return False


def _safetensors(file: Path, names: bool) -> dict[str, Any]:
    """Reads the header alone, and the sidecar if there is one."""
    shapes = safetensors_header.shapes(file)
    metadata = safetensors_header.read(file)
    lines: dict[str, Any] = {"tensors": f"{len(shapes):,}", "parameters": f"{sum(map(math.prod, shapes.values())):,}"}
    lines |= {"metadata": metadata} if metadata else {}
    if sidecar(file).is_file():
        description = _description(sidecar(file))
        wanted = ("source", "source_file", "source_sha256", "entry", "converted", "notes", "settings")
        lines["sidecar file"] = {name: description[name] for name in wanted if description.get(name)}
    return lines | ({"names": [f"{shown(name)} {list(shape)}" for name, shape in shapes.items()]} if names else {})


def _description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}, beside the weights, cannot be read as JSON ({reason(error)}): move it away"
        ) from error
    if not isinstance(description, dict):
        raise DataError(f"{path}, beside the weights, is no description of weights (a JSON mapping): move it away")
    return description


def _checkpoint(file: Path, names: bool) -> dict[str, Any]:
    from tasks.backbones import checkpoint_reader

    content, tensors, entry = checkpoint_reader.read_weights(file)
    named, settings = translated(tensors, file), checkpoint_reader.settings(content) if entry else {}
    lines: dict[str, Any] = {
        "entries": ", ".join(map(shown, content)) if entry else "only weights",
        "weights under": entry or "no entry",
        "layout": named.layout,
        "tensors": f"{len(named.tensors):,}",
        "parameters": f"{sum(tensor.numel() for tensor in named.tensors.values()):,}",
        "next": f"python -m orchestrator weights import {file}",
    }
    if named.windows:
        lines["windows"] = ", ".join(str(height) for height, _ in named.windows)
    lines |= {"notes": named.notes} if named.notes else {}
    lines |= {"settings": settings} if settings else {}
    return lines | ({"names": [f"{shown(name)} {list(t.shape)}" for name, t in tensors.items()]} if names else {})
