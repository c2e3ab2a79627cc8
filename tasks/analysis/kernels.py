"""Measures of large depthwise kernels as if they were attention maps (appendix B of the paper).

A channel takes the place of a head, the kernel's centre that of the query, and its other positions those of the keys.
The paper normalises every channel over height and width, and says no more: weights are signed, so the rule by which
they become parts of 1 is an argument, recorded with the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

KernelRule = Literal["abs", "softmax", "square"]
CHANNELS = 256
"""Channels whose divergence from all others is computed at once: C^2 pairs, up to a million in RepLKNet-31B, are never
kept."""


@dataclass(frozen=True)
class KernelMeans:
    """One layer's kernels, by channel, float64. A kernel that is 0 everywhere has no parts: NaN."""

    distance: Tensor
    """(channels,), pixels: mean distance of the weights to the kernel's centre."""
    entropy: Tensor
    """(channels,), nats"""
    divergence: Tensor
    """(channels,), nats: mean over all other channels j of KL(channel || j)."""
    uniform_distance: float
    uniform_entropy: float
    """Of a kernel with the same weight everywhere."""

    def plain(self) -> dict[str, Any]:
        """As JSON values; None for NaN."""
        channels = {name: _plain(getattr(self, name)) for name in ("distance", "entropy", "divergence")}
        return {**channels, "uniform_distance": self.uniform_distance, "uniform_entropy": self.uniform_entropy}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> KernelMeans:
        def channels(name: str) -> Tensor:
            return torch.tensor([math.nan if v is None else v for v in plain[name]], dtype=torch.float64)

        distance, entropy, divergence = map(channels, ("distance", "entropy", "divergence"))
        return cls(distance, entropy, divergence, plain["uniform_distance"], plain["uniform_entropy"])


def parts(kernels: Tensor, rule: KernelRule) -> Tensor:
    """(channels, height, width) of signed weights -> the same in float64, each channel summing to 1 by `rule`: of the
    absolute values, of the squares, or softmax of the weights."""
    weights = kernels.double()
    if rule == "softmax":
        return weights.flatten(1).softmax(1).view_as(weights)
    weights = weights.abs() if rule == "abs" else weights.square()
    return weights / weights.sum((1, 2), keepdim=True)


def measured(kernels: Tensor, rule: KernelRule, eps: float, pixel: float = 1.0) -> KernelMeans:
    """Measures of one layer's kernels (channels, height, width), sides odd.

    `eps`: as for attention, KL(p || q) is the sum of p log((p + eps) / (q + eps)). `pixel`: pixels of the unit of
    length from one position of the kernel to the next.
    """
    channels, height, width = kernels.shape
    weights = parts(kernels, rule)
    rows, columns = (torch.arange(side, dtype=torch.float64, device=kernels.device) - side // 2
                     for side in (height, width))  # fmt: skip
    to_centre = pixel * (rows[:, None] ** 2 + columns**2).sqrt()
    return KernelMeans(
        distance=(weights * to_centre).sum((1, 2)).cpu(),
        entropy=torch.special.entr(weights).sum((1, 2)).cpu(),
        divergence=_divergence(weights.reshape(channels, -1), eps).cpu(),
        uniform_distance=to_centre.mean().item(),
        uniform_entropy=math.log(height * width),
    )


def _divergence(weights: Tensor, eps: float) -> Tensor:
    """(channels,): mean over the other channels of KL(channel || other); channels without parts are nobody's other."""
    usable = weights.isfinite().all(1)
    kept = weights[usable]
    logs = (kept + eps).log()
    means = []
    for chunk in torch.split(kept, CHANNELS):
        own = (chunk * (chunk + eps).log()).sum(1)
        means.append(own - (chunk @ logs.mT).sum(1) / len(kept))
    result = torch.full((len(weights),), math.nan, dtype=weights.dtype, device=weights.device)
    if len(kept) > 1:  # the mean over all has a zero for the channel itself
        result[usable] = torch.cat(means) * (len(kept) / (len(kept) - 1))
    return result


def _plain(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
