"""Writes plugins for tests, and makes this process forget the plugins that it has imported."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.spec import plugins as of_specs
from orchestrator.spec.plugin_files import find
from workers import plugins
from workers.plugin_code import Plugin, PluginCode

MODEL = """
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes=1000, in_chans=3, width=4):
        super().__init__()
        self.num_classes, self.num_features = num_classes, width
        self.stem = nn.Sequential(nn.Conv2d(in_chans, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(width, num_classes)

    def forward(self, images):
        return self.head(self.stem(images))


default_cfgs = generate_default_cfgs({"NAME": {"input_size": (3, 16, 16), "classifier": "head"}})


@register_model
def NAME(pretrained=False, **arguments):
    return build_model_with_cfg(Net, "NAME", pretrained, **arguments)
"""
"""A module that registers the model NAME."""

METRICS = """
from tasks.metrics import FromLogits, Metric


def hits(logits, labels):
    return (logits.argmax(1) == labels).double().mean().item()


METRICS = [FromLogits(Metric("hits", "hits", "higher", "%", 100.0, 2), hits)]
"""

TASK = """
from typing import Literal

from tasks.classification.task import Classify


class Mine(Classify):
    kind: Literal["mine"] = "mine"


TASKS = {"mine": Mine}
"""

TRIAL: dict[str, Any] = {
    "task": {"kind": "classify", "dataset": "digits"},
    "backbone": {"model": "vit_tiny_patch16_224", "image_size": 32},
    "optim": {"lr": 1e-3, "batch": 20, "epochs": 2, "warmup_epochs": 0},
}
"""A trial to which tests add plugins."""


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """Writes each text under its path below the folder; returns the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def code(folder: Path, module: str) -> PluginCode:
    """The plugin that lies in the folder."""
    return find(Plugin(module=module), [folder])


def forget() -> None:
    """As in a new process."""
    plugins.use(())
    packages = set(plugins._process.digests)
    registry = sys.modules.get("timm.models._registry")
    for package in packages if registry is not None else ():
        for name in list(plugins._registered(registry, package)):
            del registry._model_entrypoints[name]
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]
    sys.meta_path[:] = [each for each in sys.meta_path if not isinstance(each, plugins.PluginFinder)]
    plugins._process.digests.clear()
    plugins._process.models.clear()
    of_specs._found.clear()


@contextlib.contextmanager
def forgotten() -> Iterator[None]:
    """What is imported inside is forgotten after it."""
    forget()
    try:
        yield
    finally:
        forget()
