"""Training loops as one writes them after the public recipes: timm's model, torch's AdamW, autocast.

They follow main_simmim_pt.py and main_finetune.py of the public SimMIM code, with bf16 in place of fp16 and its loss
scaling. Two things are the project's own: RepLKNet, which timm lacks, and where in a timm model the mask token goes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import Mixup, create_transform
from timm.loss import SoftTargetCrossEntropy
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from gpu.trials import Bench, DrawnClassify, DrawnPretrain, DrawnTrial, free, noise
from tasks.backbones.model import build
from tasks.backbones.split_forward import FAMILIES
from tasks.datasets import find_dataset
from tasks.datasets.augment import MEAN_STD
from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.pretraining.masking import Masking

WINDOW = 47
"""Of the normalised target, in pixels."""
Step = tuple[Tensor, Tensor]
"""Images, and masks or labels, on the device."""


@dataclass(frozen=True)
class Speed:
    """Of a loop without its first epoch."""

    images_per_second: float
    data_wait: float
    """Part of the time."""
    peak_bytes: int
    """Of the device; 0 on a CPU."""


class SimMIM(nn.Module):
    """SimMIM around a timm model: x (1 - w) + token w, a linear decoder, l1 on hidden pixels of the target."""

    def __init__(self, encoder: Any, mask_patch: int) -> None:
        """`mask_patch`: in pixels."""
        super().__init__()
        self.family = FAMILIES[type(encoder).__name__]
        self.encoder, self.mask_patch = encoder, mask_patch
        stride = encoder.feature_info[-1]["reduction"]
        self.patch = encoder.patch_embed.patch_size[0] if self.family.channels_last else 1
        width = encoder.patch_embed.proj.out_channels if self.family.channels_last else encoder.entry_channels
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.decoder = nn.Sequential(nn.Conv2d(encoder.num_features, stride**2 * 3, 1), nn.PixelShuffle(stride))

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        tokens = self.family.embed(self.encoder, images)
        repeats = self.mask_patch // self.patch
        weight = masks.repeat_interleave(repeats, 1).repeat_interleave(repeats, 2).to(tokens.dtype)
        token = self.mask_token.to(tokens.dtype)
        if self.family.channels_last:
            weight = weight.reshape(*tokens.shape[:-1], 1)
            token = token.view(*[1] * (tokens.ndim - 1), -1)
        else:
            weight, token = weight.unsqueeze(1), token.view(1, -1, 1, 1)
        said = self.decoder(self.family.forward_rest(self.encoder, tokens * (1 - weight) + token * weight))
        hidden = masks.repeat_interleave(self.mask_patch, 1).repeat_interleave(self.mask_patch, 2).unsqueeze(1)
        target = normed(images) if self.family.title == "SwinV2" else images
        error: Tensor = (target - said).abs() * hidden
        return error.sum() / (hidden.sum() + 1e-5) / 3


def normed(images: Tensor) -> Tensor:
    """Every pixel by mean and unbiased variance of the window around it, as the public code has it."""

    def pooled(values: Tensor, count_padding: bool = False) -> Tensor:
        return functional.avg_pool2d(values, WINDOW, 1, WINDOW // 2, count_include_pad=count_padding)

    mean, square = pooled(images), pooled(images**2)
    count = pooled(torch.ones_like(images), count_padding=True) * WINDOW**2
    variance = ((square - mean**2) * (count / (count - 1))).clamp(min=0)
    return (images - mean) / (variance + 1e-6) ** 0.5


def simmim(trial: DrawnTrial, bench: Bench) -> Speed:
    """The trial by hand. Its images are normalised and lie ready on the device: no time for augmentation at all."""
    _begin(trial, bench)
    assert isinstance(trial.task, DrawnPretrain)
    model = SimMIM(build(trial.backbone, 0), trial.task.mask_patch).to(bench.device).train()
    flat: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        plain = parameter.ndim == 1 or name.endswith(".bias") or name == "mask_token"
        (flat if plain else others).append(parameter)
    groups = [{"params": flat, "weight_decay": 0.0}, {"params": others, "weight_decay": trial.optim.weight_decay}]
    optimizer = torch.optim.AdamW(groups, lr=trial.optim.lr, betas=trial.optim.betas)
    return _timed(trial, bench, model, optimizer, model, _ready(trial, bench))


def _ready(trial: DrawnTrial, bench: Bench) -> Iterator[Step]:
    batch, side = trial.optim.batch, trial.backbone.image_size
    assert isinstance(trial.task, DrawnPretrain)
    masking = Masking(side, trial.task.mask_patch, trial.task.mask_ratio)
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, side, side, generator=draw).to(bench.device)
    masks = torch.from_numpy(np.stack([masking.of(i) for i in range(batch)])).to(bench.device)
    while True:
        yield images, masks


class Pictures(Dataset[tuple[Any, int]]):
    """Images in memory through a transform, as often as asked for: item 5 of 4 images is the second one."""

    def __init__(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], transform: Any, length: int) -> None:
        self._pixels, self._labels, self._transform, self._length = pixels, labels, transform, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Any, int]:
        at = index % len(self._pixels)
        return self._transform(Image.fromarray(self._pixels[at])), int(self._labels[at])


def finetune(trial: DrawnTrial, bench: Bench) -> Speed:
    """The trial by hand: timm's transforms in as many worker processes, Mixup, layer decay, soft targets."""
    _begin(trial, bench)
    task, optim = trial.task, trial.optim
    assert isinstance(task, DrawnClassify)
    classes, aug = find_dataset(task.dataset, LabelledDataset).classes, task.augment
    mean, std = MEAN_STD[task.normalize]
    transform = create_transform(
        trial.backbone.image_size, is_training=True, color_jitter=aug.color_jitter, auto_augment=aug.rand_augment,
        re_prob=aug.erasing, re_mode=aug.erasing_mode, re_count=aug.erasing_count, interpolation=aug.interpolation,
        mean=mean, std=std,
    )  # fmt: skip
    length = optim.epochs * (task.images // optim.batch) * optim.batch
    pictures = Pictures(noise(task.images, task.side), np.arange(task.images) % classes, transform, length)
    workers = trial.runtime.loader_workers
    loader = DataLoader(
        pictures, optim.batch, shuffle=True, num_workers=workers, pin_memory=bench.on_cuda, drop_last=True,
        generator=torch.Generator(),
    )  # fmt: skip
    mix = Mixup(
        mixup_alpha=aug.mixup, cutmix_alpha=aug.cutmix, prob=aug.mixup_prob, switch_prob=aug.switch_prob,
        mode=aug.mixup_mode, label_smoothing=aug.label_smoothing, num_classes=classes,
    )  # fmt: skip

    def steps() -> Iterator[Step]:
        for images, labels in loader:
            yield mix(images.to(bench.device, non_blocking=True), labels.to(bench.device, non_blocking=True))

    model: Any = build(trial.backbone, classes).to(bench.device).train()
    groups = param_groups_layer_decay(model, optim.weight_decay, model.no_weight_decay(), layer_decay=optim.layer_decay)
    for group in groups:
        group["lr"] = optim.lr * group["lr_scale"]
    optimizer = torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas)
    criterion = SoftTargetCrossEntropy()
    return _timed(trial, bench, model, optimizer, lambda images, soft: criterion(model(images), soft), steps())


def _begin(trial: DrawnTrial, bench: Bench) -> None:
    torch.manual_seed(trial.seed)
    torch.set_num_threads(bench.threads)
    free(bench)
    if bench.on_cuda:
        torch.cuda.reset_peak_memory_stats(bench.device)


def _timed(
    trial: DrawnTrial, bench: Bench, model: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Any,
    steps: Iterator[Step],
) -> Speed:  # fmt: skip
    """Trains for the trial's epochs; the median of all but the first, in which the device warms up."""
    rates, waits = [], []
    per_epoch, kind = trial.task.images // trial.optim.batch, torch.device(bench.device).type
    for _ in range(trial.optim.epochs):
        began, waited = time.perf_counter(), 0.0
        for _ in range(per_epoch):
            asked = time.perf_counter()
            inputs = next(steps)
            waited += time.perf_counter() - asked
            with torch.autocast(kind, torch.bfloat16, enabled=bench.on_cuda):
                loss = loss_of(*inputs)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), trial.optim.clip)
            optimizer.step()
            loss.item()  # waits for the device
        seconds = time.perf_counter() - began
        rates.append(per_epoch * trial.optim.batch / seconds)
        waits.append(waited / seconds)
    peak = torch.cuda.max_memory_allocated(bench.device) if bench.on_cuda else 0
    return Speed(statistics.median(rates[1:]), statistics.median(waits[1:]), peak)
