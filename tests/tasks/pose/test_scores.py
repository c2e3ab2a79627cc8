"""Similarity of poses, suppression and scores against plain loops and small cases by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.pose import scores
from tasks.pose.joints import COCO
from tasks.pose.scores import Floats

SIGMAS = np.array(COCO.sigmas)
POSE = np.random.default_rng(0).uniform(0, 100, (17, 2))


def moved(similarity: float, area: float = 5000.0, side: int = 1) -> Floats:
    """POSE with every joint so far to one side that OKS with it is `similarity`."""
    distance = np.sqrt(-2 * area * (2 * SIGMAS) ** 2 * math.log(similarity))
    return POSE + side * np.stack([distance, np.zeros(17)], -1)


def test_oks_is_the_mean_over_labelled_joints_of_the_evaluators_formula() -> None:
    draws = np.random.default_rng(1)
    others, labelled = POSE + draws.normal(0, 5, (3, 17, 2)), draws.integers(0, 3, (3, 17))
    areas = np.array([900.0, 4000.0, 20000.0])
    wanted = []
    for other, area, seen in zip(others, areas, labelled, strict=True):
        terms = []
        for joint in range(17):
            if seen[joint] > 0:
                dx, dy = POSE[joint] - other[joint]
                terms.append(math.exp(-(dx**2 + dy**2) / (2 * SIGMAS[joint]) ** 2 / area / 2))
        wanted.append(sum(terms) / len(terms))
    np.testing.assert_allclose(scores.oks(POSE, others, areas, SIGMAS, labelled), wanted, rtol=1e-9)
    assert scores.oks(POSE, moved(0.7), 5000, SIGMAS) == pytest.approx(0.7)


def test_a_pose_is_like_itself_and_like_none_without_labels() -> None:
    assert scores.oks(POSE, POSE, 100, SIGMAS) == 1
    assert scores.oks(POSE, POSE, 0, SIGMAS) == 1
    assert scores.oks(POSE, POSE, 100, SIGMAS, np.zeros(17)) == 0
    assert scores.oks(np.zeros((0, 17, 2)), POSE, np.zeros(0), SIGMAS).shape == (0,)


def test_the_score_is_that_of_the_box_times_the_mean_of_sure_joints() -> None:
    joints = np.array([[0.9, 0.5, 0.2, 0.1], [0.2, 0.1, 0.0, -0.3]])
    np.testing.assert_allclose(scores.pose_scores([0.5, 0.8], joints), [0.5 * 0.7, 0])
    np.testing.assert_allclose(scores.pose_scores([0.5, 0.8], joints, least=0.15), [0.5 * (1.6 / 3), 0.8 * 0.2])


def test_of_poses_that_are_too_much_alike_the_best_is_kept() -> None:
    poses = np.stack([moved(0.91), POSE, moved(0.89, side=-1)])
    assert scores.oks_nms(poses, [0.5, 0.9, 0.4], [5000.0] * 3, SIGMAS).tolist() == [1, 2]
    assert scores.oks_nms(poses, [0.5, 0.9, 0.4], [5000.0] * 3, SIGMAS, limit=0.95).tolist() == [1, 0, 2]
    assert scores.oks_nms(poses[:2], [0.95, 0.9], [5000.0] * 2, SIGMAS).tolist() == [0]


def test_a_pose_that_went_takes_no_other_with_it() -> None:
    chain = np.stack([POSE, moved(0.92), moved(0.8)])
    assert scores.oks(chain[1], chain[2], 5000, SIGMAS) > 0.9
    assert scores.oks_nms(chain, [0.9, 0.8, 0.7], [5000.0] * 3, SIGMAS).tolist() == [0, 2]


def test_two_poses_are_compared_by_the_mean_of_their_areas() -> None:
    poses = np.stack([POSE, moved(0.9, area=5000)])
    assert scores.oks_nms(poses, [0.9, 0.8], [1000, 8000], SIGMAS).tolist() == [0, 1]  # mean below 5000: less alike
    assert scores.oks_nms(poses, [0.9, 0.8], [4000, 8000], SIGMAS).tolist() == [0]


def test_the_best_twenty_are_kept_and_the_first_of_equals() -> None:
    poses = POSE + 1000 * np.arange(25)[:, None, None]
    values = np.arange(25) / 25
    assert scores.oks_nms(poses, values, np.full(25, 100.0), SIGMAS).tolist() == list(range(24, 4, -1))
    assert scores.oks_nms(poses[[0, 0]], [0.5, 0.5], [9.0, 9.0], SIGMAS).tolist() == [0]
    assert scores.oks_nms(np.zeros((0, 17, 2)), [], [], SIGMAS).tolist() == []
