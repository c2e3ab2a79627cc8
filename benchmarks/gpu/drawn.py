"""Tasks on drawn samples that lie on the device: the batches of the dense tasks, as their loaders give them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare, Loaders
from tasks.datasets.loaders import BatchTransform
from tasks.datasets.reader import moved
from tasks.datasets.samples import Sample
from tasks.datasets.transforms import Normalizing, derived_seed, mean_std
from tasks.depth.task import Depth
from tasks.detection.task import Detection
from tasks.metrics import Metric, Summary
from tasks.pose.task import Pose
from tasks.segmentation.task import Segmentation
from tasks.tracking.task import Tracking
from workers.prepare import seed_all

OBJECTS = 7
"""In an image of detection, as COCO has on the average."""


class Ready(Loaders):
    """A batch of drawn samples that lies on the device, and is prepared there anew for each step, as in training."""

    def __init__(self, batch: Batch, transform: BatchTransform, context: DataContext) -> None:
        self._batch, self._transform = moved(batch, context.device), transform
        self._indices = torch.arange(context.batch)
        self.train_samples, self.steps_per_epoch, self.digest = context.batch * 1000, 1000, ""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        for step in range(first_step, self.steps_per_epoch):
            yield self._transform.train(self._batch, epoch, step, self._indices)

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        return []


class Drawn:
    """What makes a task one of drawn samples, of which nothing is evaluated."""

    metrics = property(lambda self: (Metric("none", "nothing", "higher"),))
    measured_figures = property(lambda self: {})
    reads_test = property(lambda self: False)
    evaluation_samples = property(lambda self: 0)

    def samples(self, context: DataContext) -> tuple[Batch, BatchTransform]:
        """A batch as worker processes give it, and what the device makes of it."""
        raise NotImplementedError

    def loaders(self, context: DataContext) -> Loaders:
        return Ready(*self.samples(context), context)

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        yield from ()

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        return Summary({"none": 0.0})


class DrawnPose(Drawn, Pose):
    """Persons in pictures of 640 x 480, cut, warped and coloured as in training."""

    def samples(self, context: DataContext) -> tuple[Batch, BatchTransform]:
        from tasks.pose.samples import Cut, Warp, collate, rows

        random = np.random.default_rng(0)
        count, joints = context.batch, len(self.skeleton)
        corners, sides = random.uniform(0, 200, (count, 2)), random.uniform(100, 250, (count, 2))
        places = corners[:, None] + random.random((count, joints, 2)) * sides[:, None]
        seen = random.integers(0, 3, (count, joints, 1))
        targets = rows(np.hstack([corners, sides]), np.ones(count), np.concatenate([places, seen], 2))
        cut = Cut(context.input_size, self.padding, self.skeleton, self.augment)
        seed_all(0, "samples", 0)
        samples = [cut(Sample(pictures(1, 480, 640)[0], row, number)) for number, row in enumerate(targets)]
        warp = Warp(context.input_size, self.normalize, self.augment.jitter_prob > 0, np.arange(count))
        return collate(samples), warp


class DrawnDepth(Drawn, Depth):
    """Crops with depths from 1 to 9 m, a tenth of them not known."""

    def samples(self, context: DataContext) -> tuple[Batch, BatchTransform]:
        from tasks.depth.data import FromZeroToOne

        (height, width), count = context.input_size, context.batch
        depth = torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(0)) * 8.9 + 0.1
        depth[depth < 1] = 0
        return {"images": images(count, height, width), "depth": depth}, FromZeroToOne()


class DrawnTracking(Drawn, Tracking):
    """Pairs of template and search region; the object lies about the middle."""

    def samples(self, context: DataContext) -> tuple[Batch, BatchTransform]:
        from tasks.tracking.sampler import OnDevice

        count, search = context.batch, context.input_size[0]
        crops = {"images": search, "templates": self.template or search // 2}
        batch: Batch = {name: images(count, side, side) for name, side in crops.items()}
        corners = 0.25 + 0.25 * torch.rand(count, 2, generator=torch.Generator().manual_seed(0))
        batch["boxes"] = torch.cat([corners, corners + 0.25], 1)
        return batch, OnDevice(self.normalize, 1000, self.fusion.drop_path_from)


@dataclass(frozen=True)
class Normalised(BatchTransform):
    """What the loaders of detection and segmentation make of a batch, which need OpenCV to be imported."""

    normalize: Normalizing
    purpose: str
    """Of the seeds."""

    def train(self, batch: Batch, epoch: int, step: int, indices: torch.Tensor) -> Batch:
        pixels = batch["images"]
        mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) * 255 for v in mean_std(self.normalize))
        seeds = [derived_seed(0, self.purpose, epoch, index) for index in indices.tolist()]
        return {**batch, "images": pixels.float().sub_(mean).div_(std), "seeds": seeds}


class DrawnDetection(Drawn, Detection):
    """Images with rectangular objects, each an eighth to half as long as the image."""

    def samples(self, context: DataContext) -> tuple[Batch, BatchTransform]:
        random, (side, _), count = np.random.default_rng(0), context.input_size, context.batch
        targets = []
        for _ in range(count):
            sides = random.uniform(side / 8, side / 2, (OBJECTS, 2))
            corners = random.random((OBJECTS, 2)) * (side - sides)
            boxes = np.hstack([corners, corners + sides]).round().astype(np.int64)
            masks = np.zeros((OBJECTS, side, side), np.uint8)
            for mask, (left, top, right, bottom) in zip(masks, boxes.tolist(), strict=True):
                mask[top:bottom, left:right] = 1
            labels = random.integers(1, self._data.classes + 1, OBJECTS)
            made = {"boxes": boxes.astype(np.float32), "labels": labels, "masks": masks}
            targets.append({name: torch.from_numpy(values) for name, values in made.items()})
        batch = {"images": images(count, side, side), "sizes": [(side, side)] * count, "targets": targets}
        return batch, Normalised(self.normalize, "regions")


class DrawnSegmentation(Drawn, Segmentation):
    """Squares with a map of 4 x 4 fields, each of a class or of none."""

    def samples(self, context: DataContext) -> tuple[Batch, BatchTransform]:
        side, count = context.input_size[0], context.batch
        fields = np.random.default_rng(0).integers(0, self._data.classes, (count, 4, 4))
        fields[:, 0, 0] = 255
        maps = fields.repeat(side // 4, 1).repeat(side // 4, 2).astype(np.uint8)
        batch = {"images": images(count, side, side), "maps": torch.from_numpy(maps)}
        return batch, Normalised(self.normalize, "points")


def images(count: int, height: int, width: int) -> torch.Tensor:
    """(count, 3, height, width) uint8: noise."""
    return torch.from_numpy(pictures(count, height, width)).permute(0, 3, 1, 2).contiguous()


def pictures(count: int, height: int, width: int) -> Any:
    """(count, height, width, 3) uint8: noise."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
