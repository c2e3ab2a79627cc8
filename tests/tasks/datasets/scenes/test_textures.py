"""Colours between pixels, tints and blends are, bit for bit, what their formulas give in whole numbers."""

from __future__ import annotations

import numpy as np

from tasks.datasets.photographs import of_part
from tasks.datasets.scenes.textures import Texture, blended, shades, tinted

DICE = np.random.default_rng(0)


def mirrored(position: int, length: int) -> tuple[int, int]:
    """The pixel at or before a position in 256ths, and how many 256ths of the way to the next one are gone."""
    there = position % (2 * (length - 1) * 256)
    return divmod(min(there, 2 * (length - 1) * 256 - there), 256)


def test_a_colour_between_pixels_is_the_mean_of_four() -> None:
    texture = Texture(of_part("train")[0], "test")
    for step, level in ((0.5, 0), (1.4, 0), (1.5, 1), (3.0, 2)):
        pixels = texture.levels[level]
        height, width = texture.levels[level].shape[:2]
        x, y = DICE.uniform(-700, 1400, (2, 200))
        colours = texture.at(x, y, step)
        shrink = 0.5**level
        for found, across, down in zip(colours.tolist(), x.tolist(), y.tolist(), strict=True):
            left, right_part = mirrored(int(np.floor(((across + 0.5) * shrink - 0.5) * 256)), width)
            top, lower_part = mirrored(int(np.floor(((down + 0.5) * shrink - 0.5) * 256)), height)
            right, below = min(left + 1, width - 1), min(top + 1, height - 1)
            for channel, value in enumerate(found):
                upper = pixels[top, left, channel] * (256 - right_part) + pixels[top, right, channel] * right_part
                lower = pixels[below, left, channel] * (256 - right_part) + pixels[below, right, channel] * right_part
                assert value == (upper * (256 - lower_part) + lower * lower_part + 2**15) // 2**16


def test_a_texture_is_not_changed_by_looking_at_it() -> None:
    texture = Texture(of_part("train")[0], "test")
    before = [level.copy() for level in texture.levels]
    texture.at(*DICE.uniform(-100, 600, (2, 50, 50)), 1.0)
    assert all(np.array_equal(*pair) for pair in zip(texture.levels, before, strict=True))


def test_a_tint_keeps_a_part_of_the_light() -> None:
    lighter = shades(DICE.integers(0, 256, (40, 40, 3)).astype(np.uint8))
    for strength in (0.15, 0.3, 0.6, 0.9):
        colour = DICE.uniform(0, 255, 3)
        whole = np.rint(colour) + np.rint(lighter * strength)[..., None]
        assert np.array_equal(tinted(lighter, colour, strength), np.clip(whole, 0, 255).astype(np.uint8))
    extreme = np.array([[-255, 255]], np.int32)
    assert tinted(extreme, np.array([10.0, 128, 250]), 1.0).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_a_blend_is_the_mean_by_cover() -> None:
    above, below, cover = np.meshgrid(*[np.arange(0, 256, 5)] * 3, indexing="ij")
    found = blended(
        *(each.reshape(1, -1, 1).astype(np.uint8) for each in (below, above)), cover.reshape(1, -1).astype(np.uint8)
    )
    expected = (above * cover + below * (255 - cover) + 127) // 255
    assert np.array_equal(found.reshape(cover.shape), expected)
