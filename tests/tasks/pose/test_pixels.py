"""Colour jitter against torchvision, grid dropout against plain loops."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torchvision.transforms import functional

from tasks.pose import pixels

OPERATIONS = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
)


def some_images(count: int, height: int = 12, width: int = 15) -> Tensor:
    images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(3)) * 255
    images[:, :, 0] = images[:, :1, 0]  # a row of greys, which have no hue
    images[:, :, 1] = torch.tensor([255.0, 0.0, 0.0]).view(1, 3, 1)
    return images


def test_each_image_is_changed_as_torchvision_does_in_its_own_order() -> None:
    orders = torch.tensor(list(itertools.permutations(range(4))))
    images = some_images(len(orders))
    draws = torch.rand(len(orders), 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    colours = torch.tensor([1.0, 1.0, 1.0, 0.0]) + (2 * draws - 1) * torch.tensor([0.4, 0.4, 0.4, 0.2])
    ours = pixels.jittered(images, colours, orders)
    for image, strength, order, changed in zip(images, colours.tolist(), orders.tolist(), ours, strict=True):
        wanted = image / 255
        for operation in order:
            wanted = OPERATIONS[operation](wanted, strength[operation])
        torch.testing.assert_close(changed / 255, wanted, rtol=0, atol=1e-4)


def test_the_greatest_channel_chooses_the_hue_to_the_bit() -> None:
    """Choosing by arithmetic loses nothing: as by torch.where, which earlier trials had."""
    images = torch.cat([some_images(2, 40, 50), some_images(1, 40, 50).round().div(60).round() * 60])
    for shift in (-0.5, -0.1, 0.0, 0.2, 0.5):
        red, green, blue = torch.split(images, 1, 1)
        greatest, least = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
        span = greatest - least
        rest = torch.where(greatest == green, (blue - red).add(span, alpha=2), (red - green).add(span, alpha=4))
        sixths = torch.where(greatest == red, green - blue, rest).div(span.clamp(min=1e-30)).add(6 * shift)
        sixths = sixths.sub(torch.floor(sixths / 6), alpha=6)
        parts = [(sixths - 3).abs() - 1, 2 - (sixths - 2).abs(), 2 - (sixths - 4).abs()]
        wanted = torch.cat([torch.addcmul(least, span, part.clamp(0, 1)) for part in parts], 1)
        assert torch.equal(pixels._turned(images, shift), wanted)


def test_neutral_numbers_change_nothing_and_the_given_images_stay() -> None:
    images, before = some_images(2), some_images(2)
    neutral = torch.tensor([[1.0, 1.0, 1.0, 0.0]] * 2)
    order = torch.tensor([[3, 1, 0, 2], [0, 1, 2, 3]])
    torch.testing.assert_close(pixels.jittered(images, neutral, order), images, rtol=0, atol=1e-3)
    pixels.jittered(images, neutral * 0.6, order)
    assert torch.equal(images, before)


def test_holes_are_the_squares_of_the_grid() -> None:
    images = some_images(3) + 1
    grids = torch.tensor([[5, 2, 3, 1], [0, 0, 0, 0], [4, 3, 0, 1]])
    wanted = images.clone()
    for image, (unit, hole, x, y) in zip(wanted, grids.tolist(), strict=True):
        for i in range(20 if unit else 0):
            for j in range(20):
                image[:, y + unit * j : y + unit * j + hole, x + unit * i : x + unit * i + hole] = 0
    ours = pixels.with_holes(images, grids)
    assert torch.equal(ours, wanted)
    assert torch.equal(ours[1], images[1])
    assert not torch.equal(ours[0], images[0])
