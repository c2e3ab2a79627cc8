"""How alike two poses are (OKS), which of several poses of one person is kept, and the score of a pose."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

OKS_LIMIT = 0.9
"""Poses more alike than this are taken for one person."""
MOST_POSES = 20
"""Poses of one image that COCO's and CrowdPose's evaluators look at."""
CROWD_AREA = 0.53
"""Area of a person as a part of its box, in CrowdPose's evaluator."""
LEAST_JOINT_SCORE = 0.2
"""Joints up to this score do not count in the score of a pose."""


def oks(
    poses: ArrayLike, others: ArrayLike, areas: ArrayLike, sigmas: ArrayLike, labelled: ArrayLike | None = None
) -> Floats:
    """Object keypoint similarity (...,), 0 to 1, of poses (..., k, 2) and others (..., k, 2) in pixels.

    `areas` (...): square pixels. `sigmas` (k,): see `joints.Skeleton`. `labelled` (..., k): the joints that count;
    None: all. The similarity is 0 where none counts (COCO's evaluator then looks at boxes instead, which is not done
    here).
    """
    distances = np.square(np.asarray(poses, dtype=np.float64) - np.asarray(others, dtype=np.float64)).sum(-1)
    spread = np.square(2 * np.asarray(sigmas, dtype=np.float64))
    room = np.asarray(areas, dtype=np.float64)[..., None] + np.spacing(1)
    alike = np.exp(-distances / spread / room / 2)
    counts = np.ones_like(alike) if labelled is None else np.broadcast_to(np.asarray(labelled) > 0, alike.shape)
    return np.asarray((alike * counts).sum(-1) / np.maximum(counts.sum(-1), 1))


def pose_scores(box_scores: ArrayLike, joint_scores: ArrayLike, least: float = LEAST_JOINT_SCORE) -> Floats:
    """(n,): score of the box (n,) times the mean of those joint scores (n, k) that are above `least`.

    0 for a pose without such a joint.
    """
    scores = np.asarray(joint_scores, dtype=np.float64)
    counts = scores > least
    means = (scores * counts).sum(-1) / np.maximum(counts.sum(-1), 1)
    return np.asarray(np.asarray(box_scores, dtype=np.float64) * means)


def oks_nms(
    poses: ArrayLike,
    scores: ArrayLike,
    areas: ArrayLike,
    sigmas: ArrayLike,
    limit: float = OKS_LIMIT,
    most: int = MOST_POSES,
) -> NDArray[np.int64]:
    """Indices of the poses of one image to keep, best score first, at most `most`.

    `poses` (n, k, 2), `scores` (n,), `areas` (n,): in the public code the area of the padded box that the pose was
    found in (product of `boxes.centre_and_scale`'s scale), not of the person. A pose goes if a kept one has a better
    score and an OKS with it above `limit`, by the mean of both areas. Of equal scores the first is kept.
    """
    points, room = np.asarray(poses, dtype=np.float64), np.asarray(areas, dtype=np.float64)
    waiting = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    kept: list[int] = []
    while len(waiting) and len(kept) < most:
        best, rest = waiting[0], waiting[1:]
        kept.append(int(best))
        alike = oks(points[rest], points[best], (room[rest] + room[best]) / 2, sigmas)
        waiting = rest[alike <= limit]
    return np.array(kept, dtype=np.int64)
