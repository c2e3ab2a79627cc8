"""A task that only measures: an accuracy and a distance for every item, without a training set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from tiny_task import CLASSES, Tiny, TinyLoaders, TinyTrial
from torch import nn

from tasks.backbones.spec import BackboneSpec, Init, Scratch
from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare, Loaders
from tasks.metrics import Metric, Summary, percent
from workers.trial import RuntimeSpec


class Analysis(Tiny):
    trains: ClassVar[bool] = False

    items: int = 5
    each: int = 3
    """Images of an item."""
    parameters: bool = True
    """Whether the model has any."""

    metrics = property(  # type: ignore[assignment]
        lambda self: (percent("top1", "top-1 accuracy"), Metric("spread", "spread of the logits", "lower"))
    )
    train_samples = property(lambda self: 0)  # type: ignore[assignment]
    evaluation_samples = property(lambda self: self.items * self.each)  # type: ignore[assignment]

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        return super().build(backbone, weights) if self.parameters else FirstPixels()

    def loaders(self, place: DataContext) -> Loaders:
        return AnalysisLoaders(self, place)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        raise AssertionError("it does not train")

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        assert not model.training
        for batch in batches:
            logits = model(batch["images"])
            right = (logits.argmax(1) == batch["labels"]).float().mean().item()
            yield batch["item"], {"right": right, "spread": logits.std().item()}

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        means = {name: sum(part[name] for _, part in parts) / len(parts) for name in ("right", "spread")}
        return Summary({"top1": means["right"], "spread": means["spread"]})


class FirstPixels(nn.Module):
    """The first pixels are the logits: there is nothing to learn."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :CLASSES]


class AnalysisLoaders(TinyLoaders):
    def __init__(self, task: Analysis, place: DataContext) -> None:
        draw = torch.Generator().manual_seed(11)
        self._measured = torch.randn(task.items, task.each, 3, 4, 4, generator=draw)
        self._items = task.items
        self.train_samples, self.steps_per_epoch, self.digest = 0, 0, "analysis"

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        raise AssertionError("it has no training set")

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        for position in range(self._items):
            if share.wants(position, item := f"item {position:03d}"):
                images = self._measured[position]
                yield {"images": images, "labels": images.flatten(1)[:, :CLASSES].argmax(1), "item": item}


class AnalysisTrial(TinyTrial):
    task: Analysis  # type: ignore[assignment]


def analysis(
    task: dict[str, Any] | None = None, init: Init | None = None, runtime: dict[str, Any] | None = None, **fields: Any
) -> AnalysisTrial:
    return AnalysisTrial(
        task=Analysis(**(task or {})),
        backbone=BackboneSpec(model="vit_tiny_patch16_224", image_size=4, init=init or Scratch()),
        runtime=RuntimeSpec(**(runtime or {})),
        **fields,
    )
