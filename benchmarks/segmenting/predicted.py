"""Images per second and memory of sliding prediction: ours, and mmsegmentation's loop written by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from sides.turns import in_turns, row
from torch import Tensor, nn
from torch.nn import functional

from tasks.segmentation.predicting import Predicting

from .memory import peaks

SIDE, STRIDE = 640, 426
SIZE, FILE = (640, 854), (512, 683)
"""Height and width of an image that the model takes, and of its file: ADE20K's most common size."""


class Model(nn.Module):
    """The least that gives scores of classes at stride 4, upsampled: what surrounds a model is measured."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scores = nn.Conv2d(3, classes, 4, stride=4)

    def forward(self, images: Tensor) -> Tensor:
        return functional.interpolate(self.scores(images), images.shape[-2:], mode="bilinear", align_corners=False)


@torch.no_grad()
def ours(model: Model, images: Tensor) -> Tensor:
    return Predicting("slide", SIDE, STRIDE, 1).classes(model, images, FILE)


@torch.no_grad()
def by_hand(model: Model, images: Tensor) -> Tensor:
    """One image at a time, as mmsegmentation evaluates: sums of padded scores, their mean, the size of the file."""
    found = []
    for image in images.split(1):
        height, width = image.shape[-2:]
        total = image.new_zeros(1, model.scores.out_channels, height, width)
        covering = image.new_zeros(1, 1, height, width)
        for row_ in range(max(height - SIDE + STRIDE - 1, 0) // STRIDE + 1):
            for column in range(max(width - SIDE + STRIDE - 1, 0) // STRIDE + 1):
                bottom, right = min(row_ * STRIDE + SIDE, height), min(column * STRIDE + SIDE, width)
                top, left = max(bottom - SIDE, 0), max(right - SIDE, 0)
                scores = model(image[..., top:bottom, left:right])
                total += functional.pad(scores, (left, width - right, top, height - bottom))
                covering[..., top:bottom, left:right] += 1
        mean = functional.interpolate(total / covering, FILE, mode="bilinear", align_corners=False)
        found.append(mean.softmax(1).argmax(1))
    return torch.cat(found)


SIDES = {"ours": ours, "by hand": by_hand}


def call(side: str, images: int, classes: int) -> Callable[[], Tensor]:
    pixels = torch.randn(images, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return functools.partial(SIDES[side], Model(classes).eval(), pixels)


def compare(images: int, classes: int, rounds: int) -> list[dict[str, Any]]:
    """Stops if the classes differ in more than a millionth of the pixels, where two scores are alike."""
    seconds, given = in_turns({side: call(side, images, classes) for side in SIDES}, rounds)
    if (given["ours"] != given["by hand"]).double().mean() > 1e-6:
        raise SystemExit("classes differ from those by hand")
    made = row("prediction", "images/s of sliding squares", seconds, images, "at least 1.0")
    own, other = peaks(call, SIDES, images, classes).values()
    return [{**made, "images": images, "classes": classes, "memory_mib": own, "other_memory_mib": other}]
