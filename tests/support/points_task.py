"""A task whose targets vary in size: any number of points per image, in a list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from tiny_task import CLASSES, Tiny, TinyLoaders, TinyTrial, trial
from torch import nn

from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare, Loaders
from tasks.metrics import Metric, Summary


class Points(Tiny):
    """Predicts one point for all points of an image."""

    metrics = property(lambda self: (Metric("distance", "distance", "lower", "m"),))  # type: ignore[assignment]

    def loaders(self, place: DataContext) -> Loaders:
        return PointsLoaders(self, place)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        each = [distances(one, own).mean() for one, own in zip(model(batch["images"]), batch["points"], strict=True)]
        return {"loss": torch.stack(each).mean()}

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        for batch in batches:
            pairs = zip(model(batch["images"]), batch["points"], strict=True)
            yield batch["item"], [distances(one, own).mean().item() for one, own in pairs]

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        values = [value for _, part in parts for value in part]
        return Summary({"distance": sum(values) / len(values)})


def distances(prediction: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """L1 distance to each point, (n, 3); of no points, that of the prediction to 0."""
    return (prediction - points).abs().sum(1) if len(points) else prediction.abs().sum(0, keepdim=True)


class PointsLoaders(TinyLoaders):
    """The images of Tiny; image i has i % 4 points."""

    def __init__(self, task: Tiny, place: DataContext) -> None:
        super().__init__(task, place)
        draw = torch.Generator().manual_seed(8)
        self._points = [torch.randn(index % 4, CLASSES, generator=draw) for index in range(len(self._images))]
        self._index = {image.flatten()[0].item(): index for index, image in enumerate(self._images)}

    def _of(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self._points[self._index[image.flatten()[0].item()]] for image in images]

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        for batch in super().epoch(epoch, first_step):
            yield {"images": batch["images"], "points": self._of(batch["images"])}

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        for batch in super().evaluation(share):
            yield {**batch, "points": self._of(batch["images"])}


def points_trial(task: Points | None = None, **fields: Any) -> TinyTrial:
    return trial(**fields).model_copy(update={"task": task or Points()})
