"""A SimMIM step in our loop against a plain loop around the reference's formulas: same timm model, data in memory.

    python benchmarks/simmim.py                          SwinV2-B, 192 pixels, batch 2, CPU: 3 to 6 minutes
    python benchmarks/simmim.py --model swinv2_large_window12_192 --batch 2
    python benchmarks/simmim.py --device cuda --batch 128          and MFU, peak memory; then the combinations of
                                                         compile, channels-last and bfloat16 for SwinV2-B and -L

`plain` is what one writes by hand: the mask token put in with x (1 - w) + token w, the target normalised in a window of
47 x 47 pixels with average pooling, l1 on hidden pixels, AdamW, gradient clip, steps, the loss read every step. The two
take turns, an epoch of a few steps each, in one process; a ratio is of neighbours in time, so that a machine that slows
down meanwhile slows both. Reach: 1.0 on the CPU.
"""

from __future__ import annotations

import argparse
import itertools
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
from torch import Tensor, nn
from torch.nn import functional

from tasks.backbones.model import build
from tasks.backbones.spec import BackboneSpec
from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare, Loaders
from tasks.metrics import Summary
from tasks.pretraining.masking import Masking
from tasks.pretraining.task import Pretrain
from workers.messages import Report
from workers.state import RankContext
from workers.throughput import flops_per_image, peak_flops
from workers.train import train
from workers.trial import OptimSpec, RuntimeSpec, TrialSpec

SIDE, MASK_PATCH, STRIDE, TOKEN, WINDOW = 192, 32, 32, 4, 47
LOADS = ("swinv2_base_window12_192", "swinv2_large_window12_192")
CLOCK: list[float] = []
"""When our loop asked for an epoch's data."""


def data(steps: int, batch: int, device: str) -> list[Batch]:
    draw = torch.Generator().manual_seed(0)
    masking = Masking(SIDE, MASK_PATCH, 0.6)
    return [
        {
            "images": torch.randn(batch, 3, SIDE, SIDE, generator=draw).to(device),
            "masks": torch.stack([torch.from_numpy(masking.of(step * batch + i)) for i in range(batch)]).to(device),
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
    """Random images that lie ready on the device; evaluation costs nothing."""

    steps: int

    def loaders(self, place: DataContext) -> Loaders:
        return Ready(data(self.steps, place.batch, place.device))

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        yield from ()

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        return Summary({"loss": 0.0})

    def pictures(self, model: nn.Module, loaders: Loaders) -> dict[str, Any]:
        return {}


class InMemoryTrial(TrialSpec):
    task: InMemory  # type: ignore[assignment]


class Reference(nn.Module):
    """SimMIM around a timm SwinV2, from the formulas of the public code."""

    def __init__(self, backbone: BackboneSpec) -> None:
        super().__init__()
        self.encoder: Any = build(backbone, 0)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.encoder.patch_embed.proj.out_channels))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.decoder = nn.Sequential(nn.Conv2d(self.encoder.num_features, STRIDE**2 * 3, 1), nn.PixelShuffle(STRIDE))

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        tokens = self.encoder.patch_embed(images)
        n, h, w, c = tokens.shape
        weight = masks.repeat_interleave(MASK_PATCH // TOKEN, 1).repeat_interleave(MASK_PATCH // TOKEN, 2)
        weight = weight.reshape(n, h, w, 1).to(tokens.dtype)
        tokens = tokens * (1 - weight) + self.mask_token.expand(n, h * w, c).reshape(n, h, w, c) * weight
        said = self.decoder(self.encoder.norm(self.encoder.layers(tokens)).permute(0, 3, 1, 2))
        hidden = masks.repeat_interleave(MASK_PATCH, 1).repeat_interleave(MASK_PATCH, 2).unsqueeze(1)
        error = (normed(images) - said).abs() * hidden
        return error.sum() / (hidden.sum() + 1e-5) / 3


def normed(images: Tensor) -> Tensor:
    """Every pixel by mean and unbiased variance of the window around it."""
    pool = {"kernel_size": WINDOW, "stride": 1, "padding": WINDOW // 2}
    mean = functional.avg_pool2d(images, count_include_pad=False, **pool)
    square = functional.avg_pool2d(images**2, count_include_pad=False, **pool)
    count = functional.avg_pool2d(torch.ones_like(images), count_include_pad=True, **pool) * WINDOW**2
    variance = ((square - mean**2) * (count / (count - 1))).clamp(min=0)
    return (images - mean) / (variance + 1e-6) ** 0.5


class ByHand:
    """The same training in a loop written by hand."""

    def __init__(self, trial: InMemoryTrial, device: str) -> None:
        torch.manual_seed(trial.seed)
        self._optim, self._device, self._on_cuda = trial.optim, device, device.startswith("cuda")
        self._batches = data(trial.task.steps, trial.optim.batch, device)
        self._model = Reference(trial.backbone).to(device)
        flat, others = [], []
        for name, parameter in self._model.named_parameters():
            plain = parameter.ndim == 1 or name.endswith(".bias") or name == "mask_token"
            (flat if plain else others).append(parameter)
        groups = [{"params": flat, "weight_decay": 0.0}, {"params": others, "weight_decay": trial.optim.weight_decay}]
        self._optimizer = torch.optim.AdamW(groups, lr=trial.optim.lr, betas=trial.optim.betas, fused=self._on_cuda)
        self.losses: list[float] = []

    def epoch(self) -> float:
        """Seconds of an epoch."""
        started = time.perf_counter()
        self._model.train()
        for batch in self._batches:
            with torch.autocast("cuda" if self._on_cuda else "cpu", torch.bfloat16, enabled=self._on_cuda):
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


def compare(trial: InMemoryTrial, device: str, threads: int) -> None:
    """Prints images/s of both, and the ratio."""
    torch.set_num_threads(threads)
    plain = ByHand(trial, device)
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    losses: list[float] = []

    def take_turns(report: Report) -> None:
        seconds["ours"].append(time.perf_counter() - CLOCK[-1])
        losses.append(report.values["train_loss"])
        seconds["plain"].append(plain.epoch())

    with tempfile.TemporaryDirectory() as folder:
        place = RankContext(folder=Path(folder), data_root=Path(folder), device=device, threads=threads)
        train(trial, place, take_turns, lambda: False)
    steps, batch = trial.task.steps, trial.optim.batch
    last = statistics.mean(plain.losses[-steps:])
    print(f"{trial.backbone.model}, batch {batch}, {threads} thread(s), {device}; {trial.optim.epochs - 1} epochs each")
    print(f"  loss in the last: ours {losses[-1]:.3f}, plain {last:.3f} (their random numbers differ)")
    for loop, times in seconds.items():
        del times[0]  # warming up
        middle = statistics.median(times)
        print(f"  {loop:6} {steps * batch / middle:9.3f} images/s {middle / steps:9.3f} s a step")
    ratios = [theirs / mine for mine, theirs in zip(seconds["ours"], seconds["plain"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"  ours / plain: median {middle:.3f}, quartiles {low:.3f} to {high:.3f}; to reach: 1.0")
    print(f"  load at the end {os.getloadavg()[0]:.1f}", flush=True)


def alone(trial: InMemoryTrial) -> list[float]:
    """Seconds of each epoch of our loop, on CUDA."""
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        place = RankContext(folder=Path(folder), data_root=Path(folder), device="cuda")
        train(trial, place, lambda _: times.append(time.perf_counter() - CLOCK[-1]), lambda: False)
    return times


def combinations(model: str, batch: int, steps: int, epochs: int) -> None:
    """Prints images/s, MFU and peak memory on CUDA for each way to run."""
    peak = peak_flops(torch.cuda.get_device_name())
    flops = flops_per_image(trial_of(model, batch, 1, 1), data(1, 2, "cpu")[0])
    print(f"{model}, batch {batch}, {torch.cuda.get_device_name()}; {flops / 1e9:.1f} GFLOP an image and step")
    for compiled, channels_last, precision in itertools.product((False, True), ("off", "on"), ("bf16", "fp32")):
        trial = trial_of(
            model, batch, steps, epochs, compile=compiled, channels_last=channels_last, precision=precision
        )
        speed = steps * batch / statistics.median(alone(trial)[1:])
        mfu = f"{flops * speed / peak:6.1%}" if peak and precision == "bf16" else "     –"
        memory = torch.cuda.max_memory_allocated() / 2**30
        words = f"{'compiled' if compiled else 'eager':9} channels last {channels_last:4} {precision}"
        print(f"  {words}  {speed:8.1f} images/s  MFU {mfu}  peak {memory:6.1f} GiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default=LOADS[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="an epoch")
    parser.add_argument("--epochs", type=int, default=8)
    given = parser.parse_args()
    print(f"torch {torch.__version__}, timm {timm.__version__}, {platform.processor() or platform.machine()}")
    compare(trial_of(given.model, given.batch, given.steps, given.epochs), given.device, given.threads)
    if given.device.startswith("cuda"):
        for model in LOADS:
            combinations(model, given.batch, max(given.steps, 5), given.epochs)


if __name__ == "__main__":
    main()
