"""The only place that turns other people's checkpoints into the files that training loads: safetensors, and what is
known of them as JSON beside."""

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
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sidecar(output: Path) -> Path:
    return output.with_suffix(".json")


def convert(
    file: Path, output: Path, entry: str | None = None, windows: Windows | None = None, source: str = "",
    model: BackboneSpec | None = None,
) -> Converted:  # fmt: skip
    """Reads `file` without running code of it and writes `output` and its sidecar, both whole or not at all.

    The same file gives the same digest. `windows`: what SwinV2's position bias refers to, where the file does not say.
    `model`: also makes sure that the weights fit it whole. Raises BadInput when file, windows, model or the name of
    `output` are not as they should be, Conflict when it holds something else, BackendUnreachable when the disk
    refuses it.
    """
    if output.suffix != ".safetensors":
        raise BadInput(f"--output {output}: training reads .safetensors alone, so the name has to end in it")
    try:
        content = checkpoint_reader.read(file)
        tensors, entry = checkpoint_reader.state_dict(content, entry)
        told = safetensors_header.read(file) if file.suffix == ".safetensors" else {}
    except DataError as error:
        raise BadInput(str(error)) from error
    named, settings = translate(tensors), checkpoint_reader.settings(content) if entry else {}
    _check_finite(named.tensors, file)
    stages = _stages_with_windows(named.tensors)
    # the official configuration has a SwinV2 part for whatever model
    found = named.windows or safetensors_header.windows(told) or (_configured(settings) if stages else None)
    known = _windows(found, windows, stages, file)
    notes = [*_beside(content, entry), *named.notes, *_fit(model, named.tensors)]
    notes += _doubts(named.layout, named.tensors, known, model)
    said = {"layout": named.layout, "source_sha256": digest(file), **({"windows": known} if known else {})}
    written = _write(named.tensors, output, said)
    description = {
        "file": output.name,
        "sha256": written,
        "source": source,
        "source_file": file.name,
        "source_bytes": file.stat().st_size,
        "entry": entry,
        **said,
        "parameters": sum(tensor.numel() for tensor in named.tensors.values()),
        "renamed": named.renamed,
        "dropped": list(named.dropped),
        "settings": settings,
        "notes": notes,
        "converted": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "safetensors", "timm")},
    }
    _describe(sidecar(output), description)
    return Converted(output, written, named.layout, known, notes)


def _beside(content: Mapping[str, Any], entry: str) -> list[str]:
    """A line where the file holds other weights than those that were taken."""
    others = [name for name in checkpoint_reader.entries(content) if name != entry]
    return [f"weights of entry {entry}; there are others, for --entry: {', '.join(others)}"] if entry and others else []


def _check_finite(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Such weights would be read without a word, and every trial that starts from them diverge in its first step."""
    wrong = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if wrong:
        names = f"{', '.join(wrong[:8])}{', ..' * (len(wrong) > 8)}"
        raise BadInput(f"{file}: {len(wrong)} weights are not finite (nan or inf): {names}; take an earlier checkpoint")


def _stages_with_windows(tensors: Mapping[str, torch.Tensor]) -> int:
    """How many stages SwinV2 has; 0 for any other model, where windows of pre-training mean nothing."""
    return len({name.split(".blocks.")[0] for name in tensors if ".attn.cpb_mlp." in name})


def _windows(found: Windows | None, given: Windows | None, stages: int, file: Path) -> Windows | None:
    if given and not stages:
        raise BadInput(f"--windows {_sides(given)}: only SwinV2 has them, and {file} is none: leave --windows out")
    if given and len(given) != stages:
        raise BadInput(f"--windows {_sides(given)}: {file} has {stages} stages: say {stages} windows")
    if found and given and found != given:
        raise BadInput(f"{file} was made with windows {_sides(found)}, not {_sides(given)}: leave --windows out")
    return found or given


def _sides(windows: Windows) -> str:
    return ",".join(str(height) for height, _ in windows)


def _configured(settings: Mapping[str, Any]) -> Windows | None:
    """Windows from the official SwinV2 configuration (config.py): as told from an earlier pre-training, or its own,
    which is never larger than the map."""
    config = settings.get("config")
    try:
        swin, image = config["MODEL"]["SWINV2"], config["DATA"]["IMG_SIZE"]  # type: ignore[index]
        earlier, window, patch = swin.get("PRETRAINED_WINDOW_SIZES"), swin["WINDOW_SIZE"], swin.get("PATCH_SIZE", 4)
        sides = [min(window, image // patch // 2**stage) for stage in range(len(swin["DEPTHS"]))]
        told = [int(side) or own for side, own in zip(earlier or [0] * len(sides), sides, strict=True)]
        return tuple((side, side) for side in told)
    except (KeyError, TypeError, ValueError, AttributeError):  # another program's settings
        return None


def _fit(model: BackboneSpec | None, tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """What loading into this model would note. Raises BadInput with the names that do not fit."""
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
    """What the user should know before he trusts the file."""
    lines = []
    if layout == "timm" and model is None:
        lines.append("no layout of others was recognised: the names must be timm's; --model NAME makes sure")
    if windows is None and any(".attn.cpb_mlp." in name for name in tensors):
        lines.append(
            "SwinV2 whose windows of pre-training are not recorded: say them with --windows 12,12,12,6, or nobody will "
            "notice when a spec reads the position bias with others"
        )
    return lines


def _write(tensors: Mapping[str, torch.Tensor], output: Path, said: dict[str, Any]) -> str:
    """Writes the file, unless it is there; its SHA-256."""
    from safetensors.torch import save

    # clones, because safetensors refuses tensors that share memory
    content = save(
        {name: tensor.contiguous().clone() for name, tensor in tensors.items()}, safetensors_header.packed(said)
    )
    found = hashlib.sha256(content).hexdigest()
    if output.exists() and digest(output) != found:
        raise Conflict(f"{output} holds other weights, which specs may name; write elsewhere: --output PATH")
    if not output.exists():
        _replace(output, content)
    return found


def _describe(path: Path, description: dict[str, Any]) -> None:
    """Writes the sidecar, unless one is there that differs in nothing but its date; a source that was said stays."""
    try:
        there = dict(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        there = {}
    description["source"] = description["source"] or there.get("source", "")
    dated = ("converted", "versions", "source_file")
    now = json.loads(json.dumps(description))
    if any(there.get(name) != value for name, value in now.items() if name not in dated):
        _replace(path, (json.dumps(description, indent=1) + "\n").encode())


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise BackendUnreachable(f"cannot write {path}: {error.strerror}; write elsewhere: --output PATH") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def spec_lines(done: Converted, name: str, data_root: Path, model: BackboneSpec | None) -> str:
    """What to write in a spec, as YAML."""
    inside = done.output.is_relative_to(data_root)
    path = done.output.relative_to(data_root) if inside else done.output
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
    """The side that timm built this model for."""
    import timm

    import tasks.backbones.replknet  # noqa: F401 (makes it known to timm)

    return int(timm.get_pretrained_cfg_value(model, "input_size")[-1])
