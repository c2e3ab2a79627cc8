"""The gradient of a step does not depend on how the batch is cut, whatever its targets and its loss are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from points_task import Points, points_trial
from tiny_task import assert_close, outcome_values, run

from tasks.base import DataContext
from workers.throughput import flops_per_image


@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_lists_of_targets_are_cut_with_their_images(tmp_path: Path, micro_batch: int) -> None:
    whole, whole_reports = run(points_trial(), tmp_path / "whole")
    parts, part_reports = run(points_trial(micro_batch=micro_batch), tmp_path / "parts")
    assert_close(whole, parts)
    assert whole_reports[-1].values["train_loss"] < whole_reports[0].values["train_loss"]
    for one, two in zip(whole_reports, part_reports, strict=True):
        assert outcome_values(one) == pytest.approx(outcome_values(two), rel=1e-5)


def test_operations_are_counted_with_lists_of_targets(tmp_path: Path) -> None:
    """Two images with their own lists, of a batch of eight."""
    spec = points_trial()
    place = DataContext(tmp_path, input_size=(4, 4), device="cpu", seed=0, batch=8)
    (batch, *_) = Points().loaders(place).epoch(0)
    assert flops_per_image(spec, batch) == 2 * (2 * 48 * 16 + 3 * 16 * 3)
    assert all(isinstance(points, torch.Tensor) and points.device.type == "cpu" for points in batch["points"])
