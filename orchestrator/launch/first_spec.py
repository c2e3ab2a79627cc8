"""Writes a first spec for a data set: fifteen lines that run at once, with the reason for each choice beside it."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.assets.convert_weights import digest
from orchestrator.errors import BadInput, NotFound
from tasks.backbones.model_arguments import usual_image_size
from tasks.backbones.spec import BackboneSpec
from tasks.backbones.timm_names import check_timm_name
from tasks.datasets.augment import MADE_FOR
from tasks.datasets.info import DatasetInfo
from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.datasets.labelled.overview import Overview, overview
from tasks.errors import DataError

STEPS = 2000
"""Optimizer steps of a trial that is proposed, within 10 to 100 epochs: minutes for a small model on a
CPU. Our choice."""
STEPS_PER_EPOCH = 20
"""At least so many, by the batch that is proposed, for batches from 8 to 128."""
MANY_IMAGES = 5000
"""Of training. With fewer, Table 7's augmentation hides more than it adds. Our choice."""
UNEVEN = 3
"""A class with so many times the images of another: trials are chosen by the mean over classes."""


@dataclass(frozen=True)
class Wishes:
    """What the user asked for."""

    models: Sequence[str]
    weights: str | None = None
    """A tag of timm (MODEL.TAG), or a .safetensors file; None: random weights."""
    search: bool = False
    """A random search in place of a grid."""
    replicates: int = 1
    gpu: bool = False


@dataclass(frozen=True)
class _Choice:
    """A value of the spec, and why it was chosen."""

    value: Any
    why: str = ""


def first_spec(info: DatasetInfo, dataset: str | Mapping[str, Any], wishes: Wishes, root: Path, command: str) -> str:
    """The text of a spec on this data set. `dataset`: as a spec names or describes it; `command`: what made it.

    Raises NotFound for data that are missing or not as described, BadInput for a model or weights that cannot be.
    """
    if not isinstance(info, LabelledDataset):
        raise BadInput(
            f"{info.name}: init writes studies of labelled images alone; for poses, depth and tracking begin with "
            "a spec that is here: python -m orchestrator specs"
        )
    if problem := info.missing(root):
        raise NotFound(problem)
    try:
        found = overview(info, root)
    except (DataError, OSError) as error:
        raise NotFound(str(error)) from error
    if found.classes < 2 and not found.several_labels:
        raise BadInput(
            f"{info.name}: all its images are of one class: there is nothing to classify; name data with labels"
        )
    if wishes.weights and len(wishes.models) > 1:
        raise BadInput("--weights are those of one model: give one --model, and add others to the spec by hand")
    if wishes.weights and wishes.weights.endswith(".safetensors") and not wishes.models:
        raise BadInput(f"--weights {wishes.weights}: the file does not say of which model: add --model")
    models = list(dict.fromkeys(wishes.models)) or ([wishes.weights.partition(".")[0]] if wishes.weights else [])
    for model in models:
        try:
            check_timm_name(model)
        except ValueError as error:
            raise BadInput(f"--model {model}: {error}") from error
    return _Draft(info, dataset, found, wishes, models, root).text(command)


class _Draft:
    def __init__(
        self, info: LabelledDataset, dataset: str | Mapping[str, Any], found: Overview, wishes: Wishes,
        models: list[str], root: Path,
    ) -> None:  # fmt: skip
        self.info, self.found, self.wishes, self.models = info, found, wishes, models
        self.init = _init(wishes.weights, root)
        self.dataset = dict(dataset) if isinstance(dataset, Mapping) else dataset
        self.cuts_test = isinstance(self.dataset, dict) and not found.parts and "test_fraction" not in self.dataset
        if self.cuts_test and isinstance(self.dataset, dict):
            self.dataset["test_fraction"] = 0.2
        self.val_is_test = "test" not in found.parts and "val" in found.parts
        self.has_test = self.cuts_test or self.val_is_test or "test" in found.parts or self._fraction > 0
        held_out = 0.2 if "val" not in found.parts or self.val_is_test else 0.0
        cut = self._fraction if not found.parts else 0.0
        self.train = max(1, round(found.train * (1 - cut) * (1 - held_out)))

    @property
    def _fraction(self) -> float:
        return float(self.dataset.get("test_fraction", 0)) if isinstance(self.dataset, dict) else 0.0

    def text(self, command: str) -> str:
        name = re.sub(r"[^a-z0-9]+", "-", self.info.name.lower()).strip("-")[:40] or "first"
        lines = [
            f"# {self._data_words()}",
            f"# Written by: {command}",
            f"name: {_flow(name)}",
            "trial:",
            "  task:",
            "    kind: classify",
            *_line("    dataset", self._dataset()),
            *(
                ["    official_val: test # the data have no test: val is opened once, and others are held out"]
                if self.val_is_test
                else []
            ),
            *_line("    augment", self._augment()),
            *self._preprocessing(),
            *self._backbones_in_base(),
            *_line("  optim", self._optim()),
            *(["resources: {cpus: 4, gpus: 1} # a GPU for each trial"] if self.wishes.gpu else []),
            "stages:",
            *self._stages(),
            *(["report: {rows: backbone.model}"] if len(self.models) > 1 else []),
        ]
        return "\n".join(lines) + "\n"

    def _data_words(self) -> str:
        found = self.found
        least = f"{found.fewest:,} to " if found.fewest < found.most else ""
        of_class = f", {least}{found.most:,} of each" if found.most else ""
        side = _counted(found.side, "pixel")
        return f"{_counted(found.images, 'image')} of {found.classes:,} classes{of_class}, about {side} high or wide"

    def _dataset(self) -> _Choice:
        value, why = self.dataset, []
        if isinstance(value, dict) and "metric" not in value and self._uneven and value["kind"] != "huggingface":
            value = {**value, "metric": "mean_per_class"}
            why.append("some classes are much larger than others: the mean over classes counts")
        if self.cuts_test:
            why.append("the data name no test images: a fifth is cut off")
        return _Choice(value, "; ".join(why))

    @property
    def _uneven(self) -> bool:
        return not self.found.several_labels and self.found.most > UNEVEN * max(1, self.found.fewest)

    def _augment(self) -> _Choice:
        if self.found.side < MADE_FOR / 2:
            return _Choice("light", f"crop and flip alone: Table 7's is for {MADE_FOR} pixels and more; where left and "
                                    "right matter (text): {preset: light, flip: 0}")  # fmt: skip
        if self.found.several_labels:
            return _Choice("light", "crop and flip alone: several labels of an image cannot be mixed")
        if self.train < MANY_IMAGES:
            return _Choice(
                "light", f"crop and flip alone: {_counted(self.train, 'training image')} are few; more: table7"
            )
        return _Choice("table7", "strong (Table 7 of the paper), for many epochs; less: light")

    def _preprocessing(self) -> list[str]:
        if self.init is not None and self.init["kind"] == "timm":
            return ["    preprocessing: weights # mean, deviation and interpolation that the weights were trained with"]
        return []

    def _backbones(self) -> list[tuple[dict[str, Any], str]]:
        return [_backbone(model, self.found.side, self.init) for model in self.models]

    def _backbones_in_base(self) -> list[str]:
        (first, why), *others = self._backbones()
        if others:
            return []
        return _line("  backbone", _Choice(first, why))

    def _optim(self) -> _Choice:
        batch = 8
        while batch < 128 and self.train // (2 * batch) >= STEPS_PER_EPOCH:
            batch *= 2
        steps = max(1, self.train // batch)
        epochs = min(100, max(10, math.ceil(STEPS / steps)))
        decay: dict[str, Any] = {"layer_decay": 0.75} if self.init else {}
        lower = "; lower layers learn slower, since they are trained already" if decay else ""
        each = f"{_counted(self.train, 'training image')}: {_counted(steps, 'step')} an epoch"
        words = f"{each}, {epochs * steps:,} in all{lower}"
        return _Choice({"batch": batch, "epochs": epochs, **decay}, words)

    def _stages(self) -> list[str]:
        backbones = self._backbones() if len(self.models) > 1 else []
        low, high = (1e-4, 1e-3) if self.init else (3e-4, 3e-3)
        seeds = [f"    replicates: {self.wishes.replicates}"] if self.wishes.replicates > 1 else []
        if self.wishes.search:
            each = {"task.dataset": [self._dataset().value]}
            if backbones:
                each["backbone"] = [backbone for backbone, _ in backbones]
            lines = [
                "  - name: search # random points, compared on val; the best is taken",
                "    sweep:",
                "      search:",
                f"        optim.lr: {{loguniform: [{low / 3:.0e}, {high * 3:.0e}]}}",
                "        optim.weight_decay: {loguniform: [0.001, 0.3]}",
                f"      each: {_flow(each)}",
                "      trials: 12",
                "      sampler: random",
            ]  # fmt: skip
        else:
            per = ["task.dataset", *(["backbone.model"] if backbones else [])]
            lines = [
                f"  - name: grid # compared on val{' by the mean over seeds' if seeds else ''}; the best is taken",
                f"    per: {_flow(per)}",
                *seeds,
                "    sweep:",
                "      grid:",
                f"        optim.lr: {{logspace: [{low:g}, {high:g}, 3]}}",
                *(["        backbone:"] if backbones else []),
                *(f"          - {_flow(backbone)}{_comment(why)}" for backbone, why in backbones),
            ]  # fmt: skip
        if not self.has_test:
            return lines
        return [
            *lines,
            "  - name: final # trained again on train + val, measured once on test",
            f"    from: {'search' if self.wishes.search else 'grid'}",
            *seeds,
            "    override: {task.train: trainval, task.evaluate: test}",
        ]


def _init(weights: str | None, root: Path) -> dict[str, Any] | None:
    """Initial weights as a spec names them. Raises BadInput and NotFound."""
    if weights is None:
        return None
    if not weights.endswith(".safetensors"):
        model, _, tag = weights.partition(".")
        try:
            check_timm_name(weights)
        except ValueError as error:
            raise BadInput(f"--weights {weights}: {error}") from error
        if not tag:
            raise BadInput(
                f"--weights {model}: write MODEL.TAG of timm (all: timm.list_pretrained()), or a .safetensors file"
            )
        from tasks.backbones.timm_hub import config_of

        if config_of(weights) is None:
            raise BadInput(f"--weights {weights}: this timm has no such weights (all: timm.list_pretrained())")
        return {"kind": "timm", "name": tag, "tag": weights}
    file = Path(os.path.expanduser(weights))
    path = file if file.is_file() else root / file
    if not path.is_file():
        raise NotFound(f"--weights {weights}: no such file here or below the data root {root}")
    return {"kind": "file", "name": file.stem, "path": str(path.absolute()), "sha256": digest(path)}


def _backbone(model: str, side: int, init: Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """A backbone for images of this side, and why. Raises BadInput for a model that cannot be built at all."""
    usual = usual_image_size(model)
    if init is not None:
        return {
            "model": model,
            "image_size": usual,
            "init": dict(init),
        }, "images in the size that the model is made for"
    size = max(16, round(side / 16) * 16)
    if size < usual:
        for args, why in _smaller(model, size):
            if _builds(model, size, args) is None:
                spec: dict[str, Any] = {"model": model, "image_size": size}
                return {**spec, **({"args": args} if args else {})}, why
    if problem := _builds(model, usual, {}):
        raise BadInput(f"--model {model}: {problem}")
    words = "images in the size that the model is made for"
    return {"model": model, "image_size": usual}, words + (", enlarged" if side < usual else "")


def _smaller(model: str, size: int) -> list[tuple[dict[str, Any], str]]:
    """Arguments with which a model of this family takes smaller images, those to be tried first in front."""
    plain: tuple[dict[str, Any], str] = ({}, f"images of {size} pixels, as they are")
    if model.startswith(("vit_", "deit", "beit", "eva")):
        patch = max(2, size // 8)
        at = f"patches of {patch} pixels: {size // patch} x {size // patch} of them in an image"
        return [({"patch_size": patch}, at), plain] if size < 128 else [plain]
    if model.startswith("swin"):
        at = "small patches and windows, which small images are divided into"
        return [*(({"patch_size": 2, "window_size": window}, at) for window in (8, 4, 2)), plain]
    if model.startswith("convnext") and size < 64:
        stride = 1 if size < 32 else 2
        return [({"patch_size": stride}, f"a stem of stride {stride} keeps the maps of small images large"), plain]
    if model.startswith(("resnet", "resnext", "wide_resnet")) and size < 128:
        return [({"output_stride": 8}, f"the last maps keep 1/8 of {size} pixels instead of 1/32"), plain]
    return [plain]


def _builds(model: str, size: int, args: Mapping[str, Any]) -> str | None:
    """None if timm builds the model so, without memory; else why not."""
    import torch

    from tasks.backbones.model import build

    try:
        with torch.device("meta"):
            build(BackboneSpec(model=model, image_size=size, args=dict(args)), 2)
    except (ValueError, RuntimeError, AssertionError) as error:
        return str(error).partition("\n")[0]
    return None


def _line(key: str, choice: _Choice) -> list[str]:
    return [f"{key}: {_flow(choice.value)}{_comment(choice.why)}"]


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _comment(why: str) -> str:
    return f" # {why}" if why else ""


def _flow(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_/~.][\w/.~+-]*", value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


_WORDS = ("null", "true", "false", "~", ".nan", ".inf", "yes", "no", "on", "off")
"""Plain words that YAML would not read as text."""
