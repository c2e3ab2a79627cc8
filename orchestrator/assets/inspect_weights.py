"""The only place that says what is in a weights file, ours or other people's."""

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
    """Label -> text, list or dictionary. Raises NotFound without the file, BadInput for what is no weights file."""
    if not file.is_file():
        raise NotFound(f"no file {file}")
    try:
        found = _safetensors(file, names) if file.suffix == ".safetensors" else _checkpoint(file, names)
    except DataError as error:
        raise BadInput(str(error)) from error
    return {"file": str(file), "bytes": f"{file.stat().st_size:,}", "SHA-256": digest(file), **found}


def _safetensors(file: Path, names: bool) -> dict[str, Any]:
    """From the header alone: no tensor is read."""
    shapes = safetensors_header.shapes(file)
    said = safetensors_header.read(file)
    found: dict[str, Any] = {"tensors": f"{len(shapes):,}", "parameters": f"{sum(map(math.prod, shapes.values())):,}"}
    found |= {"says of itself": said} if said else {}
    beside = sidecar(file)
    if beside.is_file():
        told = json.loads(beside.read_text())
        wanted = ("source", "source_file", "source_sha256", "entry", "converted", "notes", "settings")
        found["beside it"] = {name: told[name] for name in wanted if told.get(name)}
    return found | ({"names": [f"{name} {list(shape)}" for name, shape in shapes.items()]} if names else {})


def _checkpoint(file: Path, names: bool) -> dict[str, Any]:
    from tasks.backbones import checkpoint_reader
    from tasks.backbones.layouts import translate

    content = checkpoint_reader.read(file)
    tensors, entry = checkpoint_reader.state_dict(content)
    named, settings = translate(tensors), checkpoint_reader.settings(content) if entry else {}
    found: dict[str, Any] = {
        "entries": ", ".join(content) if entry else "weights alone",
        "weights under": entry or "no entry",
        "layout": named.layout,
        "tensors": f"{len(named.tensors):,}",
        "parameters": f"{sum(tensor.numel() for tensor in named.tensors.values()):,}",
        "to do": f"python -m orchestrator weights import {file}",
    }
    if named.windows:
        found["windows"] = ", ".join(str(height) for height, _ in named.windows)
    found |= {"notes": named.notes} if named.notes else {}
    found |= {"settings": settings} if settings else {}
    return found | ({"names": [f"{name} {list(t.shape)}" for name, t in tensors.items()]} if names else {})
