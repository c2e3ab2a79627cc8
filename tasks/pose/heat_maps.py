"""Heat maps of joints: UDP targets, loss, decoding with DARK's refinement, and the average of a flip test.

Sizes are (height, width), points (x, y) in pixels of the network's input, unless said otherwise. UDP measures both
grids in steps between pixel centres: an input of w pixels is w - 1 long, a map of m pixels m - 1, so that x of a map is
x * (w - 1) / (m - 1) of the input. (mmpose's decoder multiplies by w instead of w - 1 in the end, which is up to a
pixel off.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.datasets.transforms import Size, on_device

TAIL = 3
"""A target ends this many sigmas from its joint (Simple Baseline and all code after it)."""
_FLOOR, _CEILING = 1e-3, 50.0
"""Limits of a heat map before its logarithm (UDP's and mmpose's code)."""


def units(input_size: Size, map_size: Size) -> tuple[float, float]:
    """Pixels of the input per pixel of the map, (x, y). Raises ValueError for a map of a single row or column."""
    if min(map_size) < 2:
        raise ValueError(
            f"heat maps of {map_size[0]} x {map_size[1]} pixels cannot place a joint: needs at least 2 x 2"
        )
    return (input_size[1] - 1) / (map_size[1] - 1), (input_size[0] - 1) / (map_size[0] - 1)


def targets(
    joints: Tensor, visible: Tensor, input_size: Size, map_size: Size, sigma: float = 2.0
) -> tuple[Tensor, Tensor]:
    """Maps (n, k, *map_size) with a Gaussian of height 1 around each joint (n, k, 2), and target weights (n, k).

    `visible` (n, k): 0 for a joint without label. `sigma`: pixels of the map, 2 for 64 x 64. The weight is 0, and the
    map empty, for a joint without label and for one so far outside that its Gaussian does not reach the map. As in
    UDP's and mmpose's code, the square that holds a Gaussian lies around the joint rounded towards zero after adding
    0.5, and a joint just outside the upper or left border may keep its weight with an empty map.
    """
    per_pixel = on_device(torch.tensor(units(input_size, map_size), dtype=torch.float32), joints.device)
    places = joints.float() / per_pixel
    middle = torch.trunc(places + 0.5)
    radius = round(TAIL * sigma)
    extent = on_device(torch.tensor([map_size[1], map_size[0]]), joints.device)
    inside = ((middle - radius < extent) & (middle + radius + 1 >= 0)).all(-1)
    weights = ((visible >= 0.5) & inside).float()
    bumps = _bumps(places, middle, max(map_size), radius, sigma)  # both axes in one go
    x, y = bumps[..., 0, : map_size[1]], bumps[..., 1, : map_size[0]]
    return (y * weights[..., None])[..., :, None] * x[..., None, :], weights


def _bumps(places: Tensor, middle: Tensor, side: int, radius: int, sigma: float) -> Tensor:
    """(n, k, 2, side): a Gaussian along each axis, zero beyond `radius` of `middle`; `places`, `middle` (n, k, 2)."""
    positions = torch.arange(side, device=places.device, dtype=torch.float32)
    bumps = torch.exp(-((positions - places[..., None]) ** 2) / (2 * sigma**2))
    return bumps * ((positions - middle[..., None]).abs() <= radius)


def loss(predicted: Tensor, wanted: Tensor, weights: Tensor, factor: float) -> Tensor:
    """factor * mean over all maps and pixels of (weight * (predicted - wanted))^2, in float32.

    Maps (n, k, h, w), `weights` (n, k). A joint of weight 0 adds nothing, but counts in the mean. `factor`: 0.5 in
    Simple Baseline and UDP, 1 in mmpose and PCT.
    """
    weights = weights[..., None, None]
    return factor * torch.nn.functional.mse_loss(predicted.float() * weights, wanted * weights)


def decoded(maps: Tensor, input_size: Size, blur: int | None) -> tuple[Tensor, Tensor]:
    """The place (n, k, 2) in pixels of the input and the score (n, k) of each joint, from maps (n, k, h, w).

    The score is the highest value of a map. `blur`: side of the kernel of DARK's refinement, see `blur_side`; None: no
    refinement, the place is the highest pixel. A map without a value above 0 has a score of 0 or less, and is not
    refined. Raises ValueError for a side that is no odd number.
    """
    maps = maps.float()
    height, width = maps.shape[-2:]
    scores, highest = maps.flatten(-2).max(-1)
    pixels = torch.stack([highest % width, highest // width], -1)
    places = pixels.float()
    if blur is not None:
        moved = places - _newton_step(_logarithm(maps, blur), pixels).float()
        places = torch.where((scores > 0)[..., None], moved, places)
    per_pixel = on_device(torch.tensor(units(input_size, (height, width)), dtype=torch.float32), maps.device)
    return places * per_pixel, scores


def blur_side(sigma: float) -> int:
    """Side in pixels of the kernel that suits targets of this sigma: the greatest odd number up to (20 sigma - 7) / 3.

    11 for sigma 2 and 17 for sigma 3, as mmpose recommends; at least 3.
    """
    side = int((20 * sigma - 7) / 3 + 1e-9)
    return max(3, side - 1 + side % 2)


def _logarithm(maps: Tensor, blur: int) -> Tensor:
    """Maps blurred, brought back to their greatest value, limited, as logarithms in float64.

    Where a map is little but noise, rounding in float32 moves the joint by a hundredth of a pixel.
    """
    if blur < 1 or blur % 2 == 0:
        raise ValueError(f"a blur of {blur} pixels has no middle: use an odd number")
    maps = maps.double()
    highest = maps.amax((-2, -1), keepdim=True)
    blurred = _blurred(_blurred(maps, blur, -1), blur, -2)
    blurred = blurred * (highest / blurred.amax((-2, -1), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny))
    return blurred.clamp(_FLOOR, _CEILING).log()


def _blurred(maps: Tensor, side: int, axis: int) -> Tensor:
    """Gaussian along one axis, zeros outside, with OpenCV's sigma for a kernel of this side."""
    half = side // 2
    sigma = 0.3 * (half - 1) + 0.8
    kernel = [math.exp(-((i - half) ** 2) / (2 * sigma**2)) for i in range(side)]
    length = maps.shape[axis]
    room = (half, half) if axis == -1 else (0, 0, half, half)
    wide = torch.nn.functional.pad(maps, room)
    out = torch.zeros_like(maps)  # no convolution: on a GPU that may be in TF32, or under autocast in 16 bits
    for shift, weight in enumerate(kernel):
        out += wide.narrow(axis, shift, length) * (weight / sum(kernel))
    return out


def _newton_step(logarithms: Tensor, pixels: Tensor) -> Tensor:
    """(n, k, 2), x and y: from the highest pixel back to the top of the parabola through its neighbours.

    The second derivative in x and y takes four of the eight corners and sides, as in UDP's code (post_dark).
    """
    wide = torch.nn.functional.pad(logarithms, (1, 1, 1, 1), mode="replicate")
    width, flat = wide.shape[-1], wide.flatten(-2)
    middle = (pixels[..., 1] + 1) * width + pixels[..., 0] + 1

    def at(x: int, y: int) -> Tensor:
        return flat.gather(-1, (middle + y * width + x)[..., None])[..., 0]

    here, left, right, above, below = at(0, 0), at(-1, 0), at(1, 0), at(0, -1), at(0, 1)
    dx, dy = (right - left) / 2, (below - above) / 2
    epsilon = torch.finfo(torch.float32).eps  # as in the public code, against flat maps
    dxx, dyy = right - 2 * here + left + epsilon, below - 2 * here + above + epsilon
    dxy = (at(1, 1) - right - below + 2 * here - left - above + at(-1, -1)) / 2
    determinant = dxx * dyy - dxy * dxy
    step = torch.stack([dyy * dx - dxy * dy, dxx * dy - dxy * dx], -1) / determinant[..., None]
    return torch.where(determinant[..., None] == 0, torch.zeros_like(step), step)


def flip_averaged(maps: Tensor, of_mirrored: Tensor, flip_order: Sequence[int]) -> Tensor:
    """Mean of the maps (n, k, h, w) of images and of those of the mirrored images, mirrored back, left for right.

    Without the shift by one pixel that other codes need: in UDP's unit both maps lie on the same grid.
    """
    order = on_device(torch.tensor(flip_order), maps.device)
    return (maps + of_mirrored.flip(-1)[:, order]) / 2
