"""Figures of tracking by the conventions of SwinTrack's code and of GOT-10k's toolkit, on boxes with known overlaps."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.tracking.metrics import METRICS, SequenceFigures, figures, overlap, within

TRUTH = np.array([0.0, 0, 10, 10])


def boxes_of(*overlaps: float) -> np.ndarray:
    """Boxes within the true one: that share of it; 0: one beside it."""
    return np.array([[0, 0, 10 * share, 10] if share else [20, 0, 30, 10] for share in overlaps], float)


def measured(*overlaps: float, kind: str = "otb", name: str = "a") -> SequenceFigures:
    boxes, size = boxes_of(*overlaps), (40, 40) if kind == "got10k" else None
    return SequenceFigures.of(name, boxes, np.tile(TRUTH, (len(boxes), 1)), np.ones(len(boxes), bool), size)


def test_overlap_of_boxes() -> None:
    pairs = [
        ((0, 0, 10, 10), 1.0),
        ((5, 0, 15, 10), 1 / 3),
        ((10, 0, 20, 10), 0.0),
        ((3, 3, 3, 9), 0.0),
        ((9, 9, 1, 1), 0.0),
    ]
    found = overlap(np.array([box for box, _ in pairs], float), np.tile(TRUTH, (len(pairs), 1)))
    assert found == pytest.approx([value for _, value in pairs])


def test_success_counts_from_the_threshold_on_or_above_it() -> None:
    """SwinTrack: IoU >= t, and no overlap reaches no threshold; GOT-10k's toolkit: IoU > t."""
    otb, got10k = (measured(0.5, 1.0, 0.0, 0.25, kind=kind) for kind in ("otb", "got10k"))
    assert (otb.curve[0], otb.curve[5], otb.curve[10], otb.curve[20]) == (3, 3, 2, 1)
    assert (got10k.curve[0], got10k.curve[5], got10k.curve[10], got10k.curve[20]) == (3, 2, 1, 0)
    assert (otb.over50, got10k.over50) == (2, 1)
    assert otb.figures()["success_mean"] == pytest.approx(np.mean(otb.curve) / 4)
    assert otb.figures()["ao"] == got10k.figures()["ao"] == pytest.approx((0.5 + 1 + 0.25) / 4)


def test_success_curve_is_that_of_the_definition() -> None:
    generator = np.random.default_rng(0)
    shares = generator.uniform(0.01, 1, 500)
    curve = [(shares >= threshold).sum() for threshold in np.arange(21) / 20]
    assert measured(*shares).curve == tuple(curve)


def test_boxes_are_taken_into_the_frame_as_got_10ks_toolkit_does() -> None:
    boxes = np.array([[-10.0, 5, 20, 25], [30, -5, 50, 45], [50, 5, 60, 15], [3, 4, 8, 9]])
    inside = [[0, 5, 30, 25], [30, 0, 40, 30], [40, 5, 40, 15], [3, 4, 8, 9]]  # the first one keeps its width
    assert within(boxes, (40, 30)).tolist() == inside
    truth, counted = np.array([[-10.0, 0, 20, 20]]), np.ones(1, bool)
    part = np.array([[0.0, 0, 20, 20]])  # what the frame shows of it
    assert SequenceFigures.of("a", part, truth, counted).overlaps == pytest.approx(20 / 30)
    assert SequenceFigures.of("a", part, truth, counted, (40, 40)).overlaps == pytest.approx(20 / 30)
    low = np.array([[20.0, 30, 40, 60]])
    assert SequenceFigures.of("a", low, np.array([[20.0, 30, 40, 40]]), counted, (40, 40)).overlaps == 1


def test_precision_is_of_centres_in_pixels_and_over_the_sides() -> None:
    truth = np.array([[0.0, 0, 40, 10]] * 5)
    moved = [(0, 0), (20, 0), (20.1, 0), (8, 0), (0, 2.1)]
    boxes = truth + np.array([[x, y, x, y] for x, y in moved])
    boxes = np.concatenate([boxes, [[50.0, 0, 10, 10]]])  # without area, though its middle is near
    found = SequenceFigures.of("a", boxes, np.vstack([truth, truth[:1]]), np.ones(6, bool))
    assert (found.near, found.near_share) == (4, 2)  # (20.1, 0) is too far; of 40 x 10: 0.2 is 8 and 2 pixels


def test_frames_that_do_not_count_change_nothing() -> None:
    boxes = boxes_of(1.0, 0.5, 0.0)
    truth = np.vstack([TRUTH, TRUTH, np.zeros(4)])
    some = SequenceFigures.of("a", boxes, truth, np.array([True, True, False]))
    assert some == measured(1.0, 0.5)


def test_figures_are_means_over_sequences_or_over_all_frames() -> None:
    for kind, ao, at_half in (("otb", (1.0 + 0.2) / 2, 0.5), ("got10k", (1.0 + 9 * 0.2) / 10, 0.1)):
        long = measured(*[0.2] * 9, kind=kind, name="b")
        found, curve = figures([measured(1.0, kind=kind), long], kind)  # type: ignore[arg-type]
        assert found["ao"] == pytest.approx(ao)
        assert curve[10] == found["sr50"] == pytest.approx(at_half)
        assert found["success_mean"] == pytest.approx(np.mean(curve))
        assert set(found) == {metric.name for metric in METRICS[kind]}  # type: ignore[index]


def test_a_sequence_of_which_nothing_counts_is_left_out() -> None:
    nothing = SequenceFigures.of("b", boxes_of(1.0), TRUTH[None], np.array([False]))
    assert figures([measured(0.5), nothing], "otb") == figures([measured(0.5)], "otb")
    with pytest.raises(ValueError, match="no frame of any sequence counts"):
        figures([nothing], "otb")
