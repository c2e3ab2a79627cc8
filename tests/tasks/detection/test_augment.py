"""Large-scale jitter: boxes, masks and pixels move together; what is cut; what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from faster_coco_eval.core import mask as codes

from tasks.datasets.instances.types import Instances
from tasks.detection.augment import Drawn, draw, scaled_size, shown
from tasks.detection.options import DetectionAugment

HEIGHT, WIDTH, SIDE = 60, 80, 64


def scene(*boxes: tuple[int, int, int, int]) -> tuple[np.ndarray, Instances]:
    """White rectangles on black, each an object; (left, top, right, bottom)."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    masks = []
    for left, top, right, bottom in boxes:
        mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        mask[top:bottom, left:right] = 1
        image[mask > 0] = 255
        masks.append(codes.encode(mask))
    count = len(boxes)
    return image, Instances(
        image_id=1, file="a.png", height=HEIGHT, width=WIDTH, boxes=np.array(boxes, dtype=float).reshape(-1, 4),
        labels=np.arange(count), masks=tuple({"size": m["size"], "counts": bytes(m["counts"])} for m in masks),
        crowd=np.zeros(count, bool), area=np.full(count, 100.0), learnt=np.ones(count, bool),
    )  # fmt: skip


DRAWN = {
    "whole": Drawn(48, 64, 0, 0, False), "whole, flipped": Drawn(48, 64, 0, 0, True),
    "small": Drawn(24, 32, 0, 0, False), "small, flipped": Drawn(24, 32, 0, 0, True),
    "cut": Drawn(120, 160, 31, 50, False), "cut and flipped": Drawn(120, 160, 31, 50, True),
}  # fmt: skip


@pytest.mark.parametrize("how", DRAWN)
def test_pixels_masks_and_boxes_move_together(how: str) -> None:
    image, objects = scene((30, 20, 50, 40), (4, 4, 28, 26))
    drawn = DRAWN[how]
    made = shown(image, objects, drawn, SIDE, 1)
    height, width = made.size
    assert (height, width) == (min(drawn.height, SIDE), min(drawn.width, SIDE))
    assert not made.image[:, height:].any()
    assert not made.image[:, :, width:].any()
    covered = made.masks.max(0).astype(bool)
    white = made.image[0] > 127
    assert np.mean(covered != white) < 0.004  # the edges, where one is bilinear and the other the nearest
    assert len(made.masks) == len(made.boxes) == len(made.labels) == 2
    for mask, box in zip(made.masks, made.boxes, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        tight = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert np.abs(tight - box).max() <= 1


def test_a_cut_object_has_the_box_of_what_is_left_of_its_mask() -> None:
    """Of an L only the foot is left, which reaches less high than the cut box."""
    image, objects = scene((10, 10, 30, 50))
    mask = objects.mask(0)
    mask[10:40, 14:30] = False  # the upright is at the left, columns 10 to 14; the foot below, rows 40 to 50
    code = codes.encode(np.asfortranarray(mask.astype(np.uint8)))
    objects = Instances(**{**vars(objects), "masks": ({"size": code["size"], "counts": bytes(code["counts"])},)})
    made = shown(image, objects, Drawn(HEIGHT, WIDTH, 0, 16, False), SIDE, 1)
    assert made.boxes.tolist() == [[0, 40, 14, 50]]


def test_what_the_crop_hardly_shows_is_dropped() -> None:
    image, objects = scene((0, 0, 20, 20), (40, 30, 60, 50))
    assert shown(image, objects, Drawn(120, 160, 56, 39, False), SIDE, 1).labels.tolist() == [1]
    one_column = Drawn(120, 160, 0, 39, False)
    assert shown(image, objects, one_column, SIDE, 1).labels.tolist() == [0, 1]
    assert shown(image, objects, one_column, SIDE, 2).labels.tolist() == [1]


def test_a_wider_column_of_the_second_object_is_kept_by_its_box() -> None:
    image, objects = scene((40, 30, 60, 50))
    made = shown(image, objects, Drawn(120, 160, 0, 39, False), SIDE, 1)
    assert made.boxes.tolist() == [[80 - 39, 60, 64, 64]]


def test_crowd_regions_are_not_learnt() -> None:
    image, objects = scene((0, 0, 20, 20), (40, 30, 60, 50))
    objects = Instances(**{**vars(objects), "learnt": np.array([False, True])})
    assert shown(image, objects, DRAWN["whole"], SIDE, 1).labels.tolist() == [1]


def test_an_image_without_objects() -> None:
    image, objects = scene()
    made = shown(image, objects, DRAWN["cut"], SIDE, 1)
    assert made.boxes.shape == (0, 4)
    assert made.masks.shape == (0, SIDE, SIDE)


def test_the_longer_side_becomes_that_of_the_square() -> None:
    assert scaled_size(480, 640, 1024) == (768, 1024)
    assert scaled_size(640, 427, 1024) == (1024, 683)
    assert scaled_size(1, 2000, 64) == (1, 64)


def test_draws_are_uniform_over_their_ranges() -> None:
    random = np.random.default_rng(0)
    drawn = [draw(DetectionAugment(), 480, 640, 1024, random) for _ in range(4000)]
    factors = np.array([each.width / 1024 for each in drawn])
    assert 0.099 < factors.min() < 0.105
    assert 1.995 < factors.max() < 2.001
    assert factors.mean() == pytest.approx(1.05, abs=0.03)
    assert np.mean([each.flip for each in drawn]) == pytest.approx(0.5, abs=0.03)
    room = [(each.left / (each.width - 1024), each) for each in drawn if each.width > 1200]
    assert np.mean([part for part, _ in room]) == pytest.approx(0.5, abs=0.03)
    assert all(each.left + 1024 <= each.width for _, each in room)
    assert all(each.top == 0 for each in drawn if each.height <= 1024)
    still = draw(DetectionAugment.none(), 480, 640, 1024, random)
    assert still == Drawn(768, 1024, 0, 0, False)
