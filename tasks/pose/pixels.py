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
_LEAST_SPAN = 1e-30
"""Grey has no hue: its span is 0, and so is what is divided by it."""


def jittered(images: Tensor, colours: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue changed, in an order of each image's own.

    `colours` (n, 4) float, `order` (n, 4) int: see `augment.Drawn`; both on the CPU. Each operation is torchvision's of
    the same name (adjust_brightness, ...), without rounding.
    """
    if not images.is_cuda:  # image by image, which stays in the processor's cache: 2.5 times as fast
        each = zip(torch.split(images, 1), colours.tolist(), order.tolist(), strict=True)
        changed = [_one_jittered(image, strengths, kinds) for image, strengths, kinds in each]
        return changed[0] if len(changed) == 1 else torch.cat(changed)
    out = images.clone()
    for place in range(order.shape[1]):
        for kind, change in enumerate(_CHANGES):
            rows = torch.nonzero(order[:, place] == kind)[:, 0]
            if len(rows):
                strength = on_device(colours[rows, kind].to(images.dtype), images.device).view(-1, 1, 1, 1)
                chosen = on_device(rows, images.device)
                out[chosen] = change(out[chosen], strength)
    return out


def _one_jittered(image: Tensor, strengths: list[float], kinds: list[int]) -> Tensor:
    for kind in kinds:
        image = _CHANGES[kind](image, strengths[kind])
    return image


def with_holes(images: Tensor, grids: Tensor) -> Tensor:
    """Images with the squares of their grids black (0). `grids` (n, 4) int: see `augment.Drawn`; on the CPU."""
    if not grids.any():
        return images
    unit, hole, x, y = (on_device(part, images.device)[:, None] for part in grids.unbind(1))
    step = unit.clamp(min=1)  # without a grid: holes of side 0
    columns = (torch.arange(images.shape[-1], device=images.device) - x) % step < hole
    rows = (torch.arange(images.shape[-2], device=images.device) - y) % step < hole
    kept = 1 - rows.to(images.dtype)[:, None, :, None] * columns.to(images.dtype)[:, None, None, :]
    return images * kept  # on a CPU masked_fill takes ten times as long


Strength = Tensor | float
"""(n, 1, 1, 1), or the same for all images."""


def _blend(images: Tensor, other: Tensor, share: Strength) -> Tensor:
    return torch.lerp(other, images, share).clamp_(0, 255)


def _grey(images: Tensor) -> Tensor:
    """(n, 1, h, w)"""
    red, green, blue = torch.split(images, 1, 1)
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])


def _brighter(images: Tensor, factor: Strength) -> Tensor:
    return (images * factor).clamp_(0, 255)


def _contrasted(images: Tensor, factor: Strength) -> Tensor:
    return _blend(images, _grey(images).mean((-3, -2, -1), keepdim=True), factor)


def _saturated(images: Tensor, factor: Strength) -> Tensor:
    return _blend(images, _grey(images), factor)


def _turned(images: Tensor, shift: Strength) -> Tensor:
    """Hue moved by `shift` turns of the colour circle; greatest and least of the three channels stay."""
    red, green, blue = torch.split(images, 1, 1)
    greatest, least = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    span = greatest - least
    # to blend by 1 or 0 is to choose, in a fifth of the time that torch.where takes on a CPU
    is_red, is_green = (torch.eq(greatest, channel, out=torch.empty_like(span)) for channel in (red, green))
    sixths = (red - green).add_(span, alpha=4).lerp_((blue - red).add_(span, alpha=2), is_green)
    sixths = sixths.lerp_(green - blue, is_red).div_(span.clamp(min=_LEAST_SPAN)).add_(6 * shift)
    sixths.sub_((sixths / 6).floor_(), alpha=6)  # 0 to 6: red 0, green 2, blue 4
    out = torch.empty_like(images)
    parts = torch.split(out, 1, 1)
    for part, place in zip(parts, (3, 2, 4), strict=True):
        torch.sub(sixths, place, out=part).abs_()
    parts[0].sub_(1)
    for part in parts[1:]:
        torch.sub(2, part, out=part)
    out.clamp_(0, 1)
    return torch.addcmul(least, span, out, out=out)


_CHANGES: tuple[Callable[[Tensor, Strength], Tensor], ...] = (_brighter, _contrasted, _saturated, _turned)
