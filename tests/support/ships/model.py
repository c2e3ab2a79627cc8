"""The model of the task `ships`: a cell of a feature map says whether a ship covers its centre."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tasks.backbones.features import feature_info, feature_maps


class Finder(nn.Module):
    """(n, 3, 48, 64) -> logits (n, rows, columns)."""

    def __init__(self, backbone: nn.Module, level: int) -> None:
        super().__init__()
        self.backbone, self.level = backbone, level
        self.head = nn.Conv2d(feature_info(backbone)[level].channels, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        (features,) = feature_maps(self.backbone, images, (self.level,))
        logits: torch.Tensor = self.head(features)[:, 0]
        return logits


def centres(logits: torch.Tensor, height: int = 48, width: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """x (columns) and y (rows) of the cells' centres in pixels."""
    rows, columns = logits.shape[1:]
    xs = (torch.arange(columns, device=logits.device) + 0.5) * (width / columns)
    ys = (torch.arange(rows, device=logits.device) + 0.5) * (height / rows)
    return xs, ys


def covered(boxes: Sequence[torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    """1 where a box covers the centre of a cell, (n, rows, columns)."""
    xs, ys = centres(logits)
    maps = torch.zeros_like(logits)
    for n, of_image in enumerate(boxes):
        for x0, y0, x1, y1 in of_image.tolist():
            inside = ((ys >= y0) & (ys < y1))[:, None] & ((xs >= x0) & (xs < x1))[None]
            maps[n][inside] = 1
    return maps


def distances(logits: torch.Tensor, boxes: Sequence[torch.Tensor]) -> list[tuple[float, bool]]:
    """For each image: pixels from the likeliest cell to the nearest box (nan without any), and whether it is inside."""
    xs, ys = centres(logits)
    found = []
    for each, of_image in zip(logits, boxes, strict=True):
        cell = int(each.argmax())
        x, y = xs[cell % len(xs)], ys[cell // len(xs)]
        if not len(of_image):
            found.append((float("nan"), False))
            continue
        dx = torch.clamp(torch.maximum(of_image[:, 0] - x, x - of_image[:, 2]), min=0)
        dy = torch.clamp(torch.maximum(of_image[:, 1] - y, y - of_image[:, 3]), min=0)
        away = float(torch.hypot(dx, dy).min())
        found.append((away, away == 0))
    return found
