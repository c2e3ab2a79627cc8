"""The joints that COCO and CrowdPose label: names, pairs, tolerances, halves of the body and edges for pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Skeleton:
    """The joints of one data set, in the order of its annotations."""

    names: tuple[str, ...]
    """A joint on one side of the body begins with left_ or right_."""
    sigmas: tuple[float, ...]
    """Of OKS, one for each joint: how far labels of one joint scatter, as a fraction of the root of a person's area."""
    upper: tuple[str, ...]
    """The joints of the upper half of the body; the others are the lower half."""
    edges: tuple[tuple[str, str], ...]
    """Pairs of joints that pictures connect by a line."""
    half_body_above: int
    """Half body augmentation is for persons with more labelled joints than this."""

    def __post_init__(self) -> None:
        assert len(self.sigmas) == len(self.names)
        assert {name for pair in self.edges for name in pair} | set(self.upper) <= set(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def flip_order(self) -> list[int]:
        """For each joint the one that takes its place in a mirrored image: left for right, itself if it has no side."""
        return [self.names.index(_other_side(name)) for name in self.names]

    @property
    def flip_pairs(self) -> list[tuple[int, int]]:
        """(left, right) of the joints that have a side."""
        return [(i, other) for i, other in enumerate(self.flip_order) if self.names[i].startswith("left_")]

    @property
    def is_upper(self) -> NDArray[np.bool_]:
        """(joints,): true for the upper half of the body."""
        import numpy as np

        return np.isin(self.names, self.upper)

    @property
    def edge_indices(self) -> list[tuple[int, int]]:
        """`edges` as indices of joints."""
        return [(self.names.index(first), self.names.index(second)) for first, second in self.edges]


def _other_side(name: str) -> str:
    side, _, joint = name.partition("_")
    return {"left": f"right_{joint}", "right": f"left_{joint}"}.get(side, name)


def _both(joints: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{side}_{joint}" for joint in joints for side in ("left", "right"))


_ARMS_AND_LEGS = tuple(
    (f"{side}_{first}", f"{side}_{second}")
    for first, second in (
        ("ankle", "knee"),
        ("knee", "hip"),
        ("hip", "shoulder"),
        ("shoulder", "elbow"),
        ("elbow", "wrist"),
    )
    for side in ("left", "right")
)
_FACE = ("nose", *_both(("eye", "ear")))
_ARMS = _both(("shoulder", "elbow", "wrist"))
_LEGS = _both(("hip", "knee", "ankle"))

COCO = Skeleton(
    names=(*_FACE, *_ARMS, *_LEGS),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
        0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
    ),
    upper=(*_FACE, *_ARMS),
    edges=(
        *_ARMS_AND_LEGS,
        ("left_hip", "right_hip"), ("left_shoulder", "right_shoulder"), ("left_eye", "right_eye"),
        ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"), ("right_eye", "right_ear"),
        ("left_ear", "left_shoulder"), ("right_ear", "right_shoulder"),
    ),
    half_body_above=8,
)  # fmt: skip
"""COCO 2017 keypoints: 17 joints. Names and order as `categories` of its annotations has them, sigmas as COCO's
evaluator, 8 joints for half body as the public code of PCT (configs/hmp_base.py)."""

CROWDPOSE = Skeleton(
    names=(*_ARMS, *_LEGS, "top_head", "neck"),
    sigmas=(0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079),
    upper=(*_ARMS, "top_head", "neck"),
    edges=(
        *_ARMS_AND_LEGS,
        ("left_hip", "right_hip"), ("left_shoulder", "right_shoulder"),
        ("top_head", "neck"), ("right_shoulder", "neck"), ("left_shoulder", "neck"),
    ),
    half_body_above=6,
)  # fmt: skip
"""CrowdPose: 14 joints. Order and sigmas as its evaluator, names, halves and edges as mmpose (configs/_base_/datasets/
crowdpose.py), 6 joints for half body as mmpose's CrowdPose configurations."""
