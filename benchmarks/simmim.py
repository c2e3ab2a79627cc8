"""A SimMIM step in our loop against a plain loop around the reference's formulas: same timm model, data in memory.

    python benchmarks/simmim.py                          SwinV2-B, 192 pixels, batch 2, CPU: 3 to 6 minutes
    python benchmarks/simmim.py --model swinv2_large_window12_192 --batch 2

`plain` is what one writes by hand: the mask token put in with x (1 - w) + token w, the target normalised in a window of
47 x 47 pixels with average pooling, l1 on hidden pixels, AdamW, gradient clip, steps, the loss read every step. The two
take turns, an epoch of a few steps each, in one process; a ratio is of neighbours in time, so that a machine that slows
down meanwhile slows both. Reach: 1.0 on the CPU; on a GPU benchmarks/gpu.py measures.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from gpu.plain import SimMIM
from torch import nn

from tasks.backbones.model import build
from tasks.backbones.spec import BackboneSpec
from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare, Loaders
from tasks.metrics import Summary
from tasks.pretraining.masking import Masking
from tasks.pretraining.task import Pretrain
from workers.messages import Report
from workers.optim_spec import OptimSpec
from workers.state import RankContext
from workers.train import train
from workers.trial import RuntimeSpec, TrialSpec

SIDE, MASK_PATCH = 192, 32
CLOCK: list[float] = []
"""When our loop asked for an epoch's data."""


def data(steps: int, batch: int) -> list[Batch]:
    draw = torch.Generator().manual_seed(0)
    masking = Masking(SIDE, MASK_PATCH, 0.6)
    return [
        {
            "images": torch.randn(batch, 3, SIDE, SIDE, generator=draw),
            "masks": torch.stack([torch.from_numpy(masking.of(step * batch + i)) for i in range(batch)]),
        }
        for step in range(steps)
    ]


class Ready(Loaders):
    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches
        self.steps_per_epoch = len(batches)
        self.train_samples = sum(len(batch["images"]) for batch in batches)
        self.digest = ""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        CLOCK.append(time.perf_counter())
        return iter(self._batches[first_step:])

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        return []


class InMemory(Pretrain):
    """Random images that lie ready; evaluation costs nothing."""

    steps: int

    def loaders(self, place: DataContext) -> Loaders:
        return Ready(data(self.steps, place.batch))

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        yield from ()

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        return Summary({"loss": 0.0})

    def pictures(self, model: nn.Module, loaders: Loaders) -> dict[str, Any]:
        return {}


class InMemoryTrial(TrialSpec):
    task: InMemory  # type: ignore[assignment]


class ByHand:
    """The same training in a loop written by hand."""

    def __init__(self, trial: InMemoryTrial) -> None:
        torch.manual_seed(trial.seed)
        self._optim = trial.optim
        self._batches = data(trial.task.steps, trial.optim.batch)
        self._model = SimMIM(build(trial.backbone, 0), MASK_PATCH)
        flat, others = [], []
        for name, parameter in self._model.named_parameters():
            plain = parameter.ndim == 1 or name.endswith(".bias") or name == "mask_token"
            (flat if plain else others).append(parameter)
        groups = [{"params": flat, "weight_decay": 0.0}, {"params": others, "weight_decay": trial.optim.weight_decay}]
        self._optimizer = torch.optim.AdamW(groups, lr=trial.optim.lr, betas=trial.optim.betas, fused=False)
        self.losses: list[float] = []

    def epoch(self) -> float:
        """Seconds of an epoch."""
        started = time.perf_counter()
        self._model.train()
        for batch in self._batches:
            loss = self._model(batch["images"], batch["masks"])
            self._optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._optim.clip)
            self._optimizer.step()
            self.losses.append(loss.item())
        return time.perf_counter() - started


def trial_of(model: str, batch: int, steps: int, epochs: int, **runtime: Any) -> InMemoryTrial:
    return InMemoryTrial(
        task=InMemory(dataset="imagenet", mask_patch=MASK_PATCH, steps=steps),
        backbone=BackboneSpec(model=model, image_size=SIDE, drop_path=0.1),
        optim=OptimSpec(
            lr=4e-4, epochs=epochs, warmup_epochs=0, schedule="step", step_epochs=(epochs - 0.5,), batch=batch,
            no_decay="simmim_swin_pretrain",
        ),
        runtime=RuntimeSpec(checkpoint_epochs=10**6, checkpoint_minutes=10**6, **runtime),
    )  # fmt: skip


def compare(trial: InMemoryTrial, threads: int) -> None:
    """Prints images/s of both, and the ratio."""
    torch.set_num_threads(threads)
    plain = ByHand(trial)
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    losses: list[float] = []

    def take_turns(report: Report) -> None:
        seconds["ours"].append(time.perf_counter() - CLOCK[-1])
        losses.append(report.values["train_loss"])
        seconds["plain"].append(plain.epoch())

    with tempfile.TemporaryDirectory() as folder:
        place = RankContext(folder=Path(folder), data_root=Path(folder), threads=threads)
        train(trial, place, take_turns, lambda: False)
    steps, batch = trial.task.steps, trial.optim.batch
    last = statistics.mean(plain.losses[-steps:])
    print(f"{trial.backbone.model}, batch {batch}, {threads} thread(s); {trial.optim.epochs - 1} epochs each")
    print(f"  loss in the last: ours {losses[-1]:.3f}, plain {last:.3f} (their random numbers differ)")
    for loop, times in seconds.items():
        del times[0]  # warming up
        middle = statistics.median(times)
        print(f"  {loop:6} {steps * batch / middle:9.3f} images/s {middle / steps:9.3f} s a step")
    ratios = [theirs / mine for mine, theirs in zip(seconds["ours"], seconds["plain"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"  ours / plain: median {middle:.3f}, quartiles {low:.3f} to {high:.3f}; to reach: 1.0")
    print(f"  load at the end {os.getloadavg()[0]:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="swinv2_base_window12_192")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="an epoch")
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    print(f"torch {torch.__version__}, timm {timm.__version__}, {platform.processor() or platform.machine()}")
    compare(trial_of(given.model, given.batch, given.steps, given.epochs), given.threads)


if __name__ == "__main__":
    main()
