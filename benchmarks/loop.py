"""The loop against a plain PyTorch loop: same model, batch, threads, data in memory; images per second, in one run.

    python benchmarks/loop.py                      about two minutes on 2 cores
    python benchmarks/loop.py --threads 2 --epochs 60

`plain` is what one writes by hand for the same training: timm's layer decay groups, AdamW, cosine per step, gradient
clip, the loss read every step. `bare` leaves out clip, schedule and reading the loss. The three take turns, an epoch
each, in one process; a ratio is of neighbours in time, so that a machine that slows down meanwhile slows both.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.nn import functional

from tasks.backbones.model import build
from tasks.backbones.spec import BackboneSpec
from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare, Loaders, Task
from tasks.metrics import Metric, Summary
from workers.messages import Report
from workers.optim_spec import OptimSpec
from workers.state import RankContext
from workers.train import train
from workers.trial import TrialSpec

CLASSES = 10
MODELS: dict[str, dict[str, Any]] = {
    "ViT 64 x 4, 16 px": {"image_size": 16, "args": {"patch_size": 4, "embed_dim": 64, "depth": 4, "num_heads": 4}},
    "ViT 96 x 6, 32 px": {"image_size": 32, "args": {"patch_size": 4, "embed_dim": 96, "depth": 6, "num_heads": 3}},
}


class InMemory(Task):
    """Random images that lie ready on the device; evaluation costs nothing."""

    kind: str = "in_memory"
    images: int
    metrics = property(lambda self: (Metric("none", "nothing", "higher"),))  # type: ignore[assignment]
    reads_test = property(lambda self: False)  # type: ignore[assignment]
    train_samples = property(lambda self: self.images)  # type: ignore[assignment]
    evaluation_samples = property(lambda self: 0)  # type: ignore[assignment]

    def missing_data(self, root: Path) -> str | None:
        return None

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        return build(backbone, CLASSES)

    def loaders(self, place: DataContext) -> Loaders:
        return Ready(data(self.images, place.batch, place.image_size, place.device))

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        return {"loss": functional.cross_entropy(model(batch["images"]), batch["labels"])}

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        yield from ()

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        return Summary({"none": 0.0})


class Ready(Loaders):
    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches
        self.steps_per_epoch = len(batches)
        self.train_samples = sum(len(batch["labels"]) for batch in batches)
        self.digest = ""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        CLOCK.append(time.perf_counter())
        return iter(self._batches[first_step:])

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        return []


CLOCK: list[float] = []
"""When our loop asked for an epoch's data."""


class InMemoryTrial(TrialSpec):
    task: InMemory  # type: ignore[assignment]


def data(images: int, batch: int, size: int, device: str) -> list[Batch]:
    draw = torch.Generator().manual_seed(0)
    return [
        {
            "images": torch.randn(batch, 3, size, size, generator=draw).to(device),
            "labels": torch.randint(0, CLASSES, (batch,), generator=draw).to(device),
        }
        for _ in range(images // batch)
    ]


class ByHand:
    """The same training in a loop written by hand."""

    def __init__(self, trial: InMemoryTrial, device: str, bare: bool) -> None:
        torch.manual_seed(trial.seed)
        self._optim, self._device, self._bare, self._step = trial.optim, device, bare, 0
        self._on_cuda = torch.device(device).type == "cuda"
        self._batches = data(trial.task.images, trial.optim.batch, trial.backbone.image_size, device)
        self._model: Any = build(trial.backbone, CLASSES).to(device)
        if self._on_cuda:
            self._model = self._model.to(memory_format=torch.channels_last)
        optim = trial.optim
        groups = param_groups_layer_decay(
            self._model, optim.weight_decay, self._model.no_weight_decay(), layer_decay=optim.layer_decay
        )
        self._optimizer = torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=True)
        self._schedule = CosineLRScheduler(
            self._optimizer, t_initial=optim.epochs * len(self._batches), lr_min=optim.min_lr,
            warmup_t=len(self._batches), warmup_lr_init=optim.warmup_lr, t_in_epochs=False,
        )  # fmt: skip

    def epoch(self) -> float:
        """Seconds of an epoch."""
        started, total = time.perf_counter(), 0.0
        self._model.train()
        for batch in self._batches:
            images = batch["images"]
            if self._on_cuda:
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(torch.device(self._device).type, torch.bfloat16, enabled=self._on_cuda):
                loss = functional.cross_entropy(self._model(images), batch["labels"])
            self._optimizer.zero_grad()
            loss.backward()
            if not self._bare:
                torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._optim.clip)
                self._schedule.step_update(self._step)
            self._optimizer.step()
            if not self._bare:
                total += loss.item()
            self._step += 1
        if self._on_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started


def compare(name: str, trial: InMemoryTrial, device: str, threads: int) -> None:
    torch.set_num_threads(threads)
    others = {"plain": ByHand(trial, device, bare=False), "bare": ByHand(trial, device, bare=True)}
    seconds: dict[str, list[float]] = {"ours": [], **{other: [] for other in others}}

    def take_turns(report: Report) -> None:
        seconds["ours"].append(time.perf_counter() - CLOCK[-1])
        for other in list(others)[:: 1 if report.epoch % 2 else -1]:
            seconds[other].append(others[other].epoch())

    with tempfile.TemporaryDirectory() as folder:
        place = RankContext(folder=Path(folder), data_root=Path(folder), device=device, threads=threads)
        train(trial, place, take_turns, lambda: False)
    images = trial.task.images
    print(f"{name}, batch {trial.optim.batch}, {threads} thread(s), {device}; {trial.optim.epochs - 1} epochs each")
    for loop, times in seconds.items():
        del times[0]  # warming up
        middle = statistics.median(times)
        step = 1e3 * middle * trial.optim.batch / images
        print(f"  {loop:6} {images / middle:9.0f} images/s {step:9.3f} ms a step")
    for other in others:
        ratios = [theirs / mine for mine, theirs in zip(seconds["ours"], seconds[other], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        goal = "; to reach: 0.95" if other == "plain" else ""
        print(f"  ours / {other}: median {middle:.3f}, quartiles {low:.3f} to {high:.3f}{goal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="as torch names it: cpu, cuda:0")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="an epoch")
    parser.add_argument("--epochs", type=int, default=21)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, timm {timm.__version__}, {platform.processor() or platform.machine()}")
    for name, backbone in MODELS.items():
        trial = InMemoryTrial(
            task=InMemory(images=options.steps * options.batch),
            backbone=BackboneSpec(model="vit_tiny_patch16_224", drop_path=0.1, **backbone),
            optim=OptimSpec(lr=1e-3, layer_decay=0.75, epochs=options.epochs, warmup_epochs=1, batch=options.batch),
        )
        compare(name, trial, options.device, options.threads)


if __name__ == "__main__":
    main()
