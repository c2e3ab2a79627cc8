"""Augmentation of image and depth: colours against albumentations, everything else by construction."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from tasks.depth.augment import (
    DepthAugment,
    DepthScale,
    Drawn,
    apply,
    augmented,
    contrast_brightness_table,
    depth_as_pixels,
    draw,
    gamma_table,
    planes,
    shifted_hsv,
)

DATA = Path(__file__).parents[2] / "data" / "depth"
NOTHING = Drawn(top=0, left=0, flip=False, strip=None, contrast_brightness=None, gamma=None, hsv=None)
OFF: dict[str, Any] = {
    "flip": 0, "brightness_contrast": 0, "gamma": 0, "hue_saturation_value": 0, "cut_depth": 0,
}  # fmt: skip
NYU = DepthScale(longest=10, steps_per_metre=1000)


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[Any]]:
    with np.load(DATA / "augmentations.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def numbered(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """An image whose pixels say where they are (row, column, 7), and the same as a depth."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, np.full_like(rows, 7)], axis=-1).astype(np.uint8)
    return image, (rows * 1000 + columns).astype(np.float32)


def after(drawn: Drawn, crop: tuple[int, int] = (4, 6)) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    image, depth = numbered(8, 12)
    return apply(image, depth, crop, drawn, "scaled", NYU)


def test_brightness_contrast_and_gamma_are_albumentations(golden: dict[str, NDArray[Any]]) -> None:
    image = golden["image"]
    for (factor, added), expected in zip(
        golden["brightness_contrast"], golden["brightness_contrast_images"], strict=True
    ):
        assert np.array_equal(contrast_brightness_table(factor, added)[image], expected)
    for exponent, expected in zip(golden["gamma"], golden["gamma_images"], strict=True):
        assert np.array_equal(gamma_table(float(exponent))[image], expected)


def test_shifts_of_hue_saturation_and_value_are_albumentations(golden: dict[str, NDArray[Any]]) -> None:
    for shifts, expected in zip(golden["hsv"], golden["hsv_images"], strict=True):
        changed = shifted_hsv(golden["image"], *shifts)
        assert np.abs(changed.astype(int) - expected.astype(int)).max() <= 1
        assert not any(shifts) or np.abs(changed.astype(int) - golden["image"].astype(int)).max() > 15


def test_shifts_are_to_the_bit_those_of_earlier_trials() -> None:
    """The digest was made without OpenCV, by whole numbers and tables (code before 27 November 2026)."""
    steps = np.arange(0, 256, 5, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(len(steps), -1, 3)
    content = hashlib.sha256()
    for shifts in ((12.3, -17.5, 9.25), (-19, 28, -20), (90, 0, 0), (0, 0, 3)):
        content.update(np.ascontiguousarray(shifted_hsv(colours, *shifts)).tobytes())
    assert content.hexdigest() == "55b0fec6faa1c0c1825de218a7c732e5bfd56ed8dbe93fbbf21e871623f29ae0"


def test_pure_colours_turn_around_the_circle() -> None:
    """60 is a third of it: red becomes green, green blue, blue red; backwards likewise."""
    colours = np.array([[[200, 0, 0], [0, 200, 0], [0, 0, 200]]], dtype=np.uint8)
    assert np.array_equal(shifted_hsv(colours, 60, 0, 0), np.roll(colours, -1, axis=1))
    assert np.array_equal(shifted_hsv(colours, -60, 0, 0), np.roll(colours, 1, axis=1))
    assert np.array_equal(shifted_hsv(colours, 0, 0, 30).max(-1), [[230, 230, 230]])
    assert np.array_equal(shifted_hsv(colours, 0, -255, 0), np.full((1, 3, 3), 200))


def test_image_and_depth_are_cropped_and_flipped_together() -> None:
    image, depth = numbered(8, 12)
    cropped, its_depth = after(Drawn(2, 5, False, None, None, None, None))
    assert np.array_equal(cropped, image[2:6, 5:11])
    assert np.array_equal(its_depth, depth[2:6, 5:11])
    flipped, its_depth = after(Drawn(2, 5, True, None, None, None, None))
    assert np.array_equal(flipped, image[2:6, 5:11][:, ::-1])
    assert np.array_equal(its_depth, depth[2:6, 5:11][:, ::-1])


def test_the_arrays_that_come_in_stay_as_they_are() -> None:
    image, depth = numbered(8, 12)
    drawn = Drawn(0, 0, True, (2, 5), (1.1, 0.1), 0.9, (5, 5, 5))
    changed, its_depth = apply(image, depth, (8, 12), drawn, "scaled", NYU)
    assert np.array_equal(image, numbered(8, 12)[0])
    assert np.array_equal(depth, numbered(8, 12)[1])
    plain, plain_depth = apply(image, depth, (8, 12), NOTHING, "scaled", NYU)
    plain[:], plain_depth[:] = 0, 0
    assert image[1].any()
    assert depth[1].any()
    assert not np.shares_memory(changed, image)
    assert not np.shares_memory(its_depth, depth)
    assert (changed.dtype, its_depth.dtype) == (np.uint8, np.float32)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("tables", [{}, {"contrast_brightness": (1.1, 0.1)}, {"gamma": 0.9}])
@pytest.mark.parametrize("hsv", [None, (0.0, 0.0, 0.0), (5.0, 5.0, 5.0)])
def test_whatever_is_drawn_makes_new_arrays(flip: bool, tables: dict[str, Any], hsv: Any) -> None:
    image, depth = numbered(8, 12)
    for pixels in (image, depth):
        pixels.flags.writeable = False  # as those of the node's cache
    changed = apply(image, depth, (6, 9), replace(NOTHING, flip=flip, hsv=hsv, top=1, left=2, **tables), "scaled", NYU)
    for new, old in zip(changed, (image, depth), strict=True):
        assert not np.shares_memory(new, old)
        assert new.flags.writeable


def test_planes_are_those_of_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    beside_each_other = np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0)
    for each in (image, image[1:4, 2:6], beside_each_other):
        made = planes(each)
        assert made.flags.c_contiguous
        assert np.array_equal(made, each.transpose(2, 0, 1))
    assert np.shares_memory(planes(beside_each_other), beside_each_other)


def test_colours_change_the_image_alone() -> None:
    image, depth = after(Drawn(0, 0, False, None, (0.9, 0.2), 1.2, (10, 0, 0)))
    plain, its_depth = after(NOTHING)
    assert np.array_equal(depth, its_depth)
    assert not np.array_equal(image, plain)
    bright = contrast_brightness_table(0.9, 0.2)[plain]
    assert np.array_equal(image, shifted_hsv(gamma_table(1.2)[bright], 10, 0, 0))


@pytest.mark.parametrize(
    ("strip", "columns"), [((6, 8), slice(1, 3)), ((2, 7), slice(0, 2)), ((9, 12), slice(4, 6)), ((0, 5), slice(0, 0))]
)
def test_a_strip_lies_in_the_whole_image_over_its_whole_height(strip: tuple[int, int], columns: slice) -> None:
    """The crop begins at column 5."""
    image, depth = after(Drawn(2, 5, False, strip, None, None, None))
    expected, plain_depth = after(Drawn(2, 5, False, None, None, None, None))
    expected[:, columns] = 255  # farther than 10 m
    assert np.array_equal(image, expected)
    assert np.array_equal(depth, plain_depth)
    mirrored, _ = after(Drawn(2, 5, True, strip, None, None, None))
    assert np.array_equal(mirrored, expected[:, ::-1])
    darker, _ = after(Drawn(2, 5, False, strip, (0.5, 0), None, None))
    assert np.array_equal(darker, contrast_brightness_table(0.5, 0)[expected])


def test_depth_is_shown_from_black_to_white() -> None:
    depth = np.array([0, 1e-3, 2.5, 5, 10, 12, np.nan, np.inf], dtype=np.float32)
    assert depth_as_pixels(depth, "scaled", NYU).tolist() == [0, 0, 64, 128, 255, 255, 0, 0]


@pytest.mark.parametrize("steps_per_metre", [1000, 256])
def test_the_wrap_shows_the_lowest_byte_of_the_files_numbers(steps_per_metre: float) -> None:
    """Of every number that 16 bits hold, though metres are given."""
    numbers = np.arange(1 << 16)
    metres = numbers.astype(np.float32) / np.float32(steps_per_metre)
    shown = depth_as_pixels(metres, "uint8_wrap", DepthScale(longest=80, steps_per_metre=steps_per_metre))
    assert np.array_equal(shown, numbers % 256)
    image, _ = numbered(2, 4)
    options = DepthAugment(**{**OFF, "cut_depth": 1, "cut_depth_width": 1, "cut_depth_values": "uint8_wrap"})
    generator = np.random.default_rng(0)
    pasted = [
        augmented(image, np.full((2, 4), 2.57, np.float32), (2, 4), options, NYU, generator)[0] for _ in range(20)
    ]
    assert {10} == {int(value) for one in pasted for value in one[one != image]}  # 2570 = 10 * 256 + 10


def test_amounts_and_frequencies_are_those_asked_for() -> None:
    options, generator, count = DepthAugment(), np.random.default_rng(0), 8000
    drawn = [draw(options, (480, 640), (470, 600), generator) for _ in range(count)]
    assert {one.top for one in drawn} == set(range(11))
    assert {one.left for one in drawn} == set(range(41))
    for share, done in (
        (0.5, [one.flip for one in drawn]),
        (0.25, [one.strip is not None for one in drawn]),
        (0.5, [one.contrast_brightness is not None for one in drawn]),
        (0.5, [one.gamma is not None for one in drawn]),
        (0.5, [one.hsv is not None for one in drawn]),
    ):
        assert abs(sum(done) / count - share) < 0.02
    changes = np.array([one.contrast_brightness for one in drawn if one.contrast_brightness])
    shifts = np.array([one.hsv for one in drawn if one.hsv])
    exponents = np.array([one.gamma for one in drawn if one.gamma])
    for values, low, high in (
        (changes[:, 0], 0.8, 1.2), (changes[:, 1], -0.2, 0.2), (exponents, 0.8, 1.2),
        (shifts[:, 0], -20, 20), (shifts[:, 1], -30, 30), (shifts[:, 2], -20, 20),
    ):  # fmt: skip
        near = (high - low) * 0.01
        assert low <= values.min() < low + near
        assert high - near < values.max() < high
        assert abs(values.mean() - (low + high) / 2) < 2 * near


def test_amounts_do_not_depend_on_each_other() -> None:
    always = DepthAugment(brightness_contrast=1, gamma=1, hue_saturation_value=1, cut_depth=1)
    generator, rows = np.random.default_rng(0), []
    for _ in range(4000):
        drawn = draw(always, (480, 640), (240, 320), generator)
        assert drawn.strip is not None
        assert drawn.contrast_brightness is not None
        assert drawn.hsv is not None
        share = (drawn.strip[1] - drawn.strip[0]) / (640 - drawn.strip[0])  # the width depends on the left edge
        rows.append(
            [
                drawn.top,
                drawn.left,
                drawn.flip,
                drawn.strip[0],
                share,
                drawn.gamma,
                *drawn.contrast_brightness,
                *drawn.hsv,
            ]
        )
    correlations = np.corrcoef(np.array(rows, dtype=float), rowvar=False)
    assert np.abs(correlations - np.eye(len(correlations))).max() < 0.07


def test_strips_are_as_wide_as_the_public_codes() -> None:
    """Left edge uniform; width uniform up to three quarters of what is right of it, one column at least."""
    options, generator = DepthAugment(cut_depth=1), np.random.default_rng(0)
    strips = np.array([draw(options, (480, 640), (480, 480), generator).strip for _ in range(8000)])
    lefts, widths = strips[:, 0], strips[:, 1] - strips[:, 0]
    assert (lefts.min(), lefts.max(), widths.min()) == (0, 639, 1)
    assert (strips[:, 1] <= 640).all()
    assert (widths <= np.maximum(1, 0.75 * (640 - lefts))).all()
    assert abs(widths[lefts < 64].mean() / (0.75 * 608 / 2) - 1) < 0.05


def test_an_option_that_is_off_changes_nothing_of_the_others() -> None:
    plain, quiet = DepthAugment(), DepthAugment(gamma=0, cut_depth=0, brightness_contrast=0)
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(50):
        first, second = draw(plain, (9, 9), (4, 4), one), draw(quiet, (9, 9), (4, 4), other)
        assert (first.top, first.left, first.flip, first.hsv) == (second.top, second.left, second.flip, second.hsv)
        assert (second.gamma, second.strip, second.contrast_brightness) == (None, None, None)


def test_the_same_generator_makes_the_same_sample() -> None:
    image, depth = numbered(8, 12)
    first, again, other = (
        [augmented(image, depth, (4, 6), DepthAugment(), NYU, generator) for _ in range(5)]
        for generator in map(np.random.default_rng, (1, 1, 2))
    )
    same = [all(map(np.array_equal, a, b)) for a, b in zip(first, again, strict=True)]
    assert all(same)
    assert not all(all(map(np.array_equal, a, b)) for a, b in zip(first, other, strict=True))


def test_a_crop_as_large_as_the_image_is_the_image() -> None:
    image, depth = numbered(8, 12)
    whole, its_depth = augmented(image, depth, (8, 12), DepthAugment(**OFF), NYU, np.random.default_rng(0))
    assert np.array_equal(whole, image)
    assert np.array_equal(its_depth, depth)


@pytest.mark.parametrize("crop", [(9, 12), (8, 13)])
def test_a_crop_larger_than_the_image_is_refused(crop: tuple[int, int]) -> None:
    image, depth = numbered(8, 12)
    with pytest.raises(ValueError, match=f"a crop of {crop[0]} x {crop[1]} from an image of 8 x 12 pixels"):
        augmented(image, depth, crop, DepthAugment(), NYU, np.random.default_rng(0))


def test_a_depth_map_of_another_size_is_refused() -> None:
    image, _ = numbered(8, 12)
    with pytest.raises(ValueError, match="an image of 8 x 12 pixels with a depth map of 8 x 11"):
        augmented(image, numbered(8, 11)[1], (4, 4), DepthAugment(), NYU, np.random.default_rng(0))


@pytest.mark.parametrize("wrong", [{"flip": 1.1}, {"gamma_range": 1}, {"hue": -1}, {"cut_depth_values": "raw"}])
def test_options_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        DepthAugment(**wrong)
