"""Turns sums over chunks of images into figures, and rows per layer and head."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

import torch

from tasks.analysis.attention import AttentionSums
from tasks.analysis.cka import HsicSums
from tasks.analysis.kernels import KernelMeans
from tasks.metrics import Measurement, Summary


def summary(parts: Sequence[Mapping[str, Any]], names: Mapping[str, str], two_models: bool) -> Summary:
    """`parts`: those of all chunks, as `measuring.Subject.parts` yields them. `names`: estimator of CKA -> its figure.

    A figure is the mean over layers of the mean over a layer's heads (pairs of heads, channels), so every layer counts
    alike; of CKA the mean and the least over pairs of different layers (all pairs where two models are compared). What
    is not a number (a kernel of zeros, CKA of a layer that is not like itself, pairs of a single head) is in no figure.
    """
    rows: list[Measurement] = []
    if parts[0]["attention"]:
        rows += _attention(parts)
    kernels = next((part["kernels"] for part in parts if part.get("kernels")), None)
    if kernels is not None:
        rows += _kernels(map(KernelMeans.from_plain, kernels))
    figures = _means(rows)
    for estimator, name in names.items():
        total = reduce(add, (HsicSums.from_plain(part["cka"][estimator]) for part in parts))
        values = total.cka()
        rows += [
            Measurement(name, value, str(j), layer=i)
            for i, line in enumerate(values.tolist())
            for j, value in enumerate(line)
        ]
        of_pairs = values.flatten() if two_models else values[~torch.eye(len(values), dtype=torch.bool)]
        finite = of_pairs[of_pairs.isfinite()]
        if len(finite):
            figures |= {f"{name}_mean": finite.mean().item(), f"{name}_min": finite.min().item()}
    return Summary(figures, rows)


def _attention(parts: Sequence[Mapping[str, Any]]) -> Iterator[Measurement]:
    for layer, (distance, entropy) in enumerate(parts[0]["uniform"]):
        sums = (AttentionSums.from_plain(part["attention"][layer]) for part in parts)
        means = reduce(add, sums).means()
        divergence = means.divergence.tolist()
        for head, (far, broad) in enumerate(zip(means.distance.tolist(), means.entropy.tolist(), strict=True)):
            yield Measurement("attention_distance", far, layer=layer, head=head)
            yield Measurement("attention_entropy", broad, layer=layer, head=head)
            for other, value in enumerate(divergence[head]):
                if other != head:
                    yield Measurement("head_divergence", value, str(other), layer=layer, head=head)
        yield Measurement("uniform_distance", distance, layer=layer)
        yield Measurement("uniform_entropy", entropy, layer=layer)


def _kernels(layers: Iterable[KernelMeans]) -> Iterator[Measurement]:
    for number, layer in enumerate(layers):
        channels = zip(layer.distance.tolist(), layer.entropy.tolist(), layer.divergence.tolist(), strict=True)
        for channel, (far, broad, unlike) in enumerate(channels):
            yield Measurement("attention_distance", far, layer=number, head=channel)
            yield Measurement("attention_entropy", broad, layer=number, head=channel)
            yield Measurement("head_divergence", unlike, layer=number, head=channel)
        yield Measurement("uniform_distance", layer.uniform_distance, layer=number)
        yield Measurement("uniform_entropy", layer.uniform_entropy, layer=number)


def _means(rows: Iterable[Measurement]) -> dict[str, float]:
    """The mean over layers of each figure's mean within a layer."""
    values: dict[str, dict[int | None, list[float]]] = {}
    for row in rows:
        if math.isfinite(row.value):
            values.setdefault(row.figure, {}).setdefault(row.layer, []).append(row.value)
    return {
        name: math.fsum(math.fsum(each) / len(each) for each in layers.values()) / len(layers)
        for name, layers in values.items()
    }
