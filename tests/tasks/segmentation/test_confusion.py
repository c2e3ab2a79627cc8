"""Figures of segmentation beside scikit-learn's, over parts, and where classes are absent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, jaccard_score

from tasks.datasets.class_maps.types import IGNORED
from tasks.segmentation.confusion import added, confusion, figures, ious


def drawn(seed: int, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, (11, 13)).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, classes, truth.shape))
    truth[rng.random(truth.shape) < 0.1] = IGNORED
    return torch.from_numpy(predicted.astype(np.int64)), torch.from_numpy(truth)


def test_figures_are_those_of_scikit_learn_over_all_pixels_of_all_images() -> None:
    pairs = [drawn(seed) for seed in range(5)]
    found = figures(added(confusion(predicted, truth, 4) for predicted, truth in pairs))
    predicted, truth = (np.concatenate([pair[i].numpy().ravel() for pair in pairs]) for i in (0, 1))
    predicted, truth = predicted[truth != IGNORED], truth[truth != IGNORED]
    assert found["miou"] == pytest.approx(jaccard_score(truth, predicted, average="macro"))
    assert found["macc"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    assert found["aacc"] == pytest.approx(accuracy_score(truth, predicted))


def test_a_row_is_a_true_class_and_a_column_a_predicted_one() -> None:
    counts = confusion(torch.tensor([[0, 0, 2]]), torch.tensor([[0, 1, IGNORED]], dtype=torch.uint8), 3)
    assert counts.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_absent_classes() -> None:
    """Predicted and not there: an IoU of 0, and no part of the accuracy. Neither: no part of anything."""
    counts = np.array([[6, 2, 0], [0, 0, 0], [0, 0, 0]])
    assert ious(counts).tolist()[:2] == [0.75, 0.0]
    assert np.isnan(ious(counts)[2])
    assert figures(counts) == {"miou": 0.375, "macc": 0.75, "aacc": 0.75}


def test_maps_without_a_labelled_pixel_give_zeros() -> None:
    truth = torch.full((3, 3), IGNORED, dtype=torch.uint8)
    assert figures(confusion(torch.zeros(3, 3, dtype=torch.int64), truth, 2)) == {"miou": 0.0, "macc": 0.0, "aacc": 0.0}
