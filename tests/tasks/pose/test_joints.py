"""The joints of both data sets: order, pairs, halves of the body and edges."""

from __future__ import annotations

import pytest

from tasks.pose.joints import COCO, CROWDPOSE, Skeleton

BOTH = pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE], ids=["coco", "crowdpose"])


def test_joints_are_in_the_order_of_the_annotations() -> None:
    assert len(COCO) == 17
    assert COCO.names[:3] == ("nose", "left_eye", "right_eye")
    assert COCO.names[9:13] == ("left_wrist", "right_wrist", "left_hip", "right_hip")
    assert len(CROWDPOSE) == 14
    assert CROWDPOSE.names[:2] == ("left_shoulder", "right_shoulder")
    assert CROWDPOSE.names[10:] == ("left_ankle", "right_ankle", "top_head", "neck")


def test_pairs_are_the_published_ones() -> None:
    assert COCO.flip_pairs == [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)]
    assert CROWDPOSE.flip_pairs == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)]


def test_halves_of_the_body_are_the_published_ones() -> None:
    assert COCO.is_upper.nonzero()[0].tolist() == list(range(11))
    assert CROWDPOSE.is_upper.nonzero()[0].tolist() == [0, 1, 2, 3, 4, 5, 12, 13]


@BOTH
def test_mirroring_twice_changes_nothing_and_keeps_joints_without_a_side(skeleton: Skeleton) -> None:
    order = skeleton.flip_order
    assert [order[i] for i in order] == list(range(len(skeleton)))
    stay = {skeleton.names[i] for i, other in enumerate(order) if i == other}
    assert stay == {name for name in skeleton.names if not name.startswith(("left_", "right_"))}


@BOTH
def test_left_and_right_have_the_same_tolerance_half_and_edges(skeleton: Skeleton) -> None:
    order = skeleton.flip_order
    assert [skeleton.sigmas[i] for i in order] == list(skeleton.sigmas)
    assert skeleton.is_upper[order].tolist() == skeleton.is_upper.tolist()
    edges = {frozenset(edge) for edge in skeleton.edge_indices}
    assert {frozenset(order[i] for i in edge) for edge in edges} == edges


@pytest.mark.parametrize(("skeleton", "count"), [(COCO, 19), (CROWDPOSE, 15)], ids=["coco", "crowdpose"])
def test_edges_connect_every_joint_and_none_twice(skeleton: Skeleton, count: int) -> None:
    edges = skeleton.edge_indices
    assert len({frozenset(edge) for edge in edges}) == len(edges) == count
    reached = {0}
    for _ in edges:
        reached |= {joint for edge in edges if reached & set(edge) for joint in edge}
    assert reached == set(range(len(skeleton)))
