"""Augmentation of an image and its depth map together: vertical CutDepth, flip, crop, and colours of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.depth.options import DepthAugment

cv2.setNumThreads(0)  # worker processes are parallel already; torch has one thread there too
Image = NDArray[np.uint8]
Depth = NDArray[np.float32]


@dataclass(frozen=True)
class Drawn:
    """What is done to one sample."""

    top: int
    left: int
    """Corner of the crop, in the image before it is flipped."""
    flip: bool
    strip: tuple[int, int] | None
    """First column of CutDepth's strip, in the whole image, and that after its last. None: no strip."""
    contrast_brightness: tuple[float, float] | None
    """Factor; what is added, as a share of white."""
    gamma: float | None
    hsv: tuple[float, float, float] | None
    """Shifts, in the units of `DepthAugment`."""


@dataclass(frozen=True)
class DepthScale:
    """What the numbers of a depth map are."""

    longest: float
    """Metres that CutDepth shows as white."""
    steps_per_metre: float = 1000
    """Steps of the depth file per metre (NYUv2 1000, KITTI 256); for `uint8_wrap` alone."""


def draw(options: DepthAugment, size: tuple[int, int], crop: tuple[int, int], generator: np.random.Generator) -> Drawn:
    """Draws for an image of `size` (height, width). Whatever the options are, equally many numbers are taken from the
    generator, so that none of them changes what the others draw.

    Raises ValueError when the crop is larger than the image.
    """
    (height, width), (crop_height, crop_width) = size, crop
    if crop_height > height or crop_width > width:
        raise ValueError(
            f"a crop of {crop_height} x {crop_width} from an image of {height} x {width} pixels (height x width): "
            "choose a smaller one, or leave the image out"
        )
    chance, amount = generator.random(5), generator.random(10)
    both_ways = 2 * amount - 1
    start = int(amount[8] * width)
    strip = max(1, int((width - amount[8] * width) * amount[9] * options.cut_depth_width))
    return Drawn(
        top=int(amount[0] * (height - crop_height + 1)),
        left=int(amount[1] * (width - crop_width + 1)),
        flip=bool(chance[0] < options.flip),
        strip=(start, start + strip) if chance[1] < options.cut_depth else None,
        contrast_brightness=(1 + both_ways[2] * options.contrast, both_ways[3] * options.brightness)
        if chance[2] < options.brightness_contrast
        else None,
        gamma=1 + both_ways[4] * options.gamma_range if chance[3] < options.gamma else None,
        hsv=(both_ways[5] * options.hue, both_ways[6] * options.saturation, both_ways[7] * options.value)
        if chance[4] < options.hue_saturation_value
        else None,
    )


def augmented(
    image: Image,
    depth: Depth,
    crop: tuple[int, int],
    options: DepthAugment,
    scale: DepthScale,
    generator: np.random.Generator,
) -> tuple[Image, Depth]:
    """The crop (height, width) of an image (h, w, 3) and of its depth (h, w; metres, 0: not known), augmented; new
    arrays. Raises ValueError when the two differ in size, and as `draw`."""
    if image.shape[:2] != depth.shape:
        sizes = (" x ".join(str(side) for side in shape) for shape in (image.shape[:2], depth.shape))
        raise ValueError("an image of {} pixels with a depth map of {}: these do not belong together".format(*sizes))
    return apply(image, depth, crop, draw(options, depth.shape, crop, generator), options.cut_depth_values, scale)


def apply(
    image: Image,
    depth: Depth,
    crop: tuple[int, int],
    drawn: Drawn,
    values: Literal["scaled", "uint8_wrap"],
    scale: DepthScale,
) -> tuple[Image, Depth]:
    """Does what was drawn, in the order of the depth code: the strip first, so that it is cropped and coloured too."""
    rows, columns = slice(drawn.top, drawn.top + crop[0]), slice(drawn.left, drawn.left + crop[1])
    whole = image  # copied by the first change, or in the end
    image, depth = image[rows, columns], depth[rows, columns]
    if drawn.strip is not None:
        first, end = (max(0, column - drawn.left) for column in drawn.strip)
        image = image.copy()
        image[:, first:end] = depth_as_pixels(depth[:, first:end], values, scale)[..., None]
    if drawn.flip:
        image, depth = cv2.flip(image, 1), cv2.flip(depth, 1)
    else:
        depth = depth.copy()
    tables = [
        *([contrast_brightness_table(*drawn.contrast_brightness)] if drawn.contrast_brightness is not None else []),
        *([gamma_table(drawn.gamma)] if drawn.gamma is not None else []),
    ]
    if tables:
        image = cv2.LUT(image, tables[0] if len(tables) == 1 else tables[1][tables[0]])
    if drawn.hsv is not None:
        image = shifted_hsv(image, *drawn.hsv)
    return image.copy() if np.may_share_memory(image, whole) else image, depth


def planes(image: Image) -> Image:
    """(3, h, w) of an image (h, w, 3), in one piece; shares its memory where that is so already. NumPy takes five
    times as long."""
    turned = image.transpose(2, 0, 1)
    if turned.flags.c_contiguous:
        return turned
    out = np.empty(turned.shape, np.uint8)
    cv2.split(image, list(out))
    return out


def depth_as_pixels(depth: Depth, values: Literal["scaled", "uint8_wrap"], scale: DepthScale) -> Image:
    """Pixels that stand for a depth, see `DepthAugment.cut_depth_values`; what is not known (0, NaN) is black."""
    known = np.nan_to_num(depth, posinf=0, neginf=0)
    if values == "uint8_wrap":
        wrapped: Image = (np.rint(known * scale.steps_per_metre).astype(np.int64) & 255).astype(np.uint8)
        return wrapped
    shown: Image = np.rint(np.clip(known / scale.longest, 0, 1) * 255).astype(np.uint8)
    return shown


def contrast_brightness_table(factor: float, added: float) -> NDArray[np.uint8]:
    """(256,): every pixel times `factor`, plus `added` times 255, cut off at 0 and 255, rounded down as in
    albumentations."""
    table = np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(added * 255)
    limited: NDArray[np.uint8] = np.clip(table, 0, 255).astype(np.uint8)
    return limited


def gamma_table(exponent: float) -> NDArray[np.uint8]:
    """(256,): every pixel, as a share of white, to this power; rounded down as in albumentations."""
    table: NDArray[np.uint8] = ((np.arange(0, 256 / 255, 1 / 255) ** exponent) * 255).astype(np.uint8)[:256]
    return table


def _hue_weights() -> NDArray[np.float32]:
    """(180, 3): how much red, green and blue of a saturated colour of each hue fall below its value."""
    place = (np.array([5, 3, 1]) + np.arange(180)[:, None] / 30) % 6
    return np.clip(np.minimum(place, 4 - place), 0, 1).astype(np.float32)


_HUE_WEIGHTS = _hue_weights()
_AT_ONCE = 32768
"""Pixels that are shifted at once: so few stay in the processor's cache."""


def shifted_hsv(image: Image, hue: float, saturation: float, value: float) -> Image:
    """Shifts hue (units of 2 degrees, around the circle), saturation and value (of 255, cut off at 0 and 255).

    As albumentations does it with OpenCV on 8-bit pixels, up to 1 of 255 apart: hue and saturation are whole numbers,
    and rounded down when they have been shifted; but the way back to red, green and blue rounds to the nearest number.
    """
    if not (hue or saturation or value):
        return image
    steps = np.arange(256)
    hues = np.mod(steps + hue, 180).astype(np.int64) % 180
    saturations, values = (np.floor(np.clip(steps + shift, 0, 255)).astype(np.float32) for shift in (saturation, value))
    weights = [np.ascontiguousarray(of_channel) for of_channel in _HUE_WEIGHTS[hues].T]
    changed = np.empty((3, *image.shape[:2]), np.uint8)
    rows = max(1, _AT_ONCE // image.shape[1])
    for start in range(0, len(image), rows):
        piece = slice(start, start + rows)
        old_hue, old_saturation, old_value = cv2.split(cv2.cvtColor(image[piece], cv2.COLOR_RGB2HSV))
        new_value = cv2.LUT(old_value, values)
        fall = new_value * cv2.LUT(old_saturation, saturations) / np.float32(255)  # how far a channel may lie below it
        for channel, weight in zip(changed, weights, strict=True):
            cv2.subtract(new_value, fall * cv2.LUT(old_hue, weight), channel[piece], dtype=cv2.CV_8U)  # rounds
    return changed.transpose(1, 2, 0)
