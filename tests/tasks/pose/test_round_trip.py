"""Augmentation, warp, targets and decoding together: joints go to heat maps and come back, and pixels with them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.pose import boxes, heat_maps
from tasks.pose.augment import Drawn, Person, PoseAugment, draw
from tasks.pose.boxes import Floats
from tasks.pose.joints import COCO

SIZE, MAP = (256, 192), (64, 48)


def some_person(seed: int) -> Person:
    """All joints within the inner part of a box."""
    draws = np.random.default_rng(seed)
    corner, sides = draws.uniform(100, 200, 2), draws.uniform(150, 250, 2)
    joints = corner + draws.uniform(0.2, 0.8, (17, 2)) * sides
    return Person(joints, np.ones(17, dtype=bool), *boxes.centre_and_scale([*corner, *sides], SIZE))


def some_draws() -> list[tuple[Person, Drawn]]:
    persons = [some_person(seed) for seed in range(12)]
    return [
        (who, draw(PoseAugment(), who, COCO, SIZE, np.random.default_rng(index))) for index, who in enumerate(persons)
    ]


def inside(places: Floats) -> NDArray[np.bool_]:
    """Joints with room for a whole Gaussian and its blur around them."""
    margin = 4.1 * 11
    return ((places > margin) & (places < np.array([SIZE[1], SIZE[0]]) - 1 - margin)).all(-1)


def test_decoded_joints_of_augmented_samples_are_the_annotated_ones() -> None:
    seen = mirrored = 0
    for who, drawn in some_draws():
        places, labelled = drawn.joints(who, COCO, drawn.matrix(SIZE))
        maps, weights = heat_maps.targets(
            torch.from_numpy(places)[None], torch.from_numpy(labelled)[None].float(), SIZE, MAP
        )
        found, _ = heat_maps.decoded(maps, SIZE, blur=11)
        on_image = boxes.warped_points(found[0].double().numpy(), boxes.inverse(drawn.matrix(SIZE)))
        order = COCO.flip_order if drawn.mirrored else list(range(17))
        sure = inside(places)
        assert weights[0].numpy()[sure].all()
        np.testing.assert_allclose(on_image[sure], who.joints[order][sure], atol=0.02)
        seen, mirrored = seen + int(sure.sum()), mirrored + drawn.mirrored
    assert seen > 50
    assert 0 < mirrored < 12


def test_pixels_go_where_joints_go() -> None:
    seen = 0
    for who, drawn in some_draws():
        rows, columns = np.mgrid[:500, :500]
        x, y = who.joints[0]
        image = torch.from_numpy(255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 50))[None, None]
        warped = boxes.warped_images(image, drawn.matrix(SIZE)[None], SIZE)[0, 0].double()
        place = boxes.warped_points(who.joints[:1], drawn.matrix(SIZE))
        if inside(place)[0]:
            seen += 1
            share = warped / warped.sum()
            x_there, y_there = (
                share.sum(0) @ torch.arange(SIZE[1]).double(),
                share.sum(1) @ torch.arange(SIZE[0]).double(),
            )
            np.testing.assert_allclose([x_there.item(), y_there.item()], place[0], atol=0.05)
    assert seen > 2
