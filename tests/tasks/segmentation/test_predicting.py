"""Squares that slide over an image, and whole images that are padded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tasks.segmentation.predicting import Predicting, starts

SLIDE = Predicting("slide", 8, 5, 1)
WHOLE = Predicting("whole", 8, 5, 16)


def brightest(images: Tensor) -> Tensor:
    """Scores of a pixel follow from it alone."""
    return images


@pytest.mark.parametrize(
    ("length", "side", "stride", "wanted"),
    [
        (2560, 640, 426, [0, 426, 852, 1278, 1704, 1920]),
        (640, 640, 426, [0]),
        (641, 640, 426, [0, 1]),
        (854, 640, 426, [0, 214]),
        (500, 640, 426, [0]),
    ],
)
def test_squares_are_those_of_mmsegmentation(length: int, side: int, stride: int, wanted: list[int]) -> None:
    """Its slide_inference: ceil((length - side) / stride) + 1 of them, the last one moved back."""
    assert starts(length, side, stride) == wanted


@pytest.mark.parametrize("how", [SLIDE, WHOLE], ids=["slide", "whole"])
@pytest.mark.parametrize("size", [(8, 8), (8, 21), (13, 17), (5, 30), (6, 4)])
def test_every_pixel_is_predicted_in_its_place(how: Predicting, size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    assert torch.equal(how.classes(brightest, images, size), images.argmax(1))


def test_scores_are_the_mean_over_squares_that_cover_a_pixel() -> None:
    calls = iter(range(2))

    def scored(squares: Tensor) -> Tensor:
        assert squares.shape == (2, 3, 8, 8)  # both squares at once
        values = torch.tensor([[0.0, 1.0], [5.0, 2.0]])  # of both classes in the first square, and in the second
        next(calls)
        return values[:, :, None, None].expand(2, 2, 8, 8)

    found = SLIDE.classes(scored, torch.zeros(1, 3, 8, 13), (8, 13))
    assert found[0, 0].tolist() == [1] * 5 + [0] * 8  # 1.0 > 0.0 alone; then (0 + 5) / 2 > (1 + 2) / 2; then 5 > 2


def test_models_take_padded_images_of_the_right_size() -> None:
    sizes: list[tuple[int, ...]] = []

    def kept(images: Tensor) -> Tensor:
        sizes.append(tuple(images.shape[-2:]))
        assert not images[..., 9:].any()
        return images

    WHOLE.classes(kept, torch.ones(1, 3, 20, 9), (20, 9))
    assert sizes == [(32, 16)]


@pytest.mark.parametrize(("how", "most"), [(SLIDE, 8), (WHOLE, 2)], ids=["slide", "whole"])
def test_no_more_is_predicted_at_once_than_the_pixels_of_eight_squares(how: Predicting, most: int) -> None:
    """Of any number of images, whose scores would not fit into memory together."""
    seen: list[int] = []

    def counted(images: Tensor) -> Tensor:
        seen.append(len(images))
        return images

    images = torch.rand(7, 3, 13, 16, generator=torch.Generator().manual_seed(1))  # of 6 squares, or padded to 16 x 16
    assert torch.equal(how.classes(counted, images, (13, 16)), images.argmax(1))
    assert max(seen) == most


def test_scores_are_brought_to_the_size_of_the_file_before_classes_are_chosen() -> None:
    images = torch.zeros(1, 2, 8, 8)
    images[0, 0, :, :4], images[0, 1, :, 4:] = 1, 1
    found = SLIDE.classes(brightest, images, (20, 40))
    assert found.shape == (1, 20, 40)
    assert found[0, 0].tolist() == [0] * 20 + [1] * 20
