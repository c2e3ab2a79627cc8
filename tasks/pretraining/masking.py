"""Masks of pre-training: which patches of an image are hidden, and how far hidden pixels are from visible ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask: TypeAlias = NDArray[np.bool_]
    """(grid, grid), one value per mask patch; true: hidden."""


@dataclass(frozen=True)
class Masking:
    """Squares of `patch` pixels on a regular grid, a fixed number of them hidden, drawn without replacement.

    Raises ValueError when the patch does not divide the image, or nothing or everything would be hidden.
    """

    image_size: int
    """Side of the image in pixels."""
    patch: int
    """Side of a mask patch in pixels."""
    ratio: float
    """Part of the patches that is hidden, rounded up to a whole patch."""

    def __post_init__(self) -> None:
        if self.image_size % self.patch:
            near = [n for n in range(1, self.image_size + 1) if self.image_size % n == 0]
            nearest = sorted(sorted(near, key=lambda n: abs(n - self.patch))[:2])
            raise ValueError(
                f"mask_patch {self.patch} does not divide image_size {self.image_size}; "
                f"for example {' or '.join(map(str, nearest))} does"
            )
        if not 0 < self.count < self.patches:
            raise ValueError(
                f"mask_ratio {self.ratio:g} hides {self.count} of {self.patches} patches of {self.patch} pixels; "
                "some must be hidden and some seen: change mask_ratio or use a smaller mask_patch"
            )

    @property
    def grid(self) -> int:
        """Mask patches along a side."""
        return self.image_size // self.patch

    @property
    def patches(self) -> int:
        return self.grid**2

    @property
    def count(self) -> int:
        """Hidden patches: SimMIM's code takes the ceiling (22 of 36 at 192 pixels, patch 32, ratio 0.6)."""
        return math.ceil(self.ratio * self.patches)

    def draw(self, random: np.random.RandomState) -> Mask:
        """One mask. RandomState's stream is guaranteed never to change, so a seed always gives the same mask."""
        import numpy as np  # not above: specs are checked without numpy

        hidden = np.zeros(self.patches, dtype=np.bool_)
        hidden[random.permutation(self.patches)[: self.count]] = True
        return hidden.reshape(self.grid, self.grid)

    def of(self, seed: int) -> Mask:
        """The mask of a seed of any length."""
        mask: Mask = self.stacked([seed])[0]
        return mask

    def stacked(self, seeds: Sequence[int]) -> NDArray[np.bool_]:
        """(n, grid, grid): the masks of n seeds, each the one that `of` gives.

        One generator is seeded again for each: making a new one takes ten times as long, 10 ms for a batch of 128.
        """
        import numpy as np

        random = np.random.RandomState(0)
        masks = np.empty((len(seeds), self.grid, self.grid), dtype=np.bool_)
        for mask, seed in zip(masks, seeds, strict=True):
            random.seed([seed >> shift & 0xFFFFFFFF for shift in range(0, max(seed.bit_length(), 1), 32)])
            mask[:] = self.draw(random)
        return masks


def check_patch(mask_patch: int, model_patch: int) -> None:
    """Raises ValueError unless a mask patch is a multiple of the model's patch; both in pixels."""
    if model_patch < 1:
        raise ValueError(f"backbone.args.patch_size {model_patch}: a patch has at least one pixel")
    if mask_patch % model_patch:
        raise ValueError(
            f"mask_patch {mask_patch} is no multiple of the model's patch of {model_patch} pixels: "
            f"use for example {model_patch * max(1, round(mask_patch / model_patch))}"
        )


def average_distance(masks: list[Mask], patch: int) -> float:
    """AvgDist of the paper (section 3.1): the mean, over hidden pixels, of the Euclidean distance in pixels to the
    nearest visible pixel. `patch`: side of a mask patch in pixels. Every mask must hide and show something.

    Per mask a mean over its hidden pixels, then a mean over masks; with a fixed count these are all one mean.
    """
    import numpy as np
    from scipy.ndimage import distance_transform_edt

    means = []
    for mask in masks:
        pixels = np.repeat(np.repeat(mask, patch, axis=0), patch, axis=1)
        means.append(float(distance_transform_edt(pixels)[pixels].mean()))
    return float(np.mean(means))


@cache
def expected_distance(masking: Masking) -> float:
    """AvgDist of a setting in pixels: the mean of `average_distance` over all masks that can be drawn, exactly.

    A hidden pixel's nearest visible patch is its m-th nearest one (m from 0) when the m before it are hidden too: with
    k of n patches hidden that is a product of m fractions (k - 1 - i) / (n - 1 - i). All pixels are hidden as often.
    """
    import numpy as np

    n, k, patch, grid = masking.patches, masking.count, masking.patch, masking.grid
    order = np.arange(k)
    before = np.concatenate([[1.0], np.cumprod((k - 1 - order[:-1]) / (n - 1 - order[:-1]))])
    chance = before - np.append(before[1:], 0.0)  # that the nearest m are hidden and the next one is not
    enough = int(np.searchsorted(-chance, -1e-12))
    first = np.arange(grid) * patch
    total = weight = 0.0
    for row in range((grid + 1) // 2):  # the others mirror these
        y = row * patch + np.arange(patch)[:, None]
        down = np.maximum(np.maximum(first - y, y - first - patch + 1), 0)
        for column in range((grid + 1) // 2):
            x = column * patch + np.arange(patch)[:, None]
            right = np.maximum(np.maximum(first - x, x - first - patch + 1), 0)
            squares = (down**2)[:, None, :, None] + (right**2)[None, :, None, :]
            squares = np.delete(squares.reshape(patch**2, n), row * grid + column, axis=1)
            nearest = np.sort(np.partition(squares, min(enough, n - 2), axis=1)[:, :enough], axis=1)
            times = (1 if 2 * row + 1 == grid else 2) * (1 if 2 * column + 1 == grid else 2)
            total += times * float((np.sqrt(nearest) @ chance[:enough]).mean())
            weight += times
    return total / weight
