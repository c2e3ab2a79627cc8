"""SILog against the public code's value and gradient, and where it has neither."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.depth.losses import silog

DATA = Path(__file__).parents[2] / "data" / "depth"


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(DATA / "loss_and_figures.npz", allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files if file[name].dtype.kind == "f"}


def test_value_and_gradient_over_a_batch_are_the_public_codes(golden: dict[str, Tensor]) -> None:
    predicted = golden["pred"].clone().requires_grad_()
    loss = silog(predicted, golden["gt"])
    loss.backward()
    assert loss.item() == pytest.approx(golden["silog_batch"].item(), abs=1e-6)
    torch.testing.assert_close(predicted.grad, golden["silog_grad"], rtol=0, atol=1e-6)
    assert golden["silog_grad"].abs().max() > 1e-4
    assert (golden["gt"] == 0).any()


def test_it_is_no_mean_over_images(golden: dict[str, Tensor]) -> None:
    each = [silog(one, depth).item() for one, depth in zip(golden["pred"], golden["gt"], strict=True)]
    assert each == pytest.approx(golden["silog_each"].tolist(), abs=1e-6)
    assert abs(sum(each) / 3 - golden["silog_batch"].item()) > 1e-5


def test_a_common_factor_costs_the_root_of_half_its_logarithm_squared() -> None:
    depth = torch.rand(2, 1, 8, 8) + 1
    assert silog(depth * 3, depth).item() == pytest.approx(np.log(3) * np.sqrt(0.5), rel=1e-5)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_pixels_without_depth_count_for_nothing_whatever_is_predicted_there(bad: float) -> None:
    depth, predicted = torch.rand(2, 1, 8, 8) + 1, torch.rand(2, 1, 8, 8) + 1
    depth[0, 0, 3], predicted[0, 0, 3] = 0, bad
    predicted.requires_grad_()
    loss = silog(predicted, depth)
    loss.backward()
    known = depth > 0
    assert loss.item() == pytest.approx(silog(predicted[known], depth[known]).item(), rel=1e-6)
    assert predicted.grad is not None
    assert torch.equal(predicted.grad != 0, known)


@pytest.mark.parametrize("known", [False, True])
def test_without_depths_or_without_errors_the_gradient_is_zero(known: bool) -> None:
    """The formula's is NaN: it would end a training whose only fault is a crop of the sky."""
    depth = torch.full((1, 1, 4, 4), 2.0 if known else 0.0)
    predicted = torch.full((1, 1, 4, 4), 2.0, requires_grad=True)
    loss = silog(predicted, depth)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-18)
    assert predicted.grad is not None
    assert torch.equal(predicted.grad, torch.zeros(1, 1, 4, 4))


def test_a_prediction_that_is_no_number_is_not_hidden() -> None:
    depth, predicted = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    predicted[0, 0, 0, 0] = torch.nan
    assert silog(predicted, depth).isnan()


def test_half_precision_is_computed_in_float32() -> None:
    depth, predicted = ((torch.rand(1, 1, 64, 64) + 1).bfloat16() for _ in range(2))
    assert silog(predicted, depth).item() == pytest.approx(silog(predicted.float(), depth.float()).item(), rel=1e-6)


def test_a_single_pixel_counts_once() -> None:
    depth = torch.tensor([[[[0.0, 2.0]]]])
    assert silog(torch.tensor([[[[1.0, 1.0]]]]), depth).item() == pytest.approx(np.log(2) * np.sqrt(0.5), rel=1e-6)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"predictions of shape \(2, 1, 4, 4\) for depths of shape \(2, 4, 4\)"):
        silog(torch.ones(2, 1, 4, 4), torch.ones(2, 4, 4))
