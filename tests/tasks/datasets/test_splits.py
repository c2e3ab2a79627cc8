"""Cuts into parts: disjoint, exhaustive, in proportion within one image of a class, the same for ever."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tasks.datasets.splits import grouped, stratified


def test_stratified_parts_are_disjoint_exhaustive_and_in_proportion() -> None:
    labels = np.repeat([0, 1, 2, 3], [400, 37, 5, 158])
    parts = stratified(labels, [300, 180, 120], seed=3)
    assert sorted(np.concatenate(parts)) == list(range(600))
    for part, size in zip(parts, [300, 180, 120], strict=True):
        assert len(part) == size
        shares = np.bincount(labels[part], minlength=4) - np.array([400, 37, 5, 158]) * size / 600
        assert np.abs(shares).max() <= 1


def test_stratified_is_the_same_for_ever_and_follows_its_seed() -> None:
    labels = np.arange(1000) % 7
    val = stratified(labels, [800, 200], seed=0)[1]
    assert hashlib.sha256(val.tobytes()).hexdigest()[:16] == "109d7ef6d6b8a851"
    assert np.array_equal(val, stratified(labels, [800, 200], seed=0)[1])
    assert not np.array_equal(val, stratified(labels, [800, 200], seed=1)[1])


LONG_TAIL = np.geomspace(2, 1000, 8142).astype(int)
"""Images of each class, from few to many, as iNaturalist's are."""


@pytest.mark.parametrize(
    ("sizes", "fractions"),
    [
        (LONG_TAIL, (0.8, 0.2)),
        (LONG_TAIL, (0.5, 0.3, 0.2)),
        (np.array([1000, 2, 2, 2, 2, 2]), (0.8, 0.2)),
        (np.ones(50, int), (0.7, 0.2, 0.1)),
        (np.array([3, 3, 3, 3]), (0.25, 0.25, 0.25, 0.25)),
    ],
)
def test_every_class_gives_each_part_its_share_to_within_one_image(
    sizes: np.ndarray, fractions: tuple[float, ...]
) -> None:
    labels = np.random.RandomState(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    counts = [int(len(labels) * fraction) for fraction in fractions[1:]]
    counts = [len(labels) - sum(counts), *counts]
    parts = stratified(labels, counts, seed=1)
    assert [len(part) for part in parts] == counts
    for part, count in zip(parts, counts, strict=True):
        off = np.bincount(labels[part], minlength=len(sizes)) - sizes * count / len(labels)
        assert np.abs(off).max() < 1


def test_the_images_left_over_are_of_the_classes_with_the_largest_remainder() -> None:
    """Shares of 0.2 are 1.8, 1.2, 1.4, 0.6: of six, one each of three is certain, and the others' remainders decide."""
    labels = np.repeat([0, 1, 2, 3], [9, 6, 7, 3])
    val = stratified(labels, [20, 5], seed=0)[1]
    assert np.bincount(labels[val]).tolist() == [2, 1, 1, 1]


def test_any_table_of_classes_and_parts_can_be_cut() -> None:
    """Of three parts and more the largest remainders alone may leave no room: about two in a hundred need a chain."""
    random = np.random.RandomState(0)
    for _ in range(2000):
        sizes = random.randint(1, random.choice([3, 10, 40]), size=random.randint(1, 9))
        cuts = np.sort(random.randint(0, sizes.sum() + 1, size=random.randint(0, 5)))
        counts = np.diff([0, *cuts, sizes.sum()])
        labels = np.repeat(np.arange(len(sizes)), sizes)
        for part, count in zip(stratified(labels, counts.tolist(), 0), counts, strict=True):
            assert len(part) == count
            assert (abs(np.bincount(labels[part], minlength=len(sizes)) - sizes * count / sizes.sum()) < 1).all()


def test_nothing_is_cut_into_nothing() -> None:
    assert [part.tolist() for part in stratified([], [0, 0], 0)] == [[], []]


@pytest.mark.parametrize("counts", [[5, 4], [-1, 11], [11, -1]])
def test_stratified_refuses_parts_that_do_not_add_up(counts: list[int]) -> None:
    with pytest.raises(ValueError, match=r"parts of \[.*\] images do not add up to the 10 there are"):
        stratified([0] * 10, counts, seed=0)


def test_groups_stay_whole_and_classes_keep_their_shares() -> None:
    random = np.random.RandomState(3)
    sizes = random.randint(1, 9, 120)
    groups = [f"g{group}" for group, size in enumerate(sizes) for _ in range(size)]
    classes = [[group % 3] for group, size in enumerate(sizes) for _ in range(size)]
    drawn = grouped(groups, classes, round(0.2 * len(groups)), seed=0)
    inside, outside = ({groups[i] for i in rows} for rows in (drawn, np.setdiff1d(np.arange(len(groups)), drawn)))
    assert not inside & outside
    for number in range(3):
        total = sum(each == [number] for each in classes)
        assert abs(sum(classes[i] == [number] for i in drawn) - 0.2 * total) <= 4  # half of the largest group
    assert grouped(groups, classes, 100, seed=1).tolist() != grouped(groups, classes, 100, seed=2).tolist()


GROUPED = [3, 4, 5, 6, 7]


def test_a_cut_by_groups_is_the_same_for_ever() -> None:
    """On every machine and numpy; and in any order of the images."""
    groups, classes = list("aaabbcccddeffg"), [[0, 1], [0], [], [1], [1], [0], [2], [0, 2], [1], [], [2], [2], [0], [1]]
    drawn = grouped(groups, classes, 5, seed=0)
    assert drawn.tolist() == GROUPED
    order = np.random.RandomState(1).permutation(len(groups))
    again = grouped([groups[i] for i in order], [classes[i] for i in order], 5, seed=0)
    assert sorted(order[again].tolist()) == GROUPED


def test_no_group_is_drawn_where_each_is_too_large() -> None:
    assert grouped(["a", "a", "b", "b"], [[0]] * 4, 1, seed=0).tolist() == []
