"""Augmentation of images with class maps: both change alike, squares keep within bounds, colours leave maps alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.datasets.class_maps.types import IGNORED
from tasks.segmentation.augment import Cut, augmented, recoloured, scaled_size
from tasks.segmentation.options import SegmentationAugment

NONE = SegmentationAugment.none()


def pair(height: int, width: int, classes: int = 5) -> tuple[Any, Any]:
    """An image whose red is its class times 40."""
    blocks = np.random.default_rng(height).integers(0, classes, (-(-height // 4), -(-width // 4)))
    numbers = np.kron(blocks, np.ones((4, 4))).astype(np.uint8)[:height, :width]
    return np.stack([numbers * 40, numbers * 0 + 7, numbers * 0 + 9], axis=-1), numbers


def cut(options: SegmentationAugment, seed: int = 0, size: tuple[int, int] = (40, 56), side: int = 32) -> Cut:
    return augmented(*pair(*size), 40, 160, side, options, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("size", "short", "long", "wanted"),
    [
        ((683, 512), 640, 2560, (854, 640)),
        ((512, 683), 640, 2560, (640, 854)),
        ((100, 1000), 640, 2560, (256, 2560)),
        ((96, 96), 96, 384, (96, 96)),
    ],
)
def test_sizes_are_those_of_mmcv(size: tuple[int, int], short: int, long: int, wanted: tuple[int, int]) -> None:
    assert scaled_size(*size, short, long) == wanted


@pytest.mark.parametrize("seed", range(4))
def test_image_and_map_are_cut_and_mirrored_alike(seed: int) -> None:
    made = cut(NONE.model_copy(update={"flip": 0.5}), seed)
    assert made.size == (32, 32)
    np.testing.assert_array_equal(made.image[..., 0], made.classes * 40)


def test_half_of_the_squares_are_mirrored() -> None:
    options = NONE.model_copy(update={"flip": 0.5})
    image, classes = pair(32, 32)
    found = [augmented(image, classes, 32, 32, 32, options, np.random.default_rng(seed)).classes for seed in range(60)]
    mirrored = sum(np.array_equal(each, classes[:, ::-1]) for each in found)
    assert mirrored + sum(np.array_equal(each, classes) for each in found) == 60
    assert 15 < mirrored < 45


def test_small_images_are_padded_on_the_right_and_below_with_no_class() -> None:
    made = cut(NONE.model_copy(update={"scale": (0.5, 0.5)}))
    assert made.size == (20, 28)
    assert (made.classes[20:] == IGNORED).all()
    assert (made.classes[:, 28:] == IGNORED).all()
    assert not made.image[20:].any()
    assert (made.classes[:20, :28] < 5).all()


def test_factors_in_steps_are_equally_likely() -> None:
    options = NONE.model_copy(update={"scale": (0.5, 0.8), "scale_step": 0.1})
    heights = [cut(options, seed, side=64).size[0] for seed in range(200)]
    assert {height: heights.count(height) > 30 for height in set(heights)} == dict.fromkeys((20, 24, 28, 32), True)


def test_squares_of_one_class_are_drawn_again() -> None:
    image = np.zeros((32, 128, 3), np.uint8)
    classes = np.zeros((32, 128), np.uint8)
    classes[:, 100:] = 1
    options = SegmentationAugment(scale=(1, 1), flip=0, colours=0, most_of_one_class=0.75)
    either = [
        [
            len(np.unique(augmented(image, classes, 32, 128, 32, each, np.random.default_rng(seed)).classes))
            for seed in range(40)
        ]
        for each in (options, NONE)
    ]
    assert sum(count == 2 for count in either[0]) > 34  # 1 - (4 / 5) ** 11 of all
    assert sum(count == 2 for count in either[1]) < 25


def test_the_same_generator_gives_the_same_square() -> None:
    options = SegmentationAugment()
    one, same, other = (cut(options, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.classes, same.classes)
    assert not np.array_equal(one.image, other.image)


def test_colours_stay_within_their_bounds() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    only = {"colours": 1, "contrast": (1, 1), "saturation": (1, 1), "hue": 0}
    seen = [
        int(recoloured(grey, SegmentationAugment(brightness=32, **only), np.random.default_rng(s))[0, 0, 0])
        for s in range(200)
    ]
    assert 68 <= min(seen) < 75
    assert 125 < max(seen) <= 132
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    turned = SegmentationAugment(colours=1, brightness=0, contrast=(1, 1), saturation=(1, 1), hue=18)
    found = {tuple(recoloured(red, turned, np.random.default_rng(s))[0, 0].tolist()) for s in range(100)}
    assert len(found) > 20
    assert all(max(each) == 200 and each[0] == 200 for each in found)  # 36 degrees from red: red stays the brightest


def test_no_colours_change_nothing() -> None:
    image = pair(8, 8)[0]
    assert recoloured(image, NONE, np.random.default_rng(0)) is image
