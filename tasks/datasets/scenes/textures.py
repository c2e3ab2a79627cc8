"""Views of photographs: at any place, scale, angle and brightness, for backgrounds, cut-outs, limbs and walls."""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.photographs import Photograph, PhotoPart, of_part, open_photograph

Pixels: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float64]

LARGEST = 512
"""A photograph is first made smaller until its longer side is no longer than this."""
SMALLEST = 32
"""Levels of half the size follow until the shorter side would be less than this."""
_BITS = 8
_ONE = 1 << _BITS
"""Weights of the bilinear interpolation are whole numbers of this part."""


class Texture:
    """A photograph at full, half, quarter .. size, which continues as in a mirror beyond its edges."""

    def __init__(self, photo: Photograph, name: str) -> None:
        """`name`: of the data set, for messages. Raises DataError."""
        from PIL import Image

        self.photo = photo
        image = open_photograph(photo, name)
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX, reducing_gap=None)
        self.levels: list[NDArray[np.int32]] = []
        """(height, width, 3)"""
        while True:
            self.levels.append(np.asarray(image, dtype=np.int32))
            if min(image.size) < 2 * SMALLEST:
                break
            image = image.reduce(2)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the full size."""
        height, width = self.levels[0].shape[:2]
        return width, height

    def at(self, x: Floats, y: Floats, step: float) -> Pixels:
        """Colours (.., 3) at positions in pixels of the full size. `step`: pixels between neighbouring positions; it
        selects the level, so that fine detail does not flicker."""
        level = int(np.clip(np.floor(np.log2(max(step, 1.0)) + 0.5), 0, len(self.levels) - 1))
        pixels, shrink = self.levels[level], 0.5**level
        height, width = pixels.shape[:2]
        left, across = _mirrored((x + 0.5) * shrink - 0.5, width)
        top, down = _mirrored((y + 0.5) * shrink - 0.5, height)
        right, below = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1) * width
        top *= width
        flat = pixels.reshape(-1, 3)
        upper = _between(flat.take(top + left, axis=0), flat.take(top + right, axis=0), across)
        lower = _between(flat.take(below + left, axis=0), flat.take(below + right, axis=0), across)
        mean = (_between(upper, lower, down) + (1 << 2 * _BITS - 1)) >> 2 * _BITS
        colours: Pixels = mean.astype(np.uint8)
        return colours


def _mirrored(position: Floats, length: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The pixel at or before each position, mirrored into 0..length-1, and the part of the way to the next one."""
    fixed = np.floor(position * _ONE).astype(np.int64) % (2 * (length - 1) * _ONE)
    fixed = np.minimum(fixed, 2 * (length - 1) * _ONE - fixed)
    return fixed >> _BITS, (fixed & _ONE - 1).astype(np.int32)[..., None]


def _between(first: NDArray[np.int32], second: NDArray[np.int32], part: NDArray[np.int32]) -> NDArray[np.int32]:
    """_ONE times the values that lie `part` of _ONE on the way from the first to the second."""
    second -= first  # both are ours
    second *= part
    first <<= _BITS
    first += second
    return first


class Textures:
    """The photographs of one part, and random views of them."""

    def __init__(self, part: PhotoPart, name: str) -> None:
        """`name`: of the data set, for messages. Raises DataError."""
        self.all = _opened(part, name)

    def drawn(self, random: np.random.Generator) -> Texture:
        """One of the photographs."""
        return self.all[int(random.integers(len(self.all)))]

    def view(
        self,
        random: np.random.Generator,
        width: int,
        height: int,
        zoom: tuple[float, float],
        contrast: tuple[float, float] = (0.6, 1.2),
    ) -> Pixels:
        """A window (height, width, 3) on a random photograph at a random place and angle, with random colours. `zoom`:
        least and greatest pixels of the photograph between two of the window's. `contrast`: see `recoloured`."""
        texture = self.drawn(random)
        step = float(np.exp(random.uniform(*np.log(zoom))))
        angle = random.uniform(-np.pi, np.pi) if random.random() < 0.5 else random.normal(0, 0.1)
        x, y = np.meshgrid(np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2)
        x = x * (1 if random.random() < 0.5 else -1)
        centre = [random.uniform(0, side) for side in texture.size]
        across = centre[0] + step * (np.cos(angle) * x - np.sin(angle) * y)
        down = centre[1] + step * (np.sin(angle) * x + np.cos(angle) * y)
        return recoloured(texture.at(across, down, step), random, contrast)


@cache
def _opened(part: PhotoPart, name: str) -> tuple[Texture, ...]:
    return tuple(Texture(photo, name) for photo in of_part(part))


def recoloured(
    pixels: Pixels, random: np.random.Generator, contrast: tuple[float, float] = (0.6, 1.2), tint: float = 0.25
) -> Pixels:
    """The pixels with random contrast and brightness, and each channel times 1 - tint to 1 + tint."""
    mean = pixels.reshape(-1, 3).mean(axis=0)
    factor = random.uniform(*contrast)
    gains = random.uniform(1 - tint, 1 + tint, 3)
    offset = random.uniform(-40, 40)
    levels = np.arange(256)[:, None]
    table = np.clip(np.rint(((levels - mean) * factor + mean) * gains + offset), 0, 255).astype(np.uint8)
    return np.stack([table[pixels[..., channel], channel] for channel in range(3)], axis=-1)


def shades(pixels: Pixels) -> NDArray[np.int32]:
    """How much lighter than its mean each pixel is: (h, w), in levels of 256."""
    red, green, blue = np.moveaxis(pixels.astype(np.int32), -1, 0)
    luma = (299 * red + 587 * green + 114 * blue) // 1000
    lighter: NDArray[np.int32] = luma - int(luma.mean())
    return lighter


def tinted(lighter: NDArray[np.int32], colour: Floats, strength: float) -> Pixels:
    """A texture's light and dark (see `shades`) around a colour. `strength`: part of the contrast that is kept."""
    shade = np.rint(np.arange(-255, 256) * strength)[:, None]
    table = np.clip(np.rint(colour) + shade, 0, 255).astype(np.uint8)
    colours: Pixels = table.take(lighter + 255, axis=0)
    return colours


def blended(below: Pixels, above: Pixels, cover: Pixels) -> Pixels:
    """`above` over `below` where `cover` (h, w) is 255, in between where it is between 0 and 255."""
    weight = cover[..., None].astype(np.int32)
    below = below.astype(np.int32)
    mean: Pixels = ((below * 255 + (above - below) * weight + 127) // 255).astype(np.uint8)
    return mean
