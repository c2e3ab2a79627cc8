"""Tasks whose targets vary in size (any number of points per image, in a list), and whose losses are no means over
samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from tiny_task import CLASSES, Tiny, TinyLoaders
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


class SummedPoints(Points):
    """Sums over points and over images without points, as detection losses over positives and negatives."""

    blank: bool = False
    """No image has points: the denominator of `points` is 0."""

    def loaders(self, place: DataContext) -> Loaders:
        return PointsLoaders(self, place, blank=self.blank)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        pairs = list(zip(model(batch["images"]), batch["points"], strict=True))
        zero = pairs[0][0].sum() * 0
        near = [2 * distances(one, own).sum() for one, own in pairs if len(own)]
        none = [0.5 * distances(one, own).sum() for one, own in pairs if not len(own)]
        return {"points": sum(near, zero), "none": sum(none, zero)}

    def denominators(self, batch: Batch) -> Mapping[str, float | torch.Tensor] | None:
        counts = [len(points) for points in batch["points"]]
        return {"none": counts.count(0), "points": torch.tensor(sum(counts))}


class Spread(Tiny):
    """The logarithm of a variance over all predictions of a worker's share, as SILog."""

    loss_over: ClassVar[Literal["samples", "batch"]] = "batch"

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        error = model(batch["images"]) - batch["images"].flatten(1)[:, :CLASSES]
        return {"loss": (error.square().mean() - 0.5 * error.mean().square()).sqrt()}


def distances(prediction: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """L1 distance to each point, (n, 3); of no points, that of the prediction to 0."""
    return (prediction - points).abs().sum(1) if len(points) else prediction.abs().sum(0, keepdim=True)


class PointsLoaders(TinyLoaders):
    """The images of Tiny; image i has i % 4 points."""

    def __init__(self, task: Tiny, place: DataContext, blank: bool = False) -> None:
        super().__init__(task, place)
        draw = torch.Generator().manual_seed(8)
        counts = [0 if blank else index % 4 for index in range(len(self._images))]
        self._points = [torch.randn(count, CLASSES, generator=draw) for count in counts]
        self._index = {image.flatten()[0].item(): index for index, image in enumerate(self._images)}

    def _of(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self._points[self._index[image.flatten()[0].item()]] for image in images]

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        for batch in super().epoch(epoch, first_step):
            yield {"images": batch["images"], "points": self._of(batch["images"])}

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        for batch in super().evaluation(share):
            yield {**batch, "points": self._of(batch["images"])}
