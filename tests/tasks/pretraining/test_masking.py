"""Which patches are hidden, and AvgDist."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from tasks.pretraining.masking import Masking, average_distance, check_patch, expected_distance


@pytest.mark.parametrize(
    ("image_size", "patch", "ratio", "grid", "hidden"),
    [
        (192, 32, 0.6, 6, 22),
        (224, 32, 0.6, 7, 30),
        (192, 32, 0.5, 6, 18),
        (192, 64, 0.5, 3, 5),
        (192, 4, 0.6, 48, 1383),
    ],
)
def test_so_many_patches_are_hidden_as_in_the_reference(
    image_size: int, patch: int, ratio: float, grid: int, hidden: int
) -> None:
    masking = Masking(image_size, patch, ratio)
    for seed in (0, 1, 2**63 - 1):
        mask = masking.of(seed)
        assert mask.shape == (grid, grid)
        assert mask.sum() == hidden == masking.count


def test_a_mask_is_a_function_of_its_seed() -> None:
    masking = Masking(192, 32, 0.6)
    assert (masking.of(7) == masking.of(7)).all()
    assert len({masking.of(seed).tobytes() for seed in range(50)}) == 50
    assert (masking.of(1) != masking.of(1 + 2**32)).any()  # all of a long seed counts
    expected = "111100 001001 011111 001101 001110 011111".replace(" ", "")
    assert "".join(str(int(hidden)) for hidden in masking.of(3).ravel()) == expected  # today's is tomorrow's


def test_masks_of_a_batch_are_those_of_new_generators() -> None:
    masking, seeds = Masking(192, 32, 0.6), [0, 7, 2**32 + 1, 2**62 + 12345]
    masks = masking.stacked(seeds)
    for seed, mask in zip(seeds, masks, strict=True):
        words = [seed & 0xFFFFFFFF, seed >> 32] if seed >= 2**32 else [seed]
        assert (mask == masking.draw(np.random.RandomState(words))).all()
        assert (mask == masking.of(seed)).all()
    assert len({mask.tobytes() for mask in masks}) == len(seeds)


def test_every_patch_is_hidden_equally_often() -> None:
    """And pairs of patches too: no mask has a fixed form."""
    masking = Masking(24, 4, 0.6)
    masks = np.stack([masking.of(seed).ravel() for seed in range(2000)]).astype(float)
    assert set(masks.sum(1)) == {22.0}
    assert np.abs(masks.mean(0) - 22 / 36).max() < 5 * math.sqrt(0.24 / 2000)
    together = masks.T @ masks / 2000
    apart = ~np.eye(36, dtype=bool)
    assert np.abs(together[apart] - 22 / 36 * 21 / 35).max() < 5 * math.sqrt(0.24 / 2000)


def test_a_patch_that_does_not_divide_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="mask_patch 32 does not divide image_size 200; for example 25 or 40 does"):
        Masking(200, 32, 0.6)
    assert [Masking(200, patch, 0.6).grid for patch in (25, 40)] == [8, 5]


@pytest.mark.parametrize(("patch", "ratio"), [(192, 0.6), (96, 0.9)])
def test_hiding_all_is_refused(patch: int, ratio: float) -> None:
    with pytest.raises(ValueError, match="some must be hidden and some seen"):
        Masking(192, patch, ratio)
    assert Masking(192, patch // 2, ratio / 2).count in (2, 8)


def test_average_distance_is_that_of_the_definition() -> None:
    """Against two loops over pixels."""
    mask = np.array([[True, True, False], [True, True, True], [False, True, True]])
    patch = 3
    pixels = [(y, x) for y in range(9) for x in range(9)]
    seen = [(y, x) for y, x in pixels if not mask[y // patch, x // patch]]
    hidden = [(y, x) for y, x in pixels if mask[y // patch, x // patch]]
    nearest = [min(math.dist(pixel, other) for other in seen) for pixel in hidden]
    assert average_distance([mask], patch) == pytest.approx(sum(nearest) / len(nearest))
    assert average_distance([mask, ~mask], patch) == pytest.approx(
        (average_distance([mask], patch) + average_distance([~mask], patch)) / 2
    )


def test_average_distances_of_the_papers_settings() -> None:
    """Figures of an independent computation at 192 pixels, 200 masks a setting drawn from one stream, one after the
    other (from another stream a mean of 200 masks differs by up to 0.35 pixels at ratio 0.8)."""
    random = np.random.RandomState(0)
    for ratio, expected in ((0.1, 7.65), (0.4, 10.95), (0.5, 12.58), (0.6, 15.37), (0.7, 19.67), (0.8, 25.65)):
        masking = Masking(192, 32, ratio)
        assert average_distance([masking.draw(random) for _ in range(200)], 32) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("patch", "ratio", "expected"),
    [(32, 0.6, 15.37), (32, 0.5, 12.58), (32, 0.1, 7.65), (16, 0.6, 7.28), (16, 0.8, 12.51), (8, 0.6, 3.70),
     (8, 0.8, 6.06), (4, 0.6, 2.08), (4, 0.8, 3.25)],
)  # fmt: skip
def test_expected_distance_is_near_that_of_drawn_masks(patch: int, ratio: float, expected: float) -> None:
    """The same independent computation, of 200 masks."""
    assert expected_distance(Masking(192, patch, ratio)) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    ("size", "patch", "ratio"), [(12, 4, 0.5), (8, 4, 0.5), (12, 4, 0.7), (12, 6, 0.5), (12, 4, 0.1), (12, 4, 0.85)]
)
def test_expected_distance_is_the_mean_of_all_masks(size: int, patch: int, ratio: float) -> None:
    masking = Masking(size, patch, ratio)
    masks = []
    for chosen in itertools.combinations(range(masking.patches), masking.count):
        mask = np.zeros(masking.patches, bool)
        mask[list(chosen)] = True
        masks.append(mask.reshape(masking.grid, masking.grid))
    assert expected_distance(masking) == pytest.approx(average_distance(masks, patch), rel=1e-9)


def test_a_mask_patch_is_a_multiple_of_a_patch_of_at_least_one_pixel() -> None:
    for mask_patch, model_patch in ((16, 1), (1, 1), (16, 16), (32, 4)):
        check_patch(mask_patch, model_patch)
    for model_patch in (0, -1):
        with pytest.raises(ValueError, match=f"patch_size {model_patch}: a patch has at least one pixel"):
            check_patch(16, model_patch)
    for mask_patch, model_patch, better in ((6, 4, 8), (1, 4, 4), (33, 16, 32)):
        with pytest.raises(ValueError, match=f"patch of {model_patch} pixels: use for example {better}$"):
            check_patch(mask_patch, model_patch)
