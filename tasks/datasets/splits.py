"""Splits data into parts: stratified, seeded, disjoint, exhaustive, and the same in every version."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def stratified(labels: Sequence[int] | NDArray[np.int64], counts: Sequence[int], seed: int) -> list[Indices]:
    """Splits `range(len(labels))` into len(counts) parts of exactly these sizes, each class shared in proportion.

    Each part is in ascending order. Every class gives each part its exact share, rounded down or up: the images that
    are left over when all are rounded down go where the remainder is largest. The order within a class is drawn by
    numpy's RandomState, whose stream is guaranteed never to change. Raises ValueError when the counts do not add up to
    the number of labels.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if sum(counts) != len(labels) or min(counts) < 0:
        raise ValueError(f"parts of {list(counts)} images do not add up to the {len(labels)} there are")
    if not len(labels):
        return [labels.copy() for _ in counts]
    sizes = np.unique(labels, return_counts=True)[1]
    shares = _shares(sizes, np.asarray(counts, dtype=np.int64))
    random = np.random.RandomState(seed)
    parts: list[list[Indices]] = [[] for _ in counts]
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    for members, share in zip(by_class, shares, strict=True):
        for part, chosen in zip(parts, np.split(random.permutation(members), np.cumsum(share)[:-1]), strict=True):
            part.append(chosen)
    return [np.sort(np.concatenate(part)) for part in parts]


def _shares(sizes: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """(classes, parts): images that each class gives to each part. Rows add up to `sizes`, columns to `counts`, and no
    value is one or more away from size * count / all. In whole numbers, so that it is the same on every machine."""
    exact, total = np.outer(sizes, counts), int(sizes.sum())
    shares, left = exact // total, exact % total
    lacks, room = sizes - shares.sum(1), counts - shares.sum(0)
    up = np.zeros(exact.shape, dtype=bool)
    for cell in np.argsort(-left, axis=None, kind="stable").tolist():
        row, column = divmod(cell, len(counts))
        if left[row, column] and lacks[row] and room[column]:
            up[row, column] = True
            lacks[row] -= 1
            room[column] -= 1
    for row in np.repeat(np.arange(len(sizes)), lacks).tolist():  # none of two parts; seldom of three
        _find_room(row, up, left > 0, room)
    return shares + up


def _find_room(row: int, up: NDArray[np.bool_], free: NDArray[np.bool_], room: NDArray[np.int64]) -> None:
    """Rounds one more share of a class up: along the shortest chain of classes that each move theirs to another part,
    the last to one with room. (There is one: the exact shares solve the same task in fractions.)"""
    came: dict[int, tuple[int, int]] = {}
    """Column -> (row that moves there, column that it leaves; -1: none)."""
    queue = deque((row, int(column), -1) for column in np.flatnonzero(free[row] & ~up[row]))
    while queue:
        mover, column, before = queue.popleft()
        if column in came:
            continue
        came[column] = mover, before
        if room[column]:
            room[column] -= 1
            while column >= 0:
                mover, before = came[column]
                up[mover, column] = True
                if before >= 0:
                    up[mover, before] = False
                column = before
            return
        for other in np.flatnonzero(up[:, column]).tolist():
            queue.extend((other, int(to), column) for to in np.flatnonzero(free[other] & ~up[other]))
    raise AssertionError("no shares in whole numbers")


def grouped(groups: Sequence[str], classes: Sequence[Sequence[int]], count: int, seed: int) -> Indices:
    """Draws about `count` of the images and keeps groups whole: each is drawn entirely, or not at all.

    `classes`: those of each image, several or none. Each class gives about its share (where a group has one class: to
    within half of its largest group): the largest groups are placed first, those of one size in the order that
    RandomState draws, and a group is taken where that brings the counts of its classes nearer to their shares. In
    ascending order. In whole numbers, so that it is the same on every machine; it depends on the names of the groups
    and not on the order of the images.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    held: dict[str, Counter[int]] = {
        group: Counter(number for index in rows for number in classes[index] or (-1,))
        for group, rows in members.items()
    }
    totals: Counter[int] = Counter()
    for of_group in held.values():
        totals.update(of_group)
    names, images = sorted(members), len(groups)
    order = [names[i] for i in np.random.RandomState(seed).permutation(len(names)).tolist()]
    order.sort(key=lambda group: -len(members[group]))
    taken: Counter[int] = Counter()
    chosen: list[int] = []
    for group in order:
        nearer = sum(
            many * (2 * (taken[number] * images - totals[number] * count) + many * images)
            for number, many in held[group].items()
        )  # what (taken - share)^2, summed over classes, grows by, times the number of images
        if nearer < 0:
            taken.update(held[group])
            chosen += members[group]
    return np.sort(np.array(chosen, dtype=np.int64))
