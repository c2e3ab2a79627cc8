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

from orchestrator.assets.child_process import in_child, require
from orchestrator.errors import BackendUnreachable, BadInput, Conflict
from tasks.backbones import checkpoint_reader, safetensors_header
from tasks.backbones.checkpoint_format import format_of
from tasks.backbones.layouts import Named, translate
from tasks.backbones.swin_windows import Windows
from tasks.backbones.timm_names import unknown_parts
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
    if the file does not record them. `model`: also checks that every weight fits it. Raises NotFound without the file,
    BadInput if file, windows, model or the name of `output` are wrong, Conflict if `output` holds other weights,
    BackendUnreachable if it cannot be written.
    """
    if output.suffix != ".safetensors":
        raise BadInput(f"--output {output}: training reads only .safetensors, so the name must end in that")
    require(file)
    _earlier_description(sidecar(output))
    tag = str(os.getpid())
    try:
        done = in_child(lambda: _converted(file, output, entry, windows, source, model, tag), file, torch=True)
    finally:
        for path in (output, sidecar(output)):  # of a child that was ended while it wrote
            with contextlib.suppress(OSError):
                _temporary(path, tag).unlink(missing_ok=True)
    known = tuple((height, width) for height, width in done["windows"]) if done["windows"] else None
    return Converted(output, done["sha256"], done["layout"], known, done["notes"])


def _converted(
    file: Path, output: Path, entry: str | None, windows: Windows | None, source: str, model: BackboneSpec | None,
    tag: str,
) -> dict[str, Any]:  # fmt: skip
    """The work of `convert`, in the child: sha256, layout, windows and notes. Raises DataError too."""
    content, tensors, entry = checkpoint_reader.read_weights(file, entry)
    metadata = safetensors_header.read(file) if format_of(file) == "safetensors" else {}
    named, settings = translated(tensors, file), checkpoint_reader.settings(content) if entry else {}
    _check_finite(named.tensors, file)
    if model is None and named.layout.rpartition("/")[2] == "timm":
        _check_parts(named.tensors, file)
    stages = _stages_with_windows(named.tensors)
    # the official configuration has a SwinV2 part whatever the model
    recorded = named.windows or safetensors_header.windows(metadata) or (_configured(settings) if stages else None)
    known = _windows(recorded, windows, stages, file)
    notes = [*_other_entries(content, entry), *named.notes, *_fit(model, named.tensors)]
    notes += _doubts(named.layout, named.tensors, known, model)
    header = {"layout": named.layout, "source_sha256": digest(file), **({"windows": known} if known else {})}
    sha256 = _write(named.tensors, output, header, tag)
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
    _describe(sidecar(output), description, tag)
    return {"sha256": sha256, "layout": named.layout, "windows": known, "notes": notes}


def translated(tensors: Mapping[str, torch.Tensor], file: Path) -> Named:
    """`layouts.translate`, with its ValueError as a DataError that names the file."""
    try:
        return translate(tensors)
    except ValueError as error:
        raise DataError(f"{file}: {error}") from error


def _check_parts(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Raises DataError for names that no timm model has, and no known layout either."""
    if unknown := unknown_parts(tensors):
        names = checkpoint_reader.listed(unknown, 4)
        raise DataError(
            f"{file}: no layout is known that has parts called {names}, and timm has none either; if it holds more "
            "than the backbone, save the backbone's weights alone; --model NAME lists what does not fit a model"
        )


def _other_entries(content: Mapping[str, Any], entry: str) -> list[str]:
    """A line if the file holds other weights besides those that were taken."""
    others = [name for name in checkpoint_reader.entries(content) if name != entry]
    return [f"weights of entry {entry}; there are others, for --entry: {', '.join(others)}"] if entry and others else []


def _check_finite(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Raises BadInput for nan and inf, which load without an error; trials that start from them diverge at once."""
    wrong = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if wrong:
        names = checkpoint_reader.listed(wrong, 8)
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
        stages = len(swin["DEPTHS"])
        if not all(type(number) is int and 0 < number < 2**16 for number in (image, window, patch, stages)):
            return None
        sides = [min(window, image // patch // 2**stage) for stage in range(min(stages, 16))]
        known = [int(side) or own for side, own in zip(earlier or [0] * len(sides), sides, strict=True)]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):  # another program's settings
        return None
    return tuple((side, side) for side in known) if all(0 < side < 2**16 for side in known) else None


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
    if layout.rpartition("/")[2] == "timm" and model is None:
        lines.append("no other layout was recognised, so the names must be timm's; check with --model NAME")
    if windows is None and any(".attn.cpb_mlp." in name for name in tensors):
        lines.append(
            "SwinV2 whose windows of pre-training are not recorded: pass --windows 12,12,12,6; without it a wrong "
            "window size goes undetected"
        )
    return lines


def _write(tensors: Mapping[str, torch.Tensor], output: Path, header: dict[str, Any], tag: str) -> str:
    """Writes the file unless it is there; returns its SHA-256."""
    from safetensors.torch import save

    # clones, because safetensors refuses tensors that share memory
    content = save(
        {name: tensor.contiguous().clone() for name, tensor in tensors.items()}, safetensors_header.packed(header)
    )
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        there = digest(output) if output.exists() else None
    except OSError as error:
        raise BackendUnreachable(
            f"cannot read {output}: {error.strerror}; choose another file: --output PATH"
        ) from error
    if there not in (None, sha256):
        raise Conflict(f"{output} holds other weights, which specs may name; choose another file: --output PATH")
    if there is None:
        _replace(output, content, tag)
    return sha256


def _earlier_description(path: Path) -> dict[str, Any]:
    """The description that lies there; empty if none does. Raises BadInput for a file that is something else, which
    would be replaced."""
    try:
        earlier = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; choose another file: --output PATH") from error
    except (ValueError, RecursionError):
        earlier = None
    if not isinstance(earlier, dict) or not {"file", "sha256"} <= earlier.keys():
        raise BadInput(f"{path} is not the description of weights that belongs there: move it, or choose --output PATH")
    return earlier


def _describe(path: Path, description: dict[str, Any], tag: str) -> None:
    """Writes the sidecar unless only its date would change; keeps the source that an earlier one names."""
    earlier = _earlier_description(path)
    description["source"] = description["source"] or earlier.get("source", "")
    dated = ("converted", "versions", "source_file")
    now = json.loads(json.dumps(description))
    if any(earlier.get(name) != value for name, value in now.items() if name not in dated):
        _replace(path, (json.dumps(description, indent=1) + "\n").encode(), tag)


def _temporary(path: Path, tag: str) -> Path:
    """Where a file is written until it is whole. `tag`: tells writers apart."""
    return path.with_name(f"{path.name}.{tag}.tmp")


def _replace(path: Path, content: bytes, tag: str) -> None:
    """Writes the whole file under its name, or nothing."""
    temporary = _temporary(path, tag)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise BackendUnreachable(
            f"cannot write {path}: {error.strerror or error}; choose another file: --output PATH"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def spec_lines(done: Converted, name: str, data_root: Path, model: BackboneSpec | None) -> str:
    """The lines of a spec that name this file, as YAML; `model`: which other fields its backbone then needs."""
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
    if model is not None:
        lines.append(f"  image_size: {model.image_size}")
    if model is not None and model.norm_eps is not None:
        lines.append(f"  norm_eps: {model.norm_eps:g}")
    quoted = json.dumps(str(path))
    lines.append(f"  init: {{kind: file, name: {json.dumps(name)}, path: {quoted}, sha256: {done.sha256}}}")
    return "\n".join(lines)
