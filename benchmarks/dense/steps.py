"""Images per second of a training step: pose and depth in our loop against a loop written by hand, epochs in turn."""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import Any, ClassVar

import torch
from sides.steps import InMemory, epochs_in_turns
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional

from tasks.backbones.spec import BackboneSpec
from tasks.base import Batch
from tasks.depth.task import Depth
from tasks.pose.task import Pose
from workers.optim_spec import OptimSpec
from workers.trial import TrialSpec

SIDE, BATCH, SIGMA = 64, 16, 1.0
BACKBONE = BackboneSpec.model_validate({
    "model": "swinv2_tiny_window8_256", "image_size": SIDE, "drop_path": 0,
    "args": {"patch_size": 4, "embed_dim": 32, "depths": [2, 2, 4], "num_heads": [2, 4, 8], "window_size": 4},
})  # fmt: skip
"""The model of the laptop profiles of specs/pose.yaml and specs/depth.yaml."""


class PoseInMemory(InMemory, Pose):
    steps: int
    batch: ClassVar[int] = BATCH

    def made_batches(self, steps: int) -> list[Batch]:
        return pose_batches(steps)


class DepthInMemory(InMemory, Depth):
    steps: int
    batch: ClassVar[int] = BATCH

    def made_batches(self, steps: int) -> list[Batch]:
        return depth_batches(steps)


class PoseTrial(TrialSpec):
    task: PoseInMemory  # type: ignore[assignment]


class DepthTrial(TrialSpec):
    task: DepthInMemory  # type: ignore[assignment]


def pose_batches(steps: int) -> list[Batch]:
    draw = torch.Generator().manual_seed(0)
    return [
        {
            "images": torch.randn(BATCH, 3, SIDE, SIDE, generator=draw),
            "joints": torch.rand(BATCH, 17, 2, generator=draw) * (SIDE - 1),
            "visible": (torch.rand(BATCH, 17, generator=draw) < 0.8).float(),
        }
        for _ in range(steps)
    ]


def depth_batches(steps: int) -> list[Batch]:
    draw = torch.Generator().manual_seed(0)
    found = []
    for _ in range(steps):
        depth = torch.rand(BATCH, 1, SIDE, SIDE, generator=draw) * 8 + 1
        depth[torch.rand(depth.shape, generator=draw) < 0.1] = 0
        found.append({"images": torch.rand(BATCH, 3, SIDE, SIDE, generator=draw), "depth": depth})
    return found


def with_heat_maps(batch: Batch) -> Batch:
    """What a loop written by hand makes of a batch first, as our loss does."""
    side = SIDE // 4
    places = batch["joints"] * (side - 1) / (SIDE - 1)
    middle, radius = (places + 0.5).trunc(), round(3 * SIGMA)
    steps = torch.arange(side, dtype=torch.float32)
    near = (steps - middle[..., None]).abs() <= radius
    bumps = torch.exp(-((steps - places[..., None]) ** 2) / (2 * SIGMA**2)) * near
    maps = bumps[:, :, 1, :, None] * bumps[:, :, 0, None, :] * batch["visible"][..., None, None]
    return {"images": batch["images"], "maps": maps, "weights": batch["visible"][..., None, None]}


def pose_loss(model: nn.Module, batch: Batch) -> Tensor:
    batch = with_heat_maps(batch)
    weights = batch["weights"]
    return functional.mse_loss(model(batch["images"]) * weights, batch["maps"] * weights)


def depth_loss(model: nn.Module, batch: Batch) -> Tensor:
    depth = batch["depth"]
    known = depth > 0
    off = torch.log(depth[known]) - torch.log(model(batch["images"])[known])
    return torch.sqrt((off**2).mean() - 0.5 * off.mean() ** 2)


class ByHand:
    """The same training in a loop written by hand: AdamW, a cosine a step, the loss read every step.

    `norm`: the norm of the gradient too, as the loop of SimMIM's public code does; ours needs it to notice a trial that
    diverges.
    """

    def __init__(self, kind: str, trial: Any, norm: bool = False) -> None:
        torch.manual_seed(trial.seed)
        self._loss = {"pose": pose_loss, "depth": depth_loss}[kind]
        steps = trial.task.steps
        self._batches = {"pose": pose_batches, "depth": depth_batches}[kind](steps)
        self.model = trial.task.build(trial.backbone, None)
        optim = trial.optim
        groups = param_groups_weight_decay(self.model, optim.weight_decay)
        self._optimizer = torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True)
        self._schedule = CosineLRScheduler(self._optimizer, t_initial=optim.epochs * steps, t_in_epochs=False)
        self._step, self._norm = 0, norm

    def first_loss(self) -> float:
        with torch.no_grad():
            return float(self._loss(self.model.train(), self._batches[0]))

    def epoch(self) -> float:
        """Seconds of an epoch, of the processor."""
        started, total, norms = time.process_time(), 0.0, 0.0
        self.model.train()
        for batch in self._batches:
            loss = self._loss(self.model, batch)
            self._optimizer.zero_grad()
            loss.backward()
            self._schedule.step_update(self._step)
            if self._norm:
                gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
                norms += float(torch.nn.utils.get_total_norm(gradients))
            self._optimizer.step()
            total += loss.item()
            self._step += 1
        return time.process_time() - started


def compare(kind: str, steps: int, epochs: int, norm: bool) -> dict[str, Any]:
    """Images/s of each loop (medians over epochs of `steps` batches), and the ratio of each pair of epochs. `norm`: see
    `ByHand`."""
    trial = _trial(kind, steps, epochs + 1)
    _same_loss(trial, ByHand(kind, trial))
    ours, plain = epochs_in_turns(trial, partial(ByHand, kind, trial, norm))
    ratios = [two / one for one, two in zip(ours, plain, strict=True)]
    told = ", both with the gradient's norm" if norm else ""
    return {
        "part": f"{kind} step", "what": f"images/s of training{told}", "norm": norm, "batch": BATCH,
        "steps": steps, "epochs": epochs,
        "clock": "processor time", "ours": steps * BATCH / statistics.median(ours),
        "by_hand": steps * BATCH / statistics.median(plain), "ratio": statistics.median(ratios), "ratios": ratios,
        "aim": "at least 1.0",
    }  # fmt: skip


def _trial(kind: str, steps: int, epochs: int) -> Any:
    optim = OptimSpec(lr=1e-3, layer_decay=1, epochs=epochs, warmup_epochs=0, batch=BATCH, clip=0)
    if kind == "pose":
        described = {"kind": "coco", "path": "in memory"}
        pose = PoseInMemory.model_validate({
            "dataset": described, "boxes": "ground_truth", "sigma": SIGMA, "steps": steps,
            "augment": {"grid_dropout": 0},
        })  # fmt: skip
        return PoseTrial(task=pose, backbone=BACKBONE, optim=optim)
    described = {"kind": "depth_pairs", "path": "in memory"}
    depth = DepthInMemory.model_validate({"dataset": described, "head_std": 0.05, "steps": steps})
    return DepthTrial(task=depth, backbone=BACKBONE, optim=optim)


def _same_loss(trial: Any, other: ByHand) -> None:
    """Stops where the two loops would not train on the same loss."""
    batch = next(trial.task.loaders(None).epoch(0))
    with torch.no_grad():
        ours = float(trial.task.loss(other.model.train(), batch)["loss"])
    plain = other.first_loss()
    if abs(ours - plain) > 1e-4 * abs(plain):
        raise SystemExit(f"the losses of the first batch differ: {ours:g}, by hand {plain:g}")
