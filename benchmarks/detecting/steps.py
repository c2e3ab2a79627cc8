"""Images per second of a training step: ours in the real loop, and torchvision's Mask R-CNN in a plain one."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any, ClassVar

import torch
from sides.steps import InMemory, PlainLoop, in_turns_with_the_loop
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from tasks.backbones.spec import BackboneSpec
from tasks.base import Batch
from tasks.detection.model import Detector
from tasks.detection.pyramid import Pyramid
from tasks.detection.task import Detection
from workers.trial import TrialSpec

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


class DetectionInMemory(InMemory, Detection):
    steps: int
    batch: ClassVar[int] = BATCH

    def made_batches(self, steps: int) -> list[Batch]:
        return batches(steps)


class Trial(TrialSpec):
    task: DetectionInMemory  # type: ignore[assignment]


class _Body(nn.Module):
    def __init__(self, pyramid: Pyramid) -> None:
        super().__init__()
        self.pyramid, self.out_channels = pyramid, pyramid.out_channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(self.pyramid(images))


def torchvisions(trial: Trial) -> MaskRCNN:
    """torchvision's model over the same pyramid, without its resizing of images to 800 pixels."""
    model = trial.task.build(trial.backbone, None)
    assert isinstance(model, Detector)
    strides = (4, 8, 16, 32)
    return MaskRCNN(
        _Body(model.pyramid), None, min_size=SIDE, max_size=SIDE, image_mean=[0.0] * 3, image_std=[1.0] * 3,
        rpn_anchor_generator=AnchorGenerator(tuple((4.0 * s,) for s in strides), ((0.5, 1.0, 2.0),) * 4),
        rpn_pre_nms_top_n_train=200, rpn_post_nms_top_n_train=100, rpn_batch_size_per_image=64,
        box_batch_size_per_image=64, box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 7, 2),
        mask_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 14, 2), box_head=TwoMLPHead(64 * 49, 256),
        box_predictor=FastRCNNPredictor(256, CLASSES + 1), mask_head=MaskRCNNHeads(64, (32,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(32, 32, CLASSES + 1),
    ).train()  # fmt: skip


def plain_loop(trial: Trial) -> PlainLoop:
    model = torchvisions(trial)

    def loss(batch: Batch) -> Tensor:
        return torch.stack(list(model(list(batch["images"]), batch["targets"]).values())).sum()

    return PlainLoop(model, batches(trial.task.steps), loss, trial.optim.lr)


def compare(steps: int, rounds: int) -> dict[str, Any]:
    """Epochs of `steps` batches in turns."""
    task = {"kind": "detection", "dataset": "scene-objects", "detector": DETECTOR, "steps": steps}
    optim = {"lr": 1e-4, "batch": BATCH, "epochs": rounds + 1, "warmup_epochs": 0, "clip": 0}
    trial = Trial.model_validate({"task": task, "backbone": BACKBONE.model_dump(), "optim": optim})
    peer = "torchvision in a plain loop"
    made = in_turns_with_the_loop("step", trial, peer, partial(plain_loop, trial), steps * BATCH)
    return {**made, "batch": BATCH, "steps": steps}
