"""Lists what a weights file contains, ours or other people's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from orchestrator.assets.convert_weights import digest, sidecar
from orchestrator.errors import BadInput, NotFound
from tasks.backbones import safetensors_header
from tasks.errors import DataError


def contained(file: Path, names: bool = False) -> dict[str, Any]:
    """Label -> text, list or dictionary; `names`: also every tensor.

    Raises NotFound without the file, BadInput if it holds no weights.
    """
    if not file.is_file():
        raise NotFound(f"no file {file}")
    try:
        content = _safetensors(file, names) if file.suffix == ".safetensors" else _checkpoint(file, names)
    except DataError as error:
        raise BadInput(str(error)) from error
    return {"file": str(file), "bytes": f"{file.stat().st_size:,}", "SHA-256": digest(file), **content}


def _safetensors(file: Path, names: bool) -> dict[str, Any]:
    """Reads the header alone, and the sidecar if there is one."""
    shapes = safetensors_header.shapes(file)
    metadata = safetensors_header.read(file)
    lines: dict[str, Any] = {"tensors": f"{len(shapes):,}", "parameters": f"{sum(map(math.prod, shapes.values())):,}"}
    lines |= {"metadata": metadata} if metadata else {}
    if sidecar(file).is_file():
        description = json.loads(sidecar(file).read_text())
        shown = ("source", "source_file", "source_sha256", "entry", "converted", "notes", "settings")
        lines["sidecar file"] = {name: description[name] for name in shown if description.get(name)}
    return lines | ({"names": [f"{name} {list(shape)}" for name, shape in shapes.items()]} if names else {})


def _checkpoint(file: Path, names: bool) -> dict[str, Any]:
    from tasks.backbones import checkpoint_reader
    from tasks.backbones.layouts import translate

    content = checkpoint_reader.read(file)
    tensors, entry = checkpoint_reader.state_dict(content)
    named, settings = translate(tensors), checkpoint_reader.settings(content) if entry else {}
    lines: dict[str, Any] = {
        "entries": ", ".join(content) if entry else "only weights",
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
    return lines | ({"names": [f"{name} {list(t.shape)}" for name, t in tensors.items()]} if names else {})
