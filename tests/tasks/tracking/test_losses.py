"""Positive cells and the loss are SwinTrack's: against its public code's numbers, and where they must not follow it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reference_numbers import reference_numbers
from torch import Tensor

from tasks.tracking.labels import positives
from tasks.tracking.losses import LEAST_OVERLAP, overlaps, tracking_sums, varifocal_sum
from tasks.tracking.model import Head

SEARCH, GRID = 224, (14, 14)


@pytest.fixture(scope="module")
def stored() -> dict[str, NDArray[np.float32]]:
    return reference_numbers("tracking/labels_losses.npz")


@pytest.fixture
def boxes(stored: dict[str, NDArray[np.float32]]) -> Tensor:
    """Six boxes as parts of the search region, and one without area for the sample that shows no object."""
    return torch.cat([torch.from_numpy(stored["boxes_xyxy"]) / SEARCH, torch.zeros(1, 4)])


def test_positive_cells_are_those_of_the_reference(stored: dict[str, NDArray[np.float32]], boxes: Tensor) -> None:
    found = positives(boxes, GRID).flatten(1)
    for number in range(6):
        np.testing.assert_array_equal(found[number].nonzero()[:, 0].numpy(), stored[f"pos_idx{number}"])
    assert not found[6].any()
    assert found.sum() == stored["num_pos"][0]
    np.testing.assert_array_equal(found.float().numpy(), stored["class_label"])


def test_loss_and_gradients_are_those_of_the_reference(stored: dict[str, NDArray[np.float32]], boxes: Tensor) -> None:
    scores = torch.from_numpy(stored["class_score"][:, 0]).requires_grad_()
    predicted = torch.from_numpy(stored["bbox"]).requires_grad_()
    positive = positives(boxes, GRID)
    sums = tracking_sums(scores, predicted, boxes, positive, alpha=0.75, gamma=2.0)
    varifocal, giou = (each / positive.sum() for each in sums)
    assert varifocal.item() == pytest.approx(float(stored["varifocal"]), abs=1e-5)
    assert giou.item() == pytest.approx(float(stored["giou"]), abs=1e-5)
    total = 1.5 * varifocal + 1.5 * giou
    assert total.item() == pytest.approx(float(stored["total"]), abs=1e-5)
    total.backward()
    assert scores.grad is not None
    assert predicted.grad is not None
    np.testing.assert_allclose(scores.grad[:, None].numpy(), stored["grad_class_score"], atol=1e-6)
    np.testing.assert_allclose(predicted.grad.numpy(), stored["grad_bbox"], atol=1e-6)


def test_a_positive_whose_box_misses_weighs_almost_nothing(
    stored: dict[str, NDArray[np.float32]], boxes: Tensor
) -> None:
    """Its target is no 0, which would make it a negative."""
    positive = positives(boxes, GRID)
    far = torch.zeros(7, *GRID, 4)
    far[..., :2], far[..., 2:] = 2.0, 0.1  # outside of every search region
    scores = torch.full((7, *GRID), 0.5)
    missed, _ = tracking_sums(scores, far, boxes, positive, 0.75, 2.0)
    negatives = varifocal_sum(scores[~positive], torch.zeros(int((~positive).sum())), 0.75, 2.0)
    assert 0 < missed - negatives < 1e-3
    assert LEAST_OVERLAP == 1e-6


def test_a_batch_without_a_positive_has_a_loss_and_a_gradient() -> None:
    scores = torch.full((2, *GRID), 0.5, requires_grad=True)
    predicted = torch.full((2, *GRID, 4), 0.5, requires_grad=True)
    none = positives(torch.zeros(2, 4), GRID)
    varifocal, giou = tracking_sums(scores, predicted, torch.zeros(2, 4), none, 0.75, 2.0)
    assert giou.item() == 0
    (varifocal + giou).backward()
    assert torch.isfinite(scores.grad).all()  # type: ignore[arg-type]
    assert predicted.grad is not None


@pytest.mark.parametrize(
    ("second", "iou", "giou"),
    [((0.0, 0.0, 0.5, 0.5), 1.0, 1.0), ((0.25, 0.0, 0.75, 0.5), 1 / 3, 1 / 3), ((0.5, 0.5, 1.0, 1.0), 0.0, -0.5)],
)
def test_overlaps_of_a_square(second: tuple[float, ...], iou: float, giou: float) -> None:
    found = overlaps(torch.tensor([[0.0, 0.0, 0.5, 0.5]]), torch.tensor([second]))
    assert [value.item() for value in found] == pytest.approx([iou, giou])


def test_scores_and_loss_are_in_fp32_under_autocast(boxes: Tensor) -> None:
    torch.manual_seed(0)
    head = Head(16, 0.5)
    tokens = torch.randn(7, 196, 16)
    with torch.autocast("cpu", torch.bfloat16):
        scores, predicted = head(tokens)
        assert (scores.dtype, predicted.dtype) == (torch.float32, torch.float32)
        scores, predicted = scores.unflatten(1, GRID), predicted.unflatten(1, GRID)
        inside = tracking_sums(scores, predicted, boxes, positives(boxes, GRID), 0.75, 2.0)
    outside = tracking_sums(scores, predicted, boxes, positives(boxes, GRID), 0.75, 2.0)
    assert [value.item() for value in inside] == [value.item() for value in outside]
