"""From a person's box to the network's input and back: centre and scale, UDP matrices, points and images.

UDP ("The Devil is in the Details", Huang et al. 2020) measures lengths in steps between pixel centres: an input of w
pixels is w - 1 long. Then mirroring, scaling and rotating lose nothing, at any resolution. Sizes are (height, width),
points (x, y), both in pixels; (0, 0) is the centre of the first pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from tasks.datasets.transforms import Size, on_device

Floats = NDArray[np.float64]
Values = TypeVar("Values", Floats, Tensor)

PADDING = 1.25
"""Of a box, in width and height: the value of Simple Baseline and of all code after it (PCT, mmpose)."""


def centre_and_scale(boxes: ArrayLike, size: Size, padding: float = PADDING) -> tuple[Floats, Floats]:
    """Centres (..., 2) and scales (..., 2) of boxes (..., 4) given as x, y, width, height (COCO's `bbox`).

    The scale is width and height of the part of the image that becomes the input, in pixels: the box, padded, then made
    wider or higher until it has the aspect of the input. Raises ValueError for a box without area.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    corner, sides = boxes[..., :2], boxes[..., 2:]
    wrong = ~(sides > 0).all(-1) | ~np.isfinite(boxes).all(-1)
    if wrong.any():
        first = boxes[wrong][0].tolist()
        raise ValueError(
            f"box {first} (x, y, width, height) has no area, one of {int(wrong.sum())} such boxes: leave it out"
        )
    return corner + sides / 2, covering(sides * padding, size)


def covering(scales: Floats, size: Size) -> Floats:
    """The least widths and heights (..., 2) that have the aspect of an input of `size` and are none smaller."""
    aspect = size[1] / size[0]
    width = np.maximum(scales[..., 0], scales[..., 1] * aspect)
    return np.stack([width, width / aspect], -1)


def input_matrices(
    centres: ArrayLike, scales: ArrayLike, rotations: ArrayLike, size: Size, mirrored: ArrayLike = False
) -> Floats:
    """(..., 2, 3): the affine maps from pixels of images to pixels of inputs of `size`.

    `centres`, `scales` (..., 2): see `centre_and_scale`. `rotations` (...): degrees by which the content turns, from x
    to y, that is clockwise as seen. `mirrored` (...): the finished input is mirrored left to right.
    """
    centres, scales = np.asarray(centres, dtype=np.float64), np.asarray(scales, dtype=np.float64)
    angle = np.deg2rad(np.asarray(rotations, dtype=np.float64))
    turn = np.stack([np.stack([np.cos(angle), -np.sin(angle)], -1), np.stack([np.sin(angle), np.cos(angle)], -1)], -2)
    extent = np.array([size[1] - 1.0, size[0] - 1.0])
    linear = (extent / scales)[..., :, None] * turn
    offset = extent / 2 - (linear * centres[..., None, :]).sum(-1)
    matrices = np.concatenate([linear, offset[..., None]], -1)
    flipped = matrices * np.array([[-1.0], [1.0]])
    flipped[..., 0, 2] += extent[0]
    return np.where(np.asarray(mirrored)[..., None, None], flipped, matrices)


def inverse(matrices: Floats) -> Floats:
    """(..., 2, 3): the maps in the other direction, from pixels of inputs to pixels of images."""
    linear = np.linalg.inv(matrices[..., :2])
    return np.concatenate([linear, -linear @ matrices[..., 2:]], -1)


def warped_points(points: Values, matrices: Values) -> Values:
    """Points (..., k, 2) moved by matrices (..., 2, 3); both arrays, or both tensors of one device and type."""
    # no matrix product: on a GPU that could be in TF32, which is wrong by a tenth of a pixel
    across, down, shift = matrices[..., None, :, 0], matrices[..., None, :, 1], matrices[..., None, :, 2]
    return points[..., :1] * across + points[..., 1:] * down + shift


def source_window(back: Floats, size: Size, image: Size) -> tuple[slice, slice]:
    """(rows, columns) of an image of size `image` that an input of `size` is made of, given `back` (2, 3): from pixels
    of the input to pixels of the image.

    Cut this before images go into a batch, and shift the matrix by `in_window`: the warp is the same, from fewer
    pixels. At least one pixel, also where the input lies beside the image.
    """
    corners = np.array([[x, y] for x in (0, size[1] - 1) for y in (0, size[0] - 1)], dtype=np.float64)
    on_image = warped_points(corners, back)
    limits = np.array([image[1], image[0]])
    low = np.clip(np.floor(on_image.min(0)), 0, limits - 1).astype(int)
    high = np.clip(np.floor(on_image.max(0)) + 2, low + 1, limits).astype(int)
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def in_window(matrix: Floats, window: tuple[slice, slice]) -> Floats:
    """The matrix (2, 3) for an image of which only `window` is there."""
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ np.array([window[1].start, window[0].start], dtype=np.float64)
    return shifted


def padded(images: Sequence[Tensor]) -> Tensor:
    """(n, channels, h, w) of images (channels, any h, any w): zeros to the right and below.

    A warp reads zeros outside an image too, so padding changes none of its results.
    """
    if len(images) == 1:
        return images[0][None]
    height, width = (max(image.shape[side] for image in images) for side in (-2, -1))
    out = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    for row, image in zip(out, images, strict=True):
        row[:, : image.shape[-2], : image.shape[-1]] = image
    return out


def warped_images(images: Tensor, matrices: Floats, size: Size) -> Tensor:
    """Inputs (n, channels, *size), float32 in the unit of the images, on their device.

    `images` (n, channels, h, w): uint8 or float. `matrices` (n, 2, 3): from images to inputs. Bilinear, zero outside
    the image, nothing smoothed before it shrinks: cv2.warpAffine with INTER_LINEAR and BORDER_CONSTANT, less its
    rounding of positions to 1/32 and of values to whole numbers.
    """
    height, width = images.shape[-2:]
    to_grid = inverse(matrices) * np.array([[2 / width], [2 / height]])
    to_grid[..., 2] += np.array([1 / width, 1 / height]) - 1
    rows = on_device(torch.from_numpy(to_grid.astype(np.float32)), images.device)[:, :, :, None, None]
    x = torch.arange(size[1], device=images.device, dtype=torch.float32)
    y = torch.arange(size[0], device=images.device, dtype=torch.float32)[:, None]
    # no matrix product, and no affine_grid, which makes one: see warped_points
    planes = torch.empty(len(images), 2, *size, device=images.device)  # all x, then all y: a CPU fills them faster
    for i in (0, 1):
        torch.add(rows[:, i, 0] * x, rows[:, i, 1] * y + rows[:, i, 2], out=planes[:, i])
    grid = planes.permute(0, 2, 3, 1)
    return functional.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
