"""Seconds and memory of the confusion matrix: ours, torchmetrics' and one of numpy by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from sides.turns import in_turns, row
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from tasks.datasets.class_maps.types import IGNORED
from tasks.segmentation.confusion import Counts, added, confusion, figures

from .memory import peaks

SIZE = (512, 683)
Pairs = list[tuple[Tensor, Tensor]]


def data(images: int, classes: int) -> Pairs:
    """Predicted classes (h, w) int64 and maps (h, w) uint8, a tenth of whose pixels has no class."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(images):
        coarse = random.integers(0, classes, (32, 43)).repeat(16, 0).repeat(16, 1)[: SIZE[0], : SIZE[1]]
        truth = np.where(random.random(SIZE) < 0.1, IGNORED, coarse).astype(np.uint8)
        guess = np.where(random.random(SIZE) < 0.6, coarse, random.integers(0, classes, SIZE))
        made.append((torch.from_numpy(guess), torch.from_numpy(truth)))
    return made


def ours(pairs: Pairs, classes: int) -> Counts:
    return added(confusion(guess, truth, classes) for guess, truth in pairs)


def by_torchmetrics(pairs: Pairs, classes: int) -> Counts:
    metric = MulticlassConfusionMatrix(classes, ignore_index=IGNORED, validate_args=False)
    for guess, truth in pairs:
        metric.update(guess, truth.long())
    counts: Counts = metric.compute().numpy()
    return counts


def by_numpy(pairs: Pairs, classes: int) -> Counts:
    """As one writes it by hand."""
    total = np.zeros((classes, classes), np.int64)
    for guess, truth in pairs:
        wanted, found = truth.numpy().astype(np.int64), guess.numpy()
        kept = wanted != IGNORED
        total += np.bincount(classes * wanted[kept] + found[kept], minlength=classes**2).reshape(classes, classes)
    return total


SIDES: Mapping[str, Callable[[Pairs, int], Counts]] = {"ours": ours, "torchmetrics": by_torchmetrics, "numpy": by_numpy}


def call(side: str, images: int, classes: int) -> Callable[[], Counts]:
    pairs = data(images, classes)
    SIDES[side](pairs[:1], classes)  # what libraries take once
    return functools.partial(SIDES[side], pairs, classes)


def compare(images: int, classes: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Stops if any number differs."""
    pairs, memory = data(images, classes), peaks(call, SIDES, images, classes)
    for name in ("torchmetrics", "numpy"):
        sides = {side: lambda side=side: SIDES[side](pairs, classes) for side in ("ours", name)}
        seconds, given = in_turns(sides, rounds)
        if not np.array_equal(given["ours"], given[name]):
            raise SystemExit(f"counts differ from {name}'s")
        made = row("evaluation", "seconds of the confusion matrix", seconds, None, "at most 1.0")
        yield {**made, "images": images, "classes": classes, "figures": figures(given["ours"]),
               "memory_mib": memory["ours"], "other_memory_mib": memory[name]}  # fmt: skip
