"""What is drawn for one person: how often, how far, in which order, and on what it depends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.pose.augment import NEUTRAL, Drawn, Person, PoseAugment, draw
from tasks.pose.boxes import centre_and_scale, input_matrices, warped_points
from tasks.pose.joints import COCO, CROWDPOSE

SIZE = (256, 192)
DRAWS = 3000


def person(labelled: int = 17) -> Person:
    joints = np.random.default_rng(0).uniform(100, 200, (17, 2))
    centre, scale = centre_and_scale([100, 100, 100, 100], SIZE)
    return Person(joints, np.arange(17) < labelled, centre, scale)


def some(augment: PoseAugment, who: Person | None = None, count: int = DRAWS) -> list[Drawn]:
    who = who or person()
    return [draw(augment, who, COCO, SIZE, np.random.default_rng([7, 0, index])) for index in range(count)]


def only(**options: Any) -> PoseAugment:
    return PoseAugment.none().model_copy(update=options)


def share(drawn: list[Drawn], true: Callable[[Drawn], bool]) -> float:
    return float(np.mean([true(each) for each in drawn]))


def about(value: float) -> Any:
    """Four standard deviations of a share of DRAWS."""
    return pytest.approx(value, abs=4 * (value * (1 - value) / DRAWS) ** 0.5)


def test_without_augmentation_the_box_is_what_it_was() -> None:
    who = person()
    for each in some(PoseAugment.none(), who, count=20):
        np.testing.assert_array_equal(each.matrix(SIZE), input_matrices(who.centre, who.scale, 0, SIZE))
        assert each.colours.tolist() == list(NEUTRAL)
        assert not each.grid.any()
        places, labelled = each.joints(who, COCO, each.matrix(SIZE))
        np.testing.assert_array_equal(places, warped_points(who.joints, each.matrix(SIZE)))
        assert labelled.all()


def test_defaults_are_drawn_as_often_as_in_the_public_code() -> None:
    who = person(labelled=8)  # not enough for half body
    drawn = some(PoseAugment(), who)
    assert share(drawn, lambda each: not np.array_equal(each.centre, who.centre)) == about(0.3)
    assert share(drawn, lambda each: each.mirrored) == about(0.5)
    assert share(drawn, lambda each: each.rotation != 0) == about(0.6)
    assert share(drawn, lambda each: bool(each.grid.any())) == about(0.5)
    assert share(drawn, lambda each: each.colours.tolist() != list(NEUTRAL)) == 1


def test_rotation_and_scale_are_normal_and_cut() -> None:
    drawn = some(only(rotation_prob=1, scale=0.5))
    angles = np.array([each.rotation for each in drawn])
    factors = np.array([each.scale[0] for each in drawn]) / person().scale[0]
    assert float(np.mean(np.abs(angles) == 80)) == about(0.0455)
    assert float(np.mean(np.abs(angles) < 40)) == about(0.6827)
    assert (factors.min(), factors.max()) == pytest.approx((0.5, 1.5))
    assert float(np.mean(factors < 0.501)) == about(0.16)
    assert abs(float(np.corrcoef(angles, factors)[0, 1])) < 0.08
    within = some(only(rotation_prob=1, rotation_limit=40))
    assert max(abs(each.rotation) for each in within) == 40


def test_the_box_moves_by_up_to_a_part_of_its_padded_size() -> None:
    who = person()
    moves = np.array([(each.centre - who.centre) / who.scale for each in some(only(box_shift_prob=1), who)])
    assert np.abs(moves).max() <= 0.16
    assert np.abs(moves).max(0) == pytest.approx([0.16, 0.16], abs=0.002)
    assert np.abs(moves.mean(0)).max() < 0.01


def halves(who: Person, **options: Any) -> list[str]:
    """upper, lower or whole, by the place of the centre."""
    centres = {
        tuple(who.joints[who.labelled & COCO.is_upper].mean(0)): "upper",
        tuple(who.joints[who.labelled & ~COCO.is_upper].mean(0)): "lower",
        tuple(who.centre): "whole",
    }
    return [centres[tuple(each.centre)] for each in some(only(**options), who)]


def test_half_body_takes_the_upper_half_more_often_as_in_the_public_code() -> None:
    chosen = halves(person(), half_body=0.3)
    assert float(np.mean([each != "whole" for each in chosen])) == about(0.3)
    assert float(np.mean([each == "upper" for each in chosen])) == about(0.3 * 0.6915)


def test_half_body_needs_enough_labelled_joints() -> None:
    assert "whole" not in halves(person(labelled=14), half_body=1)
    few = replace(person(), labelled=np.isin(np.arange(17), [0, 5, 6, 7, 8, 11, 12, 13]))
    assert set(halves(few, half_body=1)) == {"whole"}  # eight
    assert "whole" not in halves(few, half_body=1, half_body_above=7)
    lower_of_two = person(labelled=13)
    assert set(halves(lower_of_two, half_body=1)) == {"upper"}  # two of the lower half are too few


def test_half_body_of_a_single_joint_leaves_the_box() -> None:
    for joint in ("left_ankle", "nose"):
        who = replace(person(), labelled=np.isin(COCO.names, joint))
        drawn = some(only(half_body=1, half_body_above=0), who, count=20)
        assert all(each.scale.tolist() == who.scale.tolist() for each in drawn)


def test_a_half_fills_the_input_with_room_around() -> None:
    who = person()
    each = some(only(half_body=1, upper_half=1), who, count=1)[0]
    upper = who.joints[COCO.is_upper]
    sides = upper.max(0) - upper.min(0)
    width = 1.5 * max(sides[0], sides[1] * 0.75)
    assert each.scale.tolist() == pytest.approx([width, width / 0.75])


def test_half_body_takes_the_place_of_a_moved_box() -> None:
    who = person()
    for each in some(only(half_body=1, upper_half=1, box_shift_prob=1), who, count=20):
        np.testing.assert_allclose(each.centre, who.joints[COCO.is_upper].mean(0))


def test_half_body_of_joints_in_one_place_leaves_the_box() -> None:
    who = replace(person(), joints=np.full((17, 2), 150.0))
    assert all(each.scale.tolist() == who.scale.tolist() for each in some(only(half_body=1), who, count=20))


def test_a_mirrored_person_has_left_and_right_exchanged() -> None:
    who = replace(person(), labelled=np.arange(17) != 9)  # no left wrist
    mirrored, plain = some(only(flip=1), who, count=1)[0], some(only(), who, count=1)[0]
    there, labelled = mirrored.joints(who, COCO, mirrored.matrix(SIZE))
    places, _ = plain.joints(who, COCO, plain.matrix(SIZE))
    np.testing.assert_allclose(there[COCO.names.index("left_hip")], [191, 0] + places[12] * [-1, 1], atol=1e-9)
    assert [name for name, known in zip(COCO.names, labelled, strict=True) if not known] == ["right_wrist"]


def test_colours_stay_in_their_ranges_and_orders_are_all_drawn() -> None:
    drawn = some(PoseAugment())
    colours = np.array([each.colours for each in drawn])
    np.testing.assert_allclose(colours.min(0), [0.6, 0.6, 0.6, -0.2], atol=0.005)
    np.testing.assert_allclose(colours.max(0), [1.4, 1.4, 1.4, 0.2], atol=0.005)
    assert len({tuple(each.colour_order) for each in drawn}) == 24
    assert {tuple(sorted(each.colour_order)) for each in drawn} == {(0, 1, 2, 3)}


def test_grids_stay_in_their_ranges() -> None:
    unit, hole, x, y = np.array([each.grid for each in some(only(grid_dropout=1))]).T
    assert (unit.min(), unit.max()) == (10, 40)
    assert (hole == unit // 2).all()
    assert x.min() == y.min() == 0
    assert (x <= unit - hole).all()
    assert (x == unit - hole).any()
    assert (y == unit - hole).any()
    assert float(np.mean(unit == 40)) == about(1 / 31)


def test_what_is_drawn_depends_on_the_generator_alone() -> None:
    def once(*seed: int) -> list[Any]:
        each = draw(PoseAugment(), person(), COCO, SIZE, np.random.default_rng(list(seed)))
        return [*each.matrix(SIZE).ravel(), *each.colours, *each.colour_order, *each.grid]

    assert once(1, 2, 3) == once(1, 2, 3)
    assert len({str(once(*seed)) for seed in ((1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3))}) == 4


def test_an_option_changes_nothing_in_what_another_draws() -> None:
    everything, without = some(PoseAugment(), count=50), some(PoseAugment(flip=0, half_body=0, jitter_prob=0), count=50)
    for one, other in zip(everything, without, strict=True):
        assert one.rotation == other.rotation
        assert one.grid.tolist() == other.grid.tolist()
    assert any(one.mirrored for one in everything)


def test_crowdpose_needs_fewer_joints_for_half_a_body() -> None:
    joints = np.random.default_rng(0).uniform(100, 200, (14, 2))
    who = Person(joints, np.arange(14) < 7, *centre_and_scale([100, 100, 100, 100], SIZE))
    each = draw(only(half_body=1), who, CROWDPOSE, SIZE, np.random.default_rng(0))
    np.testing.assert_allclose(each.centre, joints[:6].mean(0))


def test_a_grid_larger_than_the_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"grid_unit \[10, 40\] is larger than the input of 32 x 32 pixels: lower it"):
        draw(PoseAugment(), person(), COCO, (32, 32), np.random.default_rng(0))
    draw(PoseAugment(grid_dropout=0), person(), COCO, (32, 32), np.random.default_rng(0))


def test_a_range_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"\[40, 10\] is no range: needs low <= high"):
        PoseAugment(grid_unit=(40, 10))
