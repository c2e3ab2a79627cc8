"""Trials on drawn data: the project's tasks, models and loop, with loaders over arrays that numpy makes."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from tasks.backbones.frozen import train_mode
from tasks.backbones.spec import BackboneSpec
from tasks.base import Batch, DataContext, Loaders
from tasks.classification.task import Classify
from tasks.datasets import find_dataset
from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.datasets.labelled.loaders import ImageInput, LabelledImages, labelled_loaders, mixing
from tasks.datasets.labelled.parts import LabelledPart
from tasks.metrics import Summary
from tasks.pretraining.masks import Masks
from tasks.pretraining.task import Pretrain
from workers import distributed
from workers.checkpoint import Folder, load_weights
from workers.gradients import gradients
from workers.messages import Outcome, Report
from workers.optim import set_lr
from workers.optim_spec import OptimSpec
from workers.prepare import prepare
from workers.rounds import batches_from
from workers.state import RankContext
from workers.train import train
from workers.trial import RuntimeSpec, TrialSpec

MOST_BYTES = 2**55
"""More than any machine has."""


@dataclass(frozen=True)
class Bench:
    """Where the checks run, and in which size."""

    device: str
    """As torch names it: cpu, cuda:0."""
    small: bool
    folder: Path
    threads: int

    @property
    def on_cuda(self) -> bool:
        return self.device.startswith("cuda")


@lru_cache(2)
def waves(images: int, side: int) -> NDArray[np.uint8]:
    """(images, side, side, 3): five plane waves of low frequency in each channel, which a model can learn to extend."""
    draw = np.random.default_rng(0)
    at = np.arange(side, dtype=np.float32) / side
    total = np.zeros((images, side, side, 3), dtype=np.float32)
    for _ in range(5):
        across, down, phase = draw.uniform(-6, 6, (3, images, 1, 1, 3)).astype(np.float32)
        total += np.cos(across * at[None, None, :, None] * 2 + down * at[None, :, None, None] * 2 + phase * 2)
    return (127.5 + 25 * total).clip(0, 255).astype(np.uint8)


@lru_cache(2)
def noise(images: int, side: int) -> NDArray[np.uint8]:
    """(images, side, side, 3), every value by itself: as much work as photographs, and quickly drawn."""
    return np.random.default_rng(0).integers(0, 256, (images, side, side, 3), dtype=np.uint8)


class DrawnPretrain(Pretrain):
    """SimMIM on drawn images that lie on the device."""

    dataset: str = "imagenet"
    images: int
    side: int
    """Of the images before the crop, in pixels."""
    held_out: int = 16
    fits: int | None = None
    """Images in one forward pass; of more the loss asks for memory that no machine has."""
    plain_noise: bool = False
    """Images without structure, which are quickly drawn."""
    measured: bool = True
    """False: nothing is measured on held-out images and no picture is made."""
    nudge: float = 0.0
    """Relative size of a random change of the initial weights; 6e-8 is one rounding of fp32."""

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        model = super().build(backbone, weights)
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters() if self.nudge else ():
                parameter.mul_(1 + self.nudge * torch.randn(parameter.shape, generator=draw))
        return model

    def loaders(self, context: DataContext) -> Loaders:
        pixels = (noise if self.plain_noise else waves)(self.images + self.held_out, self.side)
        labels = np.zeros(len(pixels), dtype=np.int64)
        train, held_out = (
            LabelledPart(pixels[part], labels[part]) for part in (slice(self.images), slice(self.images, None))
        )
        images = LabelledImages("drawn", context.root, train, held_out, small=True)
        masks = Masks(self.masking(context.image_size), context)
        return labelled_loaders(images, ImageInput(self.augment.whole(), self.normalize), context, masks)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        if self.fits is not None and len(batch["images"]) > self.fits:
            torch.empty(MOST_BYTES, dtype=torch.uint8, device=batch["images"].device)
        return super().loss(model, batch)

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        return super().measure(model, batches) if self.measured else iter(())

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        return super().summarize(parts) if self.measured else Summary({"loss": 0.0})

    def pictures(self, model: nn.Module, loaders: Loaders) -> dict[str, NDArray[np.uint8]]:
        return super().pictures(model, loaders) if self.measured else {}


class DrawnClassify(Classify):
    """Classification of drawn images, augmented by worker processes; nothing is measured on held-out ones."""

    images: int
    side: int
    """Of the images before the crop, in pixels."""

    def loaders(self, context: DataContext) -> Loaders:
        pixels, classes = noise(self.images, self.side), find_dataset(self.dataset, LabelledDataset).classes
        labels = np.arange(self.images) % classes
        images = LabelledImages(
            "drawn", context.root, LabelledPart(pixels, labels), LabelledPart(pixels[:2], labels[:2])
        )
        how = ImageInput(self.augment, self.normalize)
        return labelled_loaders(images, how, context, mixing(classes, self.augment, context))

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        return iter(())

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        return Summary({self.metric: 0.0})


class DrawnTrial(TrialSpec):
    """A trial of one of these tasks."""

    task: Annotated[DrawnPretrain | DrawnClassify, Field(discriminator="kind")]  # type: ignore[assignment]


@dataclass(frozen=True)
class Ended:
    """What a trial ended with."""

    outcome: Outcome
    reports: list[Report]
    weights: dict[str, torch.Tensor]
    """On the CPU; empty where they were not asked for."""


def carry_out(trial: TrialSpec, bench: Bench, keep_weights: bool = True) -> Ended:
    """Runs a trial from its beginning in the project's loop, in this process."""
    free(bench)
    folder = bench.folder / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    reports: list[Report] = []
    outcome = train(trial, place_of(bench, folder, keep_weights), reports.append, never)
    return Ended(outcome, reports, load_weights(outcome.weights) if outcome.weights else {})


class Steps:
    """The optimizer steps of a trial from its beginning, one by one as the project's loop makes them: no evaluation, no
    report, no checkpoint, and nothing that waits for the device."""

    def __init__(self, trial: TrialSpec, bench: Bench) -> None:
        free(bench)
        folder = bench.folder / "steps"
        shutil.rmtree(folder, ignore_errors=True)
        self.run = prepare(trial, place_of(bench, folder), Folder(folder, trial.key, 0))
        train_mode(self.run.model, self.run.wrapped.train)
        self._batches = batches_from(self.run.loaders, 0)
        self.batch: Batch = {}
        """The last one."""

    def make(self, count: int) -> torch.Tensor:
        """So many steps; (count,) their losses, on the device."""
        losses = []
        for _ in range(count):
            self.batch = next(self._batches)
            set_lr(self.run.optimizer, self.run.schedule, self.run.progress.step)
            losses.append(gradients(self.run, self.batch)["loss"].detach().reshape(()))
            distributed.clip(self.run.parameters, self.run.trial.optim.clip)
            self.run.optimizer.step()
            self.run.progress.step += 1
        return torch.stack(losses)

    def seconds(self, count: int) -> float:
        """Of so many steps, with what the device still does when the last one is given to it."""
        _wait(self.run.numerics.device)
        began = time.perf_counter()
        self.make(count)
        _wait(self.run.numerics.device)
        return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free(bench: Bench) -> None:
    """Gives back the memory of what is not used any more, so that the next peak is that of the next trial."""
    gc.collect()
    if bench.on_cuda:
        torch.cuda.empty_cache()


def place_of(bench: Bench, folder: Path, keep_weights: bool = True) -> RankContext:
    return RankContext(
        folder=folder, data_root=bench.folder, device=bench.device, threads=bench.threads, keep_weights=keep_weights
    )


never: Callable[[], bool] = lambda: False  # noqa: E731 (nobody asks these trials to stop)


def runtime(**more: Any) -> RuntimeSpec:
    """No checkpoint unless it is asked for."""
    return RuntimeSpec(**{"checkpoint_epochs": 10**6, "checkpoint_minutes": 10**6, **more})


def swin(bench: Bench, epochs: int = 1, **more: Any) -> DrawnTrial:
    """SimMIM with a small SwinV2, ten steps an epoch, in fp32.

    `more`: of the runtime; or batch, micro_batch, drop_path, and the task's `fits`, `measured`, `plain_noise`, `nudge`.
    """
    small = bench.small
    task = {name: more.pop(name) for name in ("fits", "measured", "plain_noise", "nudge") if name in more}
    batch = more.pop("batch", 16 if small else 64)
    args: dict[str, Any] = {"patch_size": 4, "embed_dim": 96, "window_size": 6}
    args |= {"depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]}
    if small:
        args |= {"embed_dim": 16, "window_size": 4, "depths": [1, 1], "num_heads": [1, 2]}
    side = 32 if small else 96
    return DrawnTrial(
        task=DrawnPretrain(images=10 * batch, side=side, mask_patch=side // 4, **task),
        backbone=BackboneSpec(
            model="swinv2_tiny_window8_256", image_size=side, args=args, drop_path=more.pop("drop_path", 0.0)
        ),
        optim=OptimSpec(
            lr=4e-3 if small else 1e-3, epochs=epochs, warmup_epochs=0.5, batch=batch,
            micro_batch=more.pop("micro_batch", None),
            no_decay="simmim_swin_pretrain",
        ),
        runtime=runtime(**{"precision": "fp32", "evaluate_every": epochs, **more}),
    )  # fmt: skip


def quickly_compiled(bench: Bench, epochs: int = 1) -> DrawnTrial:
    """Three blocks of SwinV2, in small two of a ViT, with drop path: the first block has none and is of a kind of its
    own, the others share their graphs. Nothing is measured: it would be compiled once more for that."""
    trial = swin(bench, epochs, measured=False, drop_path=0.2)
    args = {**trial.backbone.args, "depths": [1, 2], "num_heads": [3, 6], "window_size": 12}
    backbone = trial.backbone.model_copy(update={"args": args})
    if bench.small:
        args = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
        side = trial.backbone.image_size
        backbone = BackboneSpec(model="vit_tiny_patch16_224", image_size=side, args=args, drop_path=0.2)
    return trial.model_copy(update={"backbone": backbone})
