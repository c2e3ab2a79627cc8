"""A task that only measures (an accuracy and a distance for every item, without a training set), and one that trains
and is measured alike."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from tiny_task import CLASSES, Tiny, TinyLoaders, TinyTrial
from torch import nn

from tasks.backbones.spec import BackboneSpec, Init, Scratch
from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare, Loaders
from tasks.errors import DataError
from tasks.metrics import Measurement, Metric, Summary, percent
from workers.trial import RuntimeSpec


class Analysis(Tiny):
    trains: ClassVar[bool] = False
    resumes_evaluation: ClassVar[bool] = True

    items: int = 5
    each: int = 3
    """Number of images of an item."""
    parameters: bool = True
    """False: the model has none."""
    noisy: bool = False
    """Adds a random number to the distance."""
    log: str = ""
    """File to which every item that is measured adds a line: its rank and its name."""
    rows: tuple[tuple[int | None, str], ...] = ()
    """(layer, figure) of the measurements of each item."""
    gates: tuple[tuple[str, str], ...] = ()
    """(item, file): the item is not measured before the file is there."""
    unreadable: str = ""
    """This item ends the trial with a DataError."""

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
            item = batch["item"]
            for path in (path for name, path in self.gates if name == item):
                while not Path(path).exists():
                    time.sleep(0.001)
            if item == self.unreadable:
                raise DataError(f"{item} cannot be read")
            logits = model(batch["images"])
            right = (logits.argmax(1) == batch["labels"]).float().mean().item()
            noise = torch.rand(1).item() if self.noisy else 0.0
            if self.log:
                with Path(self.log).open("a") as log:
                    log.write(f"{dist.get_rank() if dist.is_initialized() else 0} {item}\n")
            yield item, {"right": right, "spread": logits.std().item() + noise}

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        means = {name: sum(part[name] for _, part in parts) / len(parts) for name in ("right", "spread")}
        rows = (Measurement(name, part[name], item, layer=layer) for item, part in parts for layer, name in self.rows)
        return Summary({"top1": means["right"], "spread": means["spread"]}, rows)


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


class Trained(Analysis):
    """Trains as Tiny does."""

    trains: ClassVar[bool] = True

    train_samples = property(lambda self: self.images)  # type: ignore[assignment]

    def loaders(self, place: DataContext) -> Loaders:
        return TrainedLoaders(self, place)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        return Tiny.loss(self, model, batch)


class Forgetful(Trained):
    resumes_evaluation: ClassVar[bool] = False


class TrainedLoaders(TinyLoaders):
    def __init__(self, task: Trained, place: DataContext) -> None:
        super().__init__(task, place)
        self._measured = AnalysisLoaders(task, place)

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        return self._measured.evaluation(share)


def measured(log: Path) -> list[tuple[int, str]]:
    """(rank, item) in the order in which they were measured."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(rank), item) for rank, item in (line.split(" ", 1) for line in lines)]


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
