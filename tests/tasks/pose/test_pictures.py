"""Pictures show the persons that a model does worst and best on, with the skeletons where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tasks.pose.joints import COCO
from tasks.pose.pictures import COLOURS, GAP, LABELS, LEAST, SHOWN, TITLE, sheets

SIDE = 64


def batch(count: int) -> dict[str, Any]:
    """Black inputs with joints in the middle half, on photographs of the same size."""
    joints = torch.rand(count, 17, 2, generator=torch.Generator().manual_seed(0)) * SIDE / 2 + SIDE / 4
    identity = np.tile(np.array([[1.0, 0, 0], [0, 1.0, 0]]), (count, 1, 1))
    return {
        "images": torch.full((count, 3, SIDE, SIDE), -1.0), "joints": joints, "visible": torch.ones(count, 17),
        "back": identity, "image_ids": np.arange(count), "person_areas": np.full(count, 900.0),
    }  # fmt: skip


def drawn(count: int, shift: float = 1.0) -> dict[str, Any]:
    """Person i is predicted i times `shift` pixels to the right."""
    persons = batch(count)
    moved = persons["joints"] + torch.tensor([shift, 0.0]) * torch.arange(count)[:, None, None]
    return sheets([persons], lambda images: (moved, torch.ones(count, 17)), COCO, "half")


def test_the_worst_come_first_and_the_best_in_their_own_picture() -> None:
    both = drawn(20)
    assert set(both) == {"worst_poses", "best_poses"}
    zoom = LEAST // SIDE
    step = SIDE * zoom + GAP
    for picture in both.values():
        assert picture.shape == (2 * step + TITLE + GAP, LABELS + SHOWN * step + GAP, 3)
    first_best = both["best_poses"][:, LABELS : LABELS + SIDE * zoom]
    wanted, predicted = first_best[GAP : GAP + SIDE * zoom], first_best[GAP + step : GAP + step + SIDE * zoom]
    np.testing.assert_array_equal(wanted, predicted)  # nobody was moved less than the first
    first_worst = both["worst_poses"][:, LABELS : LABELS + SIDE * zoom]
    assert (first_worst[GAP : GAP + SIDE * zoom] != first_worst[GAP + step : GAP + step + SIDE * zoom]).any()


def test_joints_are_drawn_at_their_pixels_in_the_colour_of_their_side() -> None:
    persons = batch(1)
    picture = drawn(1)["best_poses"]
    zoom = LEAST // SIDE
    for joint in (9, 16):  # left wrist, right ankle: nothing else is drawn over the last joint
        x, y = ((persons["joints"][0, joint].numpy() + 0.5) * zoom - 0.5).round().astype(int)
        shown = picture[GAP + y, LABELS + x]
        assert tuple(shown) in COLOURS.values()
    right_ankle = ((persons["joints"][0, 16].numpy() + 0.5) * zoom - 0.5).round().astype(int)
    assert tuple(picture[GAP + right_ankle[1], LABELS + right_ankle[0]]) == COLOURS["right"]


def test_joints_without_label_are_not_drawn() -> None:
    persons = batch(1)
    persons["visible"][:] = 0
    places = persons["joints"]
    picture = sheets([persons], lambda images: (places, torch.ones(1, 17)), COCO, "half")["best_poses"]
    assert not picture[GAP : GAP + LEAST, LABELS : LABELS + LEAST].any()


def test_nobody_makes_no_picture() -> None:
    assert sheets([], lambda images: (images, images), COCO, "half") == {}
