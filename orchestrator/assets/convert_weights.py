"""Converts other people's checkpoints into the files that training loads: safetensors with a JSON sidecar."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import BackendUnreachable, BadInput, Conflict
from tasks.backbones import checkpoint_reader, safetensors_header
from tasks.backbones.layouts import translate
from tasks.backbones.swin_windows import Windows
from tasks.errors import DataError

if TYPE_CHECKING:
    import torch

    from tasks.backbones.spec import BackboneSpec


@dataclass(frozen=True)
class Converted:
    """A file that training can load."""

    output: Path
    sha256: str
    layout: str
    windows: Windows | None
    notes: list[str]


def digest(file: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sidecar(output: Path) -> Path:
    """The JSON file beside a weights file that describes it."""
    return output.with_suffix(".json")


def convert(
    file: Path, output: Path, entry: str | None = None, windows: Windows | None = None, source: str = "",
    model: BackboneSpec | None = None,
) -> Converted:  # fmt: skip
    """Reads `file` without running code in it and writes `output` and its sidecar, each completely or not at all.

    The same file gives the same digest. `windows`: SwinV2's windows of pre-training, to which its position bias refers,
    if the file does not record them. `model`: also checks that every weight fits it. Raises BadInput if file, windows,
    model or the name of `output` are wrong, Conflict if `output` holds other weights, BackendUnreachable if it cannot
    be written.
    """
    if output.suffix != ".safetensors":
        raise BadInput(f"--output {output}: training reads only .safetensors, so the name must end in that")
    try:
        content = checkpoint_reader.read(file)
        tensors, entry = checkpoint_reader.state_dict(content, entry)
        metadata = safetensors_header.read(file) if file.suffix == ".safetensors" else {}
    except DataError as error:
        raise BadInput(str(error)) from error
    named, settings = translate(tensors), checkpoint_reader.settings(content) if entry else {}
    _check_finite(named.tensors, file)
    stages = _stages_with_windows(named.tensors)
    # the official configuration has a SwinV2 part whatever the model
    recorded = named.windows or safetensors_header.windows(metadata) or (_configured(settings) if stages else None)
    known = _windows(recorded, windows, stages, file)
    notes = [*_other_entries(content, entry), *named.notes, *_fit(model, named.tensors)]
    notes += _doubts(named.layout, named.tensors, known, model)
    header = {"layout": named.layout, "source_sha256": digest(file), **({"windows": known} if known else {})}
    sha256 = _write(named.tensors, output, header)
    description = {
        "file": output.name,
        "sha256": sha256,
        "source": source,
        "source_file": file.name,
        "source_bytes": file.stat().st_size,
        "entry": entry,
        **header,
        "parameters": sum(tensor.numel() for tensor in named.tensors.values()),
        "renamed": named.renamed,
        "dropped": list(named.dropped),
        "settings": settings,
        "notes": notes,
        "converted": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "safetensors", "timm")},
    }
    _describe(sidecar(output), description)
    return Converted(output, sha256, named.layout, known, notes)


def _other_entries(content: Mapping[str, Any], entry: str) -> list[str]:
    """A line if the file holds other weights besides those that were taken."""
    others = [name for name in checkpoint_reader.entries(content) if name != entry]
    return [f"weights of entry {entry}; there are others, for --entry: {', '.join(others)}"] if entry and others else []


def _check_finite(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Raises BadInput for nan and inf, which load without an error; trials that start from them diverge at once."""
    wrong = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if wrong:
        names = f"{', '.join(wrong[:8])}{', ..' * (len(wrong) > 8)}"
        raise BadInput(f"{file}: {len(wrong)} weights are not finite (nan or inf): {names}; take an earlier checkpoint")


def _stages_with_windows(tensors: Mapping[str, torch.Tensor]) -> int:
    """The number of stages of a SwinV2; 0 for any other model, which has no windows of pre-training."""
    return len({name.split(".blocks.")[0] for name in tensors if ".attn.cpb_mlp." in name})


def _windows(recorded: Windows | None, given: Windows | None, stages: int, file: Path) -> Windows | None:
    if given and not stages:
        raise BadInput(f"--windows {_sides(given)}: only SwinV2 has them, and {file} is none: leave --windows out")
    if given and len(given) != stages:
        raise BadInput(f"--windows {_sides(given)}: {file} has {stages} stages: pass {stages} windows")
    if recorded and given and recorded != given:
        raise BadInput(f"{file} was made with windows {_sides(recorded)}, not {_sides(given)}: leave --windows out")
    return recorded or given


def _sides(windows: Windows) -> str:
    return ",".join(str(height) for height, _ in windows)


def _configured(settings: Mapping[str, Any]) -> Windows | None:
    """Windows from the official SwinV2 configuration (config.py): those of an earlier pre-training, or the model's own,
    which are never larger than the map."""
    config = settings.get("config")
    try:
        swin, image = config["MODEL"]["SWINV2"], config["DATA"]["IMG_SIZE"]  # type: ignore[index]
        earlier, window, patch = swin.get("PRETRAINED_WINDOW_SIZES"), swin["WINDOW_SIZE"], swin.get("PATCH_SIZE", 4)
        sides = [min(window, image // patch // 2**stage) for stage in range(len(swin["DEPTHS"]))]
        known = [int(side) or own for side, own in zip(earlier or [0] * len(sides), sides, strict=True)]
        return tuple((side, side) for side in known)
    except (KeyError, TypeError, ValueError, AttributeError):  # another program's settings
        return None


def _fit(model: BackboneSpec | None, tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """The notes of loading the weights into this model. Raises BadInput with the names that do not fit."""
    if model is None:
        return []
    import torch

    from tasks.backbones.loading import fitted
    from tasks.backbones.model import build

    try:
        with torch.device("meta"):
            network = build(model, 0)
        return fitted(network, tensors)[1]
    except ValueError as error:
        raise BadInput(f"{model.model}: {error}") from error


def _doubts(
    layout: str, tensors: Mapping[str, torch.Tensor], windows: Windows | None, model: BackboneSpec | None
) -> list[str]:
    """Reasons to check the file before using it."""
    lines = []
    if layout == "timm" and model is None:
        lines.append("no other layout was recognised, so the names must be timm's; check with --model NAME")
    if windows is None and any(".attn.cpb_mlp." in name for name in tensors):
        lines.append(
            "SwinV2 whose windows of pre-training are not recorded: pass --windows 12,12,12,6; without it a wrong "
            "window size goes undetected"
        )
    return lines


def _write(tensors: Mapping[str, torch.Tensor], output: Path, header: dict[str, Any]) -> str:
    """Writes the file unless it is there; returns its SHA-256."""
    from safetensors.torch import save

    # clones, because safetensors refuses tensors that share memory
    content = save(
        {name: tensor.contiguous().clone() for name, tensor in tensors.items()}, safetensors_header.packed(header)
    )
    sha256 = hashlib.sha256(content).hexdigest()
    if output.exists() and digest(output) != sha256:
        raise Conflict(f"{output} holds other weights, which specs may name; choose another file: --output PATH")
    if not output.exists():
        _replace(output, content)
    return sha256


def _describe(path: Path, description: dict[str, Any]) -> None:
    """Writes the sidecar unless only its date would change; keeps the source that an earlier one names."""
    try:
        earlier = dict(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        earlier = {}
    description["source"] = description["source"] or earlier.get("source", "")
    dated = ("converted", "versions", "source_file")
    now = json.loads(json.dumps(description))
    if any(earlier.get(name) != value for name, value in now.items() if name not in dated):
        _replace(path, (json.dumps(description, indent=1) + "\n").encode())


def _replace(path: Path, content: bytes) -> None:
    """Writes the whole file under its name, or nothing."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise BackendUnreachable(
            f"cannot write {path}: {error.strerror}; choose another file: --output PATH"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def spec_lines(done: Converted, name: str, data_root: Path, model: BackboneSpec | None) -> str:
    """The lines of a spec that name this file, as YAML."""
    below_root = done.output.is_relative_to(data_root)
    path = done.output.relative_to(data_root) if below_root else done.output
    lines = ["backbone:"]
    if model is not None:
        lines.append(f"  model: {model.model}")
    arguments = dict(model.args) if model else {}
    if done.windows:
        arguments["pretrained_window_sizes"] = [height for height, _ in done.windows]
    if arguments:
        lines.append(f"  args: {json.dumps(arguments)}")
    quoted = json.dumps(str(path))
    lines.append(f"  init: {{kind: file, name: {json.dumps(name)}, path: {quoted}, sha256: {done.sha256}}}")
    return "\n".join(lines)


def image_size(model: str) -> int:
    """Side in pixels of the input for which timm made this model."""
    import timm

    import tasks.backbones.replknet  # noqa: F401 (makes it known to timm)

    return int(timm.get_pretrained_cfg_value(model, "input_size")[-1])
