"""Colour jitter and grid dropout of a batch on the device, each image with its own numbers.

Images are float (n, 3, h, w) in 0..255, red, green, blue, before normalisation. The numbers come from `augment.Drawn`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tasks.datasets.transforms import on_device

_GREY = (0.2989, 0.587, 0.114)
"""ITU-R 601, as torchvision has it."""


def jittered(images: Tensor, colours: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue changed, in an order of each image's own.

    `colours` (n, 4) float, `order` (n, 4) int: see `augment.Drawn`; both on the CPU. Each operation is torchvision's of
    the same name (adjust_brightness, ...), without rounding.
    """
    out = images.clone()
    changes: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (_brighter, _contrasted, _saturated, _turned)
    for place in range(order.shape[1]):
        for kind, change in enumerate(changes):
            rows = torch.nonzero(order[:, place] == kind)[:, 0]
            if len(rows):
                strength = on_device(colours[rows, kind].to(images.dtype), images.device).view(-1, 1, 1, 1)
                chosen = on_device(rows, images.device)
                out[chosen] = change(out[chosen], strength)
    return out


def with_holes(images: Tensor, grids: Tensor) -> Tensor:
    """Images with the squares of their grids black (0). `grids` (n, 4) int: see `augment.Drawn`."""
    unit, hole, x, y = (on_device(part, images.device)[:, None] for part in grids.unbind(1))
    step = unit.clamp(min=1)  # without a grid: holes of side 0
    columns = (torch.arange(images.shape[-1], device=images.device) - x) % step < hole
    rows = (torch.arange(images.shape[-2], device=images.device) - y) % step < hole
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


def _blend(images: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return (share * images + (1 - share) * other).clamp(0, 255)


def _grey(images: Tensor) -> Tensor:
    """(n, 1, h, w)"""
    return sum((weight * images[:, i : i + 1] for i, weight in enumerate(_GREY)), torch.zeros_like(images[:, :1]))


def _brighter(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp(0, 255)


def _contrasted(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _grey(images).mean((-3, -2, -1), keepdim=True), factor)


def _saturated(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _grey(images), factor)


def _turned(images: Tensor, shift: Tensor) -> Tensor:
    """Hue moved by `shift` turns of the colour circle; greatest and least of the three channels stay."""
    red, green, blue = images.unbind(1)
    greatest, least = images.amax(1), images.amin(1)
    span = greatest - least
    safe = torch.where(span > 0, span, torch.ones_like(span))
    sixths = torch.where(
        greatest == red,
        (green - blue) / safe,
        torch.where(greatest == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixths = sixths + 6 * shift[:, 0]
    channels = []
    for start in (5, 3, 1):
        place = (start + sixths) % 6
        channels.append(greatest - span * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.stack(channels, 1)
