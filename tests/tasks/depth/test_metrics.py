"""The figures of depth against the public code's, and the windows against its numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.depth.metrics import METRICS, Window, evaluated_part, evaluated_pixels, image_figures, mean_over_images

DATA = Path(__file__).parents[2] / "data" / "depth"


def test_every_figure_is_the_public_codes_per_image_and_as_mean_over_images() -> None:
    with np.load(DATA / "loss_and_figures.npz", allow_pickle=False) as file:
        golden = {name: file[name] for name in file.files}
    names = [str(name).replace("rmse_log", "log_rmse") for name in golden["keys"]]  # our name for it
    assert {metric.name for metric in METRICS} == set(names)
    images = [
        image_figures(predicted, depth, evaluated_pixels(depth, "whole", 0, math.inf))
        for predicted, depth in zip(torch.from_numpy(golden["pred"]), torch.from_numpy(golden["gt"]), strict=True)
    ]
    for image, expected in zip(images, golden["metrics_each"], strict=True):
        assert [image[name] for name in names] == pytest.approx(expected, abs=1e-6)
    mean = mean_over_images(images)
    assert [mean[name] for name in names] == pytest.approx(golden["metrics_mean_over_images"], abs=1e-6)
    pooled = dict(zip(names, golden["metrics_pooled_pixels_NOT_the_protocol"].tolist(), strict=True))
    assert abs(mean["rmse"] - pooled["rmse"]) > 1e-4


def test_declared_as_the_paper_prints_them() -> None:
    first = METRICS[0]
    assert (first.name, first.unit, first.digits, first.scale, first.better) == ("rmse", "m", 3, 1.0, "lower")
    assert [metric.name for metric in METRICS if metric.better == "higher"] == ["d1", "d2", "d3"]
    assert {metric.digits for metric in METRICS} == {3}
    assert [metric.name for metric in METRICS if metric.unit] == ["rmse", "sq_rel"]


def test_figures_in_closed_form() -> None:
    depth = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    figures = image_figures(depth * 1.5, depth, depth > 0)
    log = math.log(1.5)
    assert figures == pytest.approx({
        "rmse": 0.5 * math.sqrt(85 / 4), "log_rmse": log, "abs_rel": 0.5, "sq_rel": 0.25 * 15 / 4,
        "d1": 0, "d2": 1, "d3": 1, "silog": log * math.sqrt(0.5), "log10": math.log10(1.5),
    })  # fmt: skip
    below = image_figures(depth / 1.5, depth, depth > 0)
    assert (below["d1"], below["d2"]) == (0, 1)


@pytest.mark.parametrize(
    ("window", "size", "expected"),
    [
        ("whole", (5, 7), (0, 5, 0, 7)),
        ("garg", (352, 1216), (143, 349, 43, 1172)),
        ("eigen", (352, 1216), (117, 321, 43, 1172)),
        ("garg", (375, 1242), (153, 371, 44, 1197)),
        ("nyu", (480, 640), (45, 471, 41, 601)),
        ("nyu", (240, 320), (22, 235, 20, 300)),
    ],
)
def test_windows(window: Window, size: tuple[int, int], expected: tuple[int, ...]) -> None:
    """Garg's for 375 x 1242 is the one known from evaluations of KITTI: rows 153 to 371, columns 44 to 1197."""
    rows, columns = evaluated_part(window, *size)
    assert (rows.start, rows.stop, columns.start, columns.stop) == expected


def test_pixels_lie_inside_window_and_range() -> None:
    depth = torch.full((480, 640), 5.0)
    depth[100, 100:105] = torch.tensor([0.0, 1e-3, 10.0, torch.nan, torch.inf])
    depth[100, 105] = 9.99
    pixels = evaluated_pixels(depth, "nyu", 1e-3, 10)
    assert pixels.sum() == (471 - 45) * (601 - 41) - 5
    assert not pixels[100, 100:105].any()
    assert pixels[100, 105]
    assert not pixels[44].any()
    assert not pixels[:, 601].any()


def test_an_image_without_ground_truth_is_refused() -> None:
    depth = torch.zeros(4, 4)
    with pytest.raises(ValueError, match=r"no ground truth in the part that is evaluated.*leave it out of the list"):
        image_figures(depth + 1, depth, evaluated_pixels(depth, "whole", 1e-3, 10))


def test_predictions_that_are_no_depth_are_not_hidden() -> None:
    depth = torch.ones(1, 4)
    zero, none, negative = (
        image_figures(torch.tensor([[1.0, 1.0, 1.0, bad]]), depth, depth > 0) for bad in (0.0, torch.nan, -1.0)
    )
    assert (zero["log_rmse"], zero["d1"], zero["rmse"]) == (math.inf, 0.75, 0.5)
    assert all(math.isnan(value) for value in none.values())
    assert all(math.isnan(negative[name]) for name in ("d1", "d3", "log_rmse", "silog", "log10"))


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 4, 4\) for depth and pixels of shape \(4, 4\) and \(4, 4\)"):
        image_figures(torch.ones(1, 4, 4), torch.ones(4, 4), torch.ones(4, 4, dtype=torch.bool))


def test_no_image_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no image"):
        mean_over_images([])
