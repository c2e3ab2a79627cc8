"""The sliding window test against a loop over pixels, on the sizes of NYUv2 and KITTI."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tasks.depth.metrics import Window, evaluated_part
from tasks.depth.sliding import sliding_prediction, window_starts


def column_in_window(images: Tensor) -> Tensor:
    """Depends on the place in the window, so that every window says something else of a pixel; not on its mirror."""
    place = torch.arange(images.shape[-1], dtype=images.dtype)
    return images.mean(1, keepdim=True) + place


def by_hand(image: Tensor, starts: list[int], *, flip: bool) -> Tensor:
    """Depth (height, width), column by column; NaN where no window is."""
    height, width = image.shape[-2:]
    depth = torch.full((height, width), torch.nan)
    for column in range(width):
        values = []
        for start in starts:
            if start <= column < start + height:
                here = column - start
                plain = image[:, :, column].mean(0) + here
                mirrored = image[:, :, column].mean(0) + height - 1 - here
                values.append((plain + mirrored) / 2 if flip else plain)
        if values:
            depth[:, column] = torch.stack(values).mean(0)
    return depth


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("at_once", [None, 1, 3])
def test_every_pixel_is_the_mean_of_the_windows_over_it(flip: bool, at_once: int | None) -> None:
    images = torch.rand(2, 3, 6, 17, generator=torch.Generator().manual_seed(0))
    starts = window_starts(6, 17, 4)
    assert starts == [0, 3, 6, 9]
    result = sliding_prediction(column_in_window, images, 4, flip=flip, shortest=0.25, at_once=at_once)
    expected = torch.stack([by_hand(image, starts, flip=flip) for image in images])[:, None]
    assert result.uncovered == 2
    assert torch.equal(expected.isnan().any(0)[0].any(0), torch.arange(17) >= 15)
    torch.testing.assert_close(result.depth, expected.nan_to_num(0.25))


def test_no_forward_pass_is_larger_than_asked_for() -> None:
    sizes: list[int] = []

    def model(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return images[:, :1]

    sliding_prediction(model, torch.rand(1, 3, 4, 8), 4, at_once=3)
    sliding_prediction(model, torch.rand(1, 3, 4, 8), 4)
    assert sizes == [3, 3, 2, 8]


@pytest.mark.parametrize(("size", "windows", "step", "uncovered"), [((480, 640), 2, 160, 0), ((352, 1216), 16, 57, 9)])
def test_the_papers_windows(size: tuple[int, int], windows: int, step: int, uncovered: int) -> None:
    assert window_starts(*size, windows) == [step * place for place in range(windows)]
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    result = sliding_prediction(lambda images: images[:, :1], image, windows, shortest=1e-3, at_once=4)
    assert result.uncovered == uncovered
    edge = size[1] - uncovered
    torch.testing.assert_close(result.depth[..., :edge], image[:, :1, :, :edge])
    assert torch.equal(result.depth[..., edge:], torch.full((1, 1, size[0], uncovered), 1e-3))


@pytest.mark.parametrize("window", ["garg", "eigen"])
def test_kittis_uncovered_columns_are_not_evaluated(window: Window) -> None:
    last_window = window_starts(352, 1216, 16)[-1]
    assert last_window + 352 == 1207
    assert evaluated_part(window, 352, 1216)[1].stop <= 1207


def test_a_square_image_is_one_window() -> None:
    image = torch.rand(1, 3, 8, 8)
    result = sliding_prediction(lambda images: images[:, :1], image, 1)
    assert result.uncovered == 0
    torch.testing.assert_close(result.depth, image[:, :1])


def test_gaps_between_windows_count_as_uncovered() -> None:
    image = torch.rand(1, 3, 4, 20) + 1
    result = sliding_prediction(lambda images: images[:, :1], image, 2, shortest=0.5)
    assert window_starts(4, 20, 2) == [0, 16]
    assert result.uncovered == 12
    assert torch.equal(result.depth[0, 0, 0] == 0.5, (torch.arange(20) >= 4) & (torch.arange(20) < 16))


@pytest.mark.parametrize(("height", "width", "windows"), [(8, 7, 2), (8, 16, 0)])
def test_images_and_numbers_of_windows_that_do_not_go(height: int, width: int, windows: int) -> None:
    with pytest.raises(ValueError, match=f"{windows} square windows .* {height} x {width}"):
        window_starts(height, width, windows)
