"""Crops show what they say, wherever they reach beyond the frame; boxes go in and come back."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.tracking.crops import (
    Region,
    clipped,
    corners,
    cut,
    has_area,
    mean_colour,
    region,
    sized,
    with_least_size,
)

WIDTH, HEIGHT = 60, 40
RAMP = np.stack(np.broadcast_arrays(4 * np.arange(WIDTH), 6 * np.arange(HEIGHT)[:, None], 7), -1).astype(np.uint8)
"""Red tells the column (times 4), green the row (times 6)."""


def where(pixels: np.ndarray, y: int, x: int) -> tuple[float, float]:
    """The place in the ramp, in pixels of the frame, that a pixel shows the middle of."""
    return float(pixels[y, x, 0]) / 4 + 0.5, float(pixels[y, x, 1]) / 6 + 0.5


@pytest.mark.parametrize(("box", "factor", "side"), [((10, 10, 30, 20), 2, 20 * 2), ((0, 0, 8, 8), 4, 32)])
def test_region_is_the_square_of_siamfc(box: tuple[float, ...], factor: float, side: float) -> None:
    """Of a box w x h: sqrt((w + c) (h + c)) with c = (factor - 1) (w + h) / 2."""
    found = region(np.array(box, float), factor)
    width, height = box[2] - box[0], box[3] - box[1]
    context = (factor - 1) * (width + height) / 2
    assert found.sides[0] == found.sides[1] == pytest.approx(np.sqrt((width + context) * (height + context)))
    assert found.centre == ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    if width == height:
        assert found.sides[0] == side


@pytest.mark.parametrize("side", [20, 40])
def test_a_crop_inside_the_frame_shows_its_part(side: int) -> None:
    part = Region((30.0, 20.0), (20.0, 20.0))
    pixels = np.asarray(cut(RAMP, part, side))
    assert pixels.shape == (side, side, 3)
    for y, x in ((5, 5), (side // 2, side - 6)):
        step = 20 / side
        assert where(pixels, y, x) == pytest.approx((20 + (x + 0.5) * step, 10 + (y + 0.5) * step), abs=0.3)


@pytest.mark.parametrize(
    ("centre", "known"),
    [((0.0, 20.0), "right"), ((60.0, 20.0), "left"), ((30.0, 0.0), "below"), ((30.0, 40.0), "above")],
)
def test_beyond_the_frame_lies_the_mean_colour(centre: tuple[float, float], known: str) -> None:
    pixels = np.asarray(cut(RAMP, Region(centre, (20.0, 20.0)), 40))
    rows, columns = {
        "right": (slice(None), slice(20, 40)), "left": (slice(None), slice(0, 20)),
        "below": (slice(20, 40), slice(None)), "above": (slice(0, 20), slice(None)),
    }[known]  # fmt: skip
    outside = np.ones((40, 40), bool)
    outside[rows, columns] = False
    assert (pixels[outside] == mean_colour(RAMP)).all()
    y, x = (30, 30) if known in ("right", "below") else (10, 10)
    left, top = centre[0] - 10, centre[1] - 10
    assert where(pixels, y, x) == pytest.approx((left + (x + 0.5) / 2, top + (y + 0.5) / 2), abs=0.3)


def test_a_region_without_any_of_the_frame_is_all_mean() -> None:
    pixels = np.asarray(cut(RAMP, Region((200.0, 20.0), (20.0, 20.0)), 16, (1, 2, 3)))
    assert (pixels == (1, 2, 3)).all()


@pytest.mark.parametrize("centre", [(30.0, 20.0), (3.0, 37.0), (59.9, 0.1)])
@pytest.mark.parametrize("sides", [(13.7, 13.7), (200.0, 90.0), (5.3, 31.0)])
def test_crops_near_the_edge_join_those_of_a_padded_frame(
    centre: tuple[float, float], sides: tuple[float, float]
) -> None:
    """The same as cutting from a frame with a wide border of its mean colour; smoothing differs at its edge alone."""
    border = 300
    padded = np.empty((HEIGHT + 2 * border, WIDTH + 2 * border, 3), np.uint8)
    padded[:] = mean_colour(RAMP)
    padded[border:-border, border:-border] = RAMP
    whole = cut(padded, Region((centre[0] + border, centre[1] + border), sides), 32)
    apart = np.abs(np.asarray(cut(RAMP, Region(centre, sides), 32)).astype(int) - np.asarray(whole).astype(int)).max(-1)
    assert (apart > 3).mean() < 0.1
    assert np.median(apart) == 0


def test_boxes_go_in_and_come_back() -> None:
    part = Region((30.0, 20.0), (40.0, 20.0))
    boxes = np.array([[10.0, 10, 50, 30], [20, 15, 30, 20]])
    assert part.inside(boxes).tolist() == [[0, 0, 1, 1], [0.25, 0.25, 0.5, 0.5]]
    np.testing.assert_allclose(part.outside(part.inside(boxes)), boxes)
    np.testing.assert_array_equal(corners(sized(boxes)), boxes)


def test_boxes_are_clipped_and_kept_from_shrinking() -> None:
    inside = clipped(np.array([-5.0, 10, 20, 60]), WIDTH, HEIGHT)
    assert inside.tolist() == [0, 10, 20, 40]
    assert has_area(inside)
    assert not has_area(clipped(np.array([70.0, 10, 80, 60]), WIDTH, HEIGHT))
    assert with_least_size(np.array([10.0, 10, 12, 30]), 10).tolist() == [6, 10, 16, 30]
