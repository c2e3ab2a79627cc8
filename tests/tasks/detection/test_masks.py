"""Masks of detections: the code of a window is that of the whole image, and probabilities are pasted in their box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faster_coco_eval.core import mask
from torch.nn import functional

from tasks.detection.masks import encoded, rle_of

SIZE = (23, 31)


def whole(window: np.ndarray, top: int, left: int) -> np.ndarray:
    image = np.zeros(SIZE, np.uint8)
    image[top : top + window.shape[0], left : left + window.shape[1]] = window
    return image


@pytest.mark.parametrize(
    ("top", "left", "height", "width"),
    [(3, 4, 9, 12), (0, 0, 23, 31), (0, 5, 23, 7), (14, 20, 9, 11), (5, 6, 1, 1), (2, 2, 0, 3), (0, 0, 1, 31)],
)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.97, 1.0])
def test_a_window_has_the_code_of_the_whole_image(top: int, left: int, height: int, width: int, share: float) -> None:
    window = np.random.default_rng([top, left, height]).random((height, width)) < share
    wanted = mask.encode(np.asfortranarray(whole(window, top, left)))["counts"]
    assert encoded(window, top, left, SIZE) == bytes(wanted)


@pytest.mark.parametrize("box", [(3.3, 4.8, 20.1, 17.9), (-4.2, 2.0, 12.0, 30.5), (10.0, 10.0, 13.4, 12.7)])
def test_probabilities_are_pasted_bilinearly(box: tuple[float, ...]) -> None:
    """As grid_sample gives them at the centres of pixels, which is how Detectron2 and mmdetection paste masks."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 1, 5, 5, generator=generator)
    probabilities = functional.interpolate(coarse, (28, 28), mode="bilinear")[0, 0]
    left, top, right, bottom = box
    x = (torch.arange(SIZE[1]) + 0.5 - left) / (right - left) * 2 - 1
    y = (torch.arange(SIZE[0]) + 0.5 - top) / (bottom - top) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    pasted = functional.grid_sample(probabilities[None, None], grid, align_corners=False)[0, 0]
    # beyond the box both fall to 0 within half a step; a pixel that the box does not touch is never part of a mask
    got = mask.decode({"size": list(SIZE), "counts": rle_of(probabilities.numpy(), np.array(box), SIZE)})
    inside = torch.zeros(SIZE, dtype=torch.bool)
    inside[max(0, int(np.floor(top))) : int(np.ceil(bottom)), max(0, int(np.floor(left))) : int(np.ceil(right))] = True
    wanted = (pasted >= 0.5) & inside
    unsure = (pasted - 0.5).abs() < 1e-4
    assert wanted.any()
    assert ((torch.from_numpy(got.astype(bool)) == wanted) | unsure).all()


def test_a_box_without_extent_is_empty() -> None:
    counts = rle_of(np.ones((28, 28), np.float32), np.array([5.0, 5.0, 5.0, 5.0]), SIZE)
    assert mask.area({"size": list(SIZE), "counts": counts}) == 0
