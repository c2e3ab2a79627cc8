"""Measures a model on chunks of images: attention of one block at a time, Gram matrices of one block's output."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from tasks.analysis import attention, kernels
from tasks.analysis.attention import AttentionSums, ClsRule
from tasks.analysis.cka import Estimator, HsicSums, gram
from tasks.analysis.kernels import KernelRule
from tasks.analysis.layers import (
    AttentionLayer,
    Blocks,
    KernelLayer,
    attention_layers,
    attention_maps,
    block_outputs,
    blocks,
    kernel_layers,
    pooled,
)
from tasks.backbones.compiled_blocks import is_compiled
from tasks.base import Batch

LOG_SECONDS = 10.0
"""At most one line about progress in so many seconds."""

HEAP_PIECE = 31 << 20
"""Bytes; see `_keep_freed_memory`. glibc ignores pieces above 32 MiB."""

log = logging.getLogger(__name__)


class _AllTaken(Exception):
    """Ends a forward pass of which nothing more is wanted: what follows the last map costs ViT-B 6 % of its time."""


@dataclass(frozen=True)
class Options:
    """What is measured, and how; see the fields of `Analyse`."""

    attention: bool
    estimators: tuple[Estimator, ...]
    """Of CKA; empty: it is not measured."""
    batch: int
    cls_rule: ClsRule
    eps: float
    kernel_rule: KernelRule
    kernel_pixels: bool
    """Distances in kernels are in pixels of the input, not of the map."""
    re_param: bool
    pooled: bool


class Analysed(nn.Module):
    """A backbone that is measured, and perhaps another one that its layers are compared with."""

    def __init__(self, backbone: nn.Module, other: nn.Module | None, size: tuple[int, int]) -> None:
        """`size`: height and width of the input in pixels."""
        super().__init__()
        self.backbone, self.size = backbone, size
        # no submodule: weights and windows of this module are those of the trial's backbone alone
        self._other = () if other is None else (other,)

    @property
    def other(self) -> nn.Module | None:
        return self._other[0] if self._other else None

    def forward(self, images: Tensor) -> Tensor:
        return cast("Tensor", self.backbone(images))


@dataclass(frozen=True)
class Subject:
    """What is measured of a model."""

    model: Analysed
    options: Options

    @cached_property
    def kernels(self) -> list[KernelLayer]:
        return kernel_layers(self.model.backbone, self.options.re_param) if self.options.attention else []

    @cached_property
    def attention(self) -> list[AttentionLayer]:
        """Empty where nothing is asked of attention, or kernels take its place."""
        if not self.options.attention or self.kernels:
            return []
        return attention_layers(self.model.backbone, self.model.size)

    @cached_property
    def blocks(self) -> Blocks:
        return blocks(self.model.backbone)

    @cached_property
    def other_blocks(self) -> Blocks | None:
        return None if self.model.other is None else blocks(self.model.other)

    def check(self) -> None:
        """Raises ValueError where this model has not what is to be measured. Computes nothing."""
        _ = self.attention, self.kernels
        if self.options.estimators:
            _ = self.blocks, self.other_blocks

    def layers(self, estimators: Mapping[str, str]) -> dict[str, dict[int, list[str]]]:
        """Figure -> the layers for which `results.summary` has values, each with the items of these. `estimators`: of
        CKA, each with its figure."""
        found: dict[str, dict[int, list[str]]] = {}
        heads = [layer.heads for layer in self.attention]
        if count := len(heads) or len(self.kernels):
            names = ("attention_distance", "attention_entropy", "uniform_distance", "uniform_entropy")
            found = {name: {layer: [""] for layer in range(count)} for name in names}
            pairs = {layer: [str(head) for head in range(number)] for layer, number in enumerate(heads) if number > 1}
            found["head_divergence"] = {layer: [""] for layer in range(count)} if self.kernels else pairs
        for figure in estimators.values():
            items = [str(item) for item in range(len((self.other_blocks or self.blocks).names))]
            found[figure] = dict.fromkeys(range(len(self.blocks.names)), items)
        return found

    def parts(self, batches: Iterable[Batch], total: int) -> Iterator[tuple[str, Any]]:
        """(item, JSON values) of each chunk. `total`: images of all chunks, for the log."""
        began = noted = time.monotonic()
        done = 0
        for batch in batches:
            images: Tensor = batch["images"]
            part = self.chunk(images)
            if int(batch["item"]) == 0:
                part["kernels"] = self._kernel_means()
            yield batch["item"], part
            done += len(images)
            now = time.monotonic()
            if now - noted > LOG_SECONDS:
                noted = now
                log.info("%d of %d images analysed here, %.3g images/s", done, total, done / (now - began))

    def _kernel_means(self) -> list[Any]:
        """Kernels do not depend on images: the first chunk has them."""
        options = self.options
        return [
            kernels.measured(
                layer.kernels, options.kernel_rule, options.eps, float(layer.stride) if options.kernel_pixels else 1.0
            ).plain()
            for layer in self.kernels
        ]

    def chunk(self, images: Tensor) -> dict[str, Any]:
        """Sums over these images (n, 3, h, w), as JSON values."""
        options, sums = self.options, dict[int, AttentionSums]()
        left: set[int] = set()

        def take_map(layer: int, maps: Tensor) -> None:
            new = attention.measured(maps, self.attention[layer].places, options.cls_rule, options.eps)
            sums[layer] = sums[layer] + new if layer in sums else new
            left.discard(layer)
            if not left and not options.estimators:
                raise _AllTaken

        part: dict[str, Any] = {"images": len(images), "uniform": self._uniform}
        with attention_maps(self.attention, take_map):
            if options.estimators:
                grams = self._grams(self.model, self.blocks, images)
                others = None
                if self.model.other is not None and self.other_blocks is not None:
                    others = self._grams(self.model.other.to(images.device).eval(), self.other_blocks, images)
                part["cka"] = {each: HsicSums.of(grams, others, each).plain() for each in options.estimators}
            elif self.attention:
                _keep_freed_memory(images.device)
                for some in torch.split(images, options.batch):
                    left.update(range(len(self.attention)))
                    with suppress(_AllTaken):
                        _forward(self.model, some)
        part["attention"] = [sums[layer].plain() for layer in sorted(sums)]
        return part

    def _grams(self, model: nn.Module, of: Blocks, images: Tensor) -> Sequence[Tensor]:
        """The Gram matrix of each block's output for all images together, on the CPU."""
        found: dict[int, Tensor] = {}

        def take(block: int, output: Tensor) -> None:
            found[block] = gram(pooled(output, of) if self.options.pooled else output).cpu()

        with block_outputs(of, take, self.options.batch):
            _forward(model, images)
        return [found[block] for block in range(len(of.modules))]

    @cached_property
    def _uniform(self) -> list[tuple[float, float]]:
        return [attention.uniform(layer.places, self.options.cls_rule, layer.allowed) for layer in self.attention]

    def facts(self) -> dict[str, Any]:
        """What was measured, as JSON values: layers, and for CKA the numbers of each layer's features."""
        found: dict[str, Any] = {}
        if self.attention:
            found["attention_layers"] = [layer.plain() for layer in self.attention]
        if self.kernels:
            found["kernel_layers"] = [
                {"name": layer.name, "channels": len(layer.kernels), "kernel": list(layer.kernels.shape[1:]),
                 "stride": layer.stride}
                for layer in self.kernels
            ]  # fmt: skip
        if self.options.estimators:
            found["cka_layers"] = self._features(self.model, self.blocks)
            if self.model.other is not None and self.other_blocks is not None:
                found["cka_other_layers"] = self._features(self.model.other, self.other_blocks)
        return found

    def _features(self, model: nn.Module, of: Blocks) -> list[dict[str, Any]]:
        numbers: dict[int, int] = {}

        def take(block: int, output: Tensor) -> None:
            numbers[block] = (pooled(output, of) if self.options.pooled else output)[0].numel()

        weight = next(model.parameters())
        with torch.no_grad(), block_outputs(of, take, 1):
            _forward(model, torch.zeros(1, 3, *self.model.size, device=weight.device, dtype=weight.dtype))
        return [{"name": name, "features": numbers[number]} for number, name in enumerate(of.names)]


def _forward(model: nn.Module, images: Tensor) -> None:
    """A forward pass of the layers themselves, also of a model that is compiled for other passes."""
    with torch.compiler.set_stance("force_eager") if is_compiled(model) else nullcontext():  # the former takes 30 ms
        model(images)


def _keep_freed_memory(device: torch.device) -> None:
    """Lets the C library keep up to 62 MiB of freed memory, as it does by itself once a tensor of 31 MiB was freed.

    Until then it gives the maps and activations of every block back to the system and asks for them again, which takes
    a tenth of a forward pass of ViT-B with 8 images. No page of the piece is touched, so it takes no memory.
    """
    if device.type == "cpu":
        torch.empty(HEAP_PIECE, dtype=torch.uint8)
