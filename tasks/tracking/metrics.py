"""Figures of tracking: success, precision and overlap, as SwinTrack's code (LaSOT, TrackingNet) and GOT-10k's toolkit
compute them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.metrics import Metric, percent
from tasks.tracking.crops import Floats

Kind = Literal["otb", "got10k"]
SUC = percent("success_mean", "mean success (SUC)")
"""The success curve's mean over thresholds: the area under it."""
AO = percent("ao", "average overlap (AO)")
SR = (percent("sr50", "SR 0.5"), percent("sr75", "SR 0.75"))
PRECISION = (percent("precision", "precision at 20 pixels"), percent("norm_precision", "normalised precision at 0.2"))
METRICS: dict[Kind, tuple[Metric, ...]] = {"otb": (SUC, *PRECISION, AO, *SR), "got10k": (AO, *SR, SUC, *PRECISION)}
"""The first is the one that the paper reports for such data."""
THRESHOLDS = np.linspace(0, 1, 21)
"""Of the success curve: overlaps."""
PIXELS, SHARE = 20.0, 0.2
"""Thresholds of the centre's error, in pixels, and of its error over the sides of the object."""


def overlap(boxes: Floats, truth: Floats) -> Floats:
    """IoU of boxes (n, 4), each left, top, right, bottom; 0 for one without area."""
    met = np.clip(np.minimum(boxes[:, 2:], truth[:, 2:]) - np.maximum(boxes[:, :2], truth[:, :2]), 0, None).prod(1)
    areas = [np.clip(each[:, 2:] - each[:, :2], 0, None).prod(1) for each in (boxes, truth)]
    union = areas[0] + areas[1] - met
    return np.where(union > 0, met / np.where(union > 0, union, 1), 0.0)


def within(boxes: Floats, size: tuple[int, int]) -> Floats:
    """Boxes as GOT-10k's toolkit takes them into a frame of this width and height: the left upper corner is moved into
    it, and the sides stay as long as they fit. (A box that reaches out on the left keeps its width.)"""
    corner = np.clip(boxes[:, :2], 0, size)
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, np.asarray(size) - corner)
    return np.concatenate([corner, corner + sides], 1)


@dataclass(frozen=True)
class SequenceFigures:
    """What the frames of one sequence come to: plain numbers, from which figures over sequences follow."""

    name: str
    frames: int
    """That count."""
    overlaps: float
    """Their sum, like all that follows: how many frames, or what they add up to."""
    over50: int
    over75: int
    near: int
    """Centres within 20 pixels."""
    near_share: int
    curve: tuple[int, ...]
    """Frames above each of the thresholds."""

    @classmethod
    def of(
        cls, name: str, boxes: Floats, truth: Floats, counted: NDArray[np.bool_], size: tuple[int, int] | None = None
    ) -> SequenceFigures:
        """`boxes`, `truth` (n, 4): left, top, right, bottom in pixels; `counted` (n,): the frames that count; `size`:
        width and height of the frames for GOT-10k's rules, None for those of SwinTrack.

        `otb`: overlap >= threshold, where no overlap is none even for 0 (SwinTrack). `got10k`: overlap > threshold, of
        boxes that are taken into the frame first (its toolkit, see `within`). Centres are the boxes' middles, without
        the pixel that GOT-10k's toolkit takes off.
        """
        kind: Kind = "otb" if size is None else "got10k"
        boxes, truth = boxes[counted], truth[counted]
        found = overlap(boxes, truth) if size is None else overlap(within(boxes, size), within(truth, size))
        reached = (
            np.where(found > 0, found, -1.0)[:, None] >= THRESHOLDS if kind == "otb" else found[:, None] > THRESHOLDS
        )
        apart = (boxes[:, :2] + boxes[:, 2:] - truth[:, :2] - truth[:, 2:]) / 2
        sides = truth[:, 2:] - truth[:, :2]
        shares = np.full_like(apart, np.inf)
        np.divide(apart, sides, out=shares, where=sides > 0)
        limits = [found >= limit if kind == "otb" else found > limit for limit in (0.5, 0.75)]
        there = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return cls(
            name, len(found), float(found.sum()), int(limits[0].sum()), int(limits[1].sum()),
            int((there & (np.hypot(*apart.T) <= PIXELS)).sum()),
            int((there & (np.hypot(*shares.T) <= SHARE)).sum()),
            tuple(int(count) for count in reached.sum(0)),
        )  # fmt: skip

    def figures(self) -> dict[str, float]:
        """Of this sequence alone."""
        return {name: float(value) / self.frames for name, value in self._sums().items()}

    def _sums(self) -> dict[str, float]:
        return {
            "success_mean": sum(self.curve) / len(self.curve), "precision": self.near,
            "norm_precision": self.near_share, "ao": self.overlaps, "sr50": self.over50, "sr75": self.over75,
        }  # fmt: skip


def figures(sequences: Sequence[SequenceFigures], kind: Kind) -> tuple[dict[str, float], list[float]]:
    """Figures over sequences, and the success curve. `otb`: means over sequences, each counting alike. `got10k`: over
    all frames of all sequences together. Raises ValueError when no frame counts."""
    some = [each for each in sequences if each.frames]
    if not some:
        raise ValueError("no frame of any sequence counts, so there is nothing to take the mean of")
    weights = np.array([each.frames if kind == "got10k" else 1 for each in some], np.float64)
    weights /= weights.sum()
    by_sequence = [each.figures() for each in some]
    found = {name: float(np.dot(weights, [each[name] for each in by_sequence])) for name in by_sequence[0]}
    curves = np.array([np.asarray(each.curve) / each.frames for each in some])
    return found, (weights @ curves).tolist()
