"""Images per second of a training step: ours in the real loop, and torchvision's Mask R-CNN in a plain one."""

from __future__ import annotations

import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign

from tasks.backbones.spec import BackboneSpec
from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare, Loaders
from tasks.detection.model import Detector
from tasks.detection.pyramid import Pyramid
from tasks.detection.task import Detection
from tasks.metrics import Metric, Summary
from workers.messages import Report
from workers.state import RankContext
from workers.train import train
from workers.trial import TrialSpec

from .turns import row

SIDE, BATCH, CLASSES = 96, 8, 3
DETECTOR = {
    "channels": 64, "anchor_scale": 4, "anchors": 64, "proposals_per_level": 200, "proposals": 100, "regions": 64,
    "box_channels": 256, "mask_channels": 32,
}  # fmt: skip
BACKBONE = BackboneSpec.model_validate({
    "model": "swinv2_tiny_window8_256", "image_size": SIDE, "drop_path": 0,
    "args": {"patch_size": 4, "embed_dim": 32, "depths": [2, 2, 4], "num_heads": [2, 4, 8], "window_size": 6},
})  # fmt: skip
"""The laptop profile of specs/detection.yaml."""
CLOCK: list[float] = []
"""When our loop asked for an epoch's data, in processor time."""


def batches(steps: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for step in range(steps):
        targets = []
        for _ in range(BATCH):
            corners = (torch.rand(3, 2, generator=generator) * 60).round()
            boxes = torch.cat([corners, corners + 8 + (torch.rand(3, 2, generator=generator) * 24).round()], 1)
            masks = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
            for each, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
                each[top:bottom, left:right] = 1
            targets.append({"boxes": boxes, "labels": torch.tensor([1, 2, 3]), "masks": masks})
        images = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator)
        seeds = list(range(step * BATCH, (step + 1) * BATCH))
        made.append({"images": images, "sizes": [(SIDE, SIDE)] * BATCH, "targets": targets, "seeds": seeds})
    return made


class Ready(Loaders):
    """Batches that lie ready in memory; there is nothing to evaluate."""

    def __init__(self, made: list[Batch]) -> None:
        self._batches = made
        self.steps_per_epoch, self.train_samples, self.digest = len(made), len(made) * BATCH, ""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        CLOCK.append(time.process_time())
        return iter(self._batches[first_step:])

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        return []


class InMemory(Detection):
    steps: int
    metrics = property(lambda self: (Metric("none", "nothing", "higher"),))  # type: ignore[assignment]
    measured_figures = property(lambda self: {})  # type: ignore[assignment]
    train_samples = property(lambda self: self.steps * BATCH)  # type: ignore[assignment]
    evaluation_samples = property(lambda self: 0)  # type: ignore[assignment]

    def missing_data(self, root: Path) -> str | None:
        return None

    def loaders(self, context: DataContext) -> Loaders:
        return Ready(batches(self.steps))

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        yield from ()

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        return Summary({"none": 0.0})

    def pictures(self, model: nn.Module, loaders: Loaders) -> dict[str, Any]:
        return {}


class Trial(TrialSpec):
    task: InMemory  # type: ignore[assignment]


class _Body(nn.Module):
    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        self.pyramid, self.out_channels = pyramid, pyramid.out_channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(self.pyramid(images))


class Plain:
    """torchvision's model, without its resizing of images to 800 pixels, in a loop as its references have it."""

    def __init__(self, trial: Trial) -> None:
        model = trial.task.build(trial.backbone, None)
        assert isinstance(model, Detector)
        self._batches = batches(trial.task.steps)
        strides = (4, 8, 16, 32)
        self.model = MaskRCNN(
            _Body(model.pyramid), None, min_size=SIDE, max_size=SIDE, image_mean=[0.0] * 3, image_std=[1.0] * 3,
            rpn_anchor_generator=AnchorGenerator(tuple((4.0 * s,) for s in strides), ((0.5, 1.0, 2.0),) * 4),
            rpn_pre_nms_top_n_train=200, rpn_post_nms_top_n_train=100, rpn_batch_size_per_image=64,
            box_batch_size_per_image=64, box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 7, 2),
            mask_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 14, 2), box_head=TwoMLPHead(64 * 49, 256),
            box_predictor=_predictor(model.roi_heads), mask_head=MaskRCNNHeads(64, (32,) * 4, 1),
            mask_predictor=MaskRCNNPredictor(32, 32, CLASSES + 1),
        ).train()  # fmt: skip
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=trial.optim.lr, fused=True)

    def epoch(self) -> float:
        """Seconds, of the processor."""
        started = time.process_time()
        for batch in self._batches:
            terms = self.model(list(batch["images"]), batch["targets"])
            loss = torch.stack(list(terms.values())).sum()
            loss.item()  # the references reduce and look at it in every step
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        return time.process_time() - started


def _predictor(heads: RoIHeads) -> nn.Module:
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

    return FastRCNNPredictor(heads.box_head.fc7.out_features, CLASSES + 1)


def compare(steps: int, rounds: int) -> dict[str, Any]:
    """Epochs of `steps` batches in turns."""
    task = {"kind": "detection", "dataset": "scene-objects", "detector": DETECTOR, "steps": steps}
    optim = {"lr": 1e-4, "batch": BATCH, "epochs": rounds + 1, "warmup_epochs": 0, "clip": 0}
    trial = Trial.model_validate({"task": task, "backbone": BACKBONE.model_dump(), "optim": optim})
    other = Plain(trial)
    seconds: dict[str, list[float]] = {"ours": [], "torchvision in a plain loop": []}

    def take_turns(report: Report) -> None:
        seconds["ours"].append(time.process_time() - CLOCK[-1])
        seconds["torchvision in a plain loop"].append(other.epoch())

    with tempfile.TemporaryDirectory() as folder:
        place = RankContext(folder=Path(folder), data_root=Path(folder), device="cpu", threads=1)
        train(trial, place, take_turns, lambda: False)
    later = {name: times[1:] for name, times in seconds.items()}  # the first epoch warms up
    made = row("step", "images/s of training", later, steps * BATCH, "at least 1.0")
    return {**made, "batch": BATCH, "steps": steps}
