"""Exports a trial's model as a folder that timm loads without this project: weights, config, transform, lineage."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.assets.convert_weights import digest
from orchestrator.errors import BackendUnreachable, BadInput, Conflict
from orchestrator.launch.trained_models import TrainedModel, load_model
from orchestrator.report.figures import with_unit
from orchestrator.report.formatting import moment
from orchestrator.report.json_values import to_json
from orchestrator.report.lineage import lineage
from tasks.backbones import safetensors_header
from tasks.backbones.loading import UNTRAINED_NORM, load_notes
from tasks.backbones.preprocessing import Preprocessing, published
from workers.checkpoint import AVERAGED

if TYPE_CHECKING:
    from torch import nn

    from orchestrator.records.rows import TrialRow
    from orchestrator.settings import Settings
    from orchestrator.store.store import Store

WEIGHTS, CONFIG, TRANSFORM, LINEAGE, README = (
    "model.safetensors", "config.json", "transform.json", "lineage.json", "README.md",
)  # fmt: skip
"""The first two as timm and the Hugging Face hub name them."""
ORIGIN = ("tag", "license", "origin_url", "paper_name", "paper_ids", "notes", "cfg_url", "url", "hf_hub_id")
"""What timm's config says of its own weights of a model, which these are not."""


def export(store: Store, where: Settings, key: str, folder: Path) -> list[str]:
    """Writes the folder, which must be new or empty; returns lines about what is in it.

    The weights are those of `load_model`, bit for bit; before anything is written, timm builds the model from the
    folder alone and must give the same numbers. Raises NotFound and BadInput as `load_model` does, BadInput too where
    timm has no such model, Conflict for a folder with content, BackendUnreachable where it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is there already: name a folder that is new or empty")
    trained = load_model(store, where, key)
    try:
        model = trained.spec.task.plain_model(trained.spec.backbone, trained.module).eval()
    except ValueError as error:
        raise BadInput(f"trial {key[:12]} cannot be exported: {error}") from error
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as place:
            made = Path(place) / "export"
            made.mkdir()
            lines = _write(store, trained, model, made)
            made.chmod(0o755)
            if folder.exists():
                folder.rmdir()
            made.rename(folder)
    except OSError as error:
        raise BackendUnreachable(f"cannot write {folder}: {error.strerror or error}; name another folder") from error
    return lines


def _write(store: Store, trained: TrainedModel, model: nn.Module, folder: Path) -> list[str]:
    from safetensors.torch import save_file

    own = safetensors_header.read(Path(trained.file.path))
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt", **(safetensors_header.packed(own) if own else {})})
    (folder / WEIGHTS).chmod(0o644)
    prepared = _preprocessing(trained)
    height, width = trained.spec.task.input_size(trained.spec.backbone)
    _write_config(trained, model, prepared, (height, width), folder / CONFIG)
    notes = [note for note in load_notes(model) if note.startswith(UNTRAINED_NORM)]
    notes += _check(trained, model, folder)
    if prepared is not None:
        content = {**asdict(prepared), "input_size": [3, height, width], "resize_to": _resized(prepared, height)}
        _json(folder / TRANSFORM, content)
    _json(folder / LINEAGE, _lineage(store, trained, digest(folder / WEIGHTS)))
    (folder / README).write_text(_readme(trained, model, notes), encoding="utf-8")
    classes = int(getattr(model, "num_classes", 0))
    what = f"{classes} classes" if classes else "features, no classes"
    return [f"{trained.spec.backbone.model}, {what}, {sum(t.numel() for t in tensors.values()):,} numbers", *notes]


def _preprocessing(trained: TrainedModel) -> Preprocessing | None:
    return trained.spec.task.prepares or published(trained.spec.backbone.init)


def _resized(prepared: Preprocessing, side: int) -> int:
    """The shorter side of the image before its centre is taken, as timm rounds it."""
    return int(side / prepared.eval_crop)


def _write_config(
    trained: TrainedModel, model: nn.Module, prepared: Preprocessing | None, size: tuple[int, int], path: Path
) -> None:
    from timm.models._hub import save_config_for_hf

    data: dict[str, Any] = {"input_size": (3, *size)}
    if prepared is not None:
        data |= {
            "mean": prepared.mean, "std": prepared.std, "interpolation": prepared.interpolation,
            "crop_pct": prepared.eval_crop,
        }  # fmt: skip
    config: dict[str, Any] = {}
    if trained.class_names and len(trained.class_names) == int(getattr(model, "num_classes", 0)):
        config["label_names"] = list(trained.class_names)
    try:
        save_config_for_hf(model, str(path), model_config=config, data_config=data)
    except (ValueError, AttributeError) as error:
        raise BadInput(f"trial {trained.row.key[:12]} cannot be exported in timm's form: {error}") from error
    content = json.loads(path.read_text())
    stated = content["pretrained_cfg"]  # of timm's own weights for this model, as to where they come from
    content["pretrained_cfg"] = {name: value for name, value in stated.items() if name not in ORIGIN}
    content["pretrained_cfg"]["tag"] = trained.row.key[:12]
    _json(path, content)


def _is_timms(model_name: str) -> bool:
    import timm

    return str(timm.model_entrypoint(model_name).__module__).startswith("timm.")


def _check(trained: TrainedModel, model: nn.Module, folder: Path) -> list[str]:
    """Notes for those who load the folder. Raises BadInput if timm does not build the same model from it."""
    import timm
    import torch

    name, backbone = f"trial {trained.row.key[:12]} cannot be exported", trained.spec.backbone
    try:
        again = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise BadInput(f"{name}: timm does not build {backbone.model} as it was trained: {error}") from error
    notes = []
    if backbone.norm_eps is not None:
        set_norm_eps(again, backbone.norm_eps)
        notes.append(
            f"norm_eps {backbone.norm_eps:g}: timm's config has no place for it; the README has the lines that set it"
        )
    height, width = trained.spec.task.input_size(backbone)
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, got = model(images), again(images)
    if expected.shape != got.shape or not torch.equal(expected, got):
        raise BadInput(f"{name}: timm's {backbone.model} computes something else with these weights")
    if not _is_timms(backbone.model):
        notes.append(f"{backbone.model} is not a model of timm's own: see the README for the import that registers it")
    return notes


def set_norm_eps(model: nn.Module, eps: float) -> None:
    """Sets the epsilon of every LayerNorm, as `backbone.norm_eps` does."""
    from torch import nn as layers

    for part in model.modules():
        if isinstance(part, layers.LayerNorm):
            part.eps = eps


def _lineage(store: Store, trained: TrainedModel, sha256: str) -> dict[str, Any]:
    row = trained.row
    return {
        "trial": row.key,
        "names": [place[3] for place in row.placed],
        "jobs": sorted({place[0] for place in row.placed}),
        "spec": dict(row.spec),
        "split": row.split,
        "figures": to_json(row.figures),
        "metrics": to_json(row.metrics),
        "data_digest": row.data_digest,
        "weights": {"averaged": Path(trained.file.path).name == AVERAGED, "sha256": trained.file.sha256},
        "exported": {"file": WEIGHTS, "sha256": sha256},
        "follows_from": to_json(lineage(store, row)),
        "code": {"git_commit": row.git_commit, "git_dirty": row.git_dirty},
        "versions": row.versions,
        "ended": moment(row.ended) or None,
    }


def _readme(trained: TrainedModel, model: nn.Module, notes: list[str]) -> str:
    backbone, row = trained.spec.backbone, trained.row
    figures = ", ".join(_figure(row, name, value) for name, value in sorted(row.figures.items())) or "no figures"
    lines = ["import timm", "from PIL import Image", ""]
    if not _is_timms(backbone.model):
        lines = ["import tasks.backbones.replknet  # registers the model; of the project that trained it", *lines]
    lines.append('model = timm.create_model("local-dir:.", pretrained=True).eval()  # or the path of this folder')
    if backbone.norm_eps is not None:
        lines += ["for part in model.modules():", '    if type(part).__name__.startswith("LayerNorm"):',
                  f"        part.eps = {backbone.norm_eps!r}"]  # fmt: skip
    lines.append("transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))")
    lines.append('output = model(transform(Image.open("image.png").convert("RGB"))[None])')
    classes = int(getattr(model, "num_classes", 0))
    if classes and len(trained.class_names) == classes:
        lines.append('print(model.pretrained_cfg["label_names"][int(output.argmax())])')
    what = f"{classes} classes" if classes else "no classifier: `output` has pooled features"
    return "\n".join(
        [
            f"# {row.placed[0][3] if row.placed else row.key[:12]}", "",
            f"{backbone.model}, {what}. Trial {row.key[:12]}; on {row.split}: {figures}.", "",
            "```python", *lines, "```", "",
            f"{CONFIG}: timm's form of the model and its input. {TRANSFORM}: the same transform in words. {LINEAGE}: "
            "spec, data, figures and the trials that it follows from.", "",
            "Back into the project that trained it: `python -m orchestrator weights import FOLDER`.",
            *(["", *(f"- {note}" for note in notes)] if notes else []), "",
        ]
    )  # fmt: skip


def _figure(row: TrialRow, name: str, value: float) -> str:
    """top-1 accuracy 24.3 %"""
    metric = next((metric for metric in row.metrics if metric.name == name), None)
    return f"{name} {value:.4g}" if metric is None else f"{metric.title} {with_unit(value * metric.scale, metric)}"


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
