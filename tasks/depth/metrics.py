"""Figures of depth estimation, of one image each and as means over images; the pixels that they are taken from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tasks.datasets.depth_pairs.window import Window, evaluated_part
from tasks.metrics import Metric

if TYPE_CHECKING:
    from torch import Tensor

LAMBDA = 0.5
"""SILog's weight of the squared mean error: half of a factor that all predictions share goes unpunished. Source: the
paper's depth code, SwinTransformer/MIM-Depth-Estimation."""

METRICS = (
    Metric("rmse", "RMSE", "lower", "m"),
    Metric("log_rmse", "log RMSE", "lower"),
    Metric("abs_rel", "AbsRel", "lower"),
    Metric("sq_rel", "SqRel", "lower", "m"),
    Metric("d1", "d1, share of pixels within a factor of 1.25", "higher"),
    Metric("d2", "d2, within 1.25^2", "higher"),
    Metric("d3", "d3, within 1.25^3", "higher"),
    Metric("silog", "SILog", "lower"),
    Metric("log10", "mean log10 error", "lower"),
)
"""Means over images of `image_figures`, with three decimals as in Table 2 and in the public code's tables. Trials are
chosen by the first, which is Table 2's."""

FACTOR = 1.25
"""d1, d2, d3: prediction and ground truth differ by a factor below this, its square, its cube."""


def evaluated_pixels(depth: Tensor, window: Window, shortest: float, longest: float) -> Tensor:
    """True for the pixels (height, width) in the window with shortest < depth < longest (metres); False where the depth
    is not known (0, NaN)."""
    import torch

    height, width = depth.shape
    rows, columns = evaluated_part(window, height, width)
    evaluated = torch.zeros_like(depth, dtype=torch.bool)
    evaluated[rows, columns] = (depth[rows, columns] > shortest) & (depth[rows, columns] < longest)
    return evaluated


def image_figures(predicted: Tensor, depth: Tensor, pixels: Tensor) -> dict[str, float]:
    """The figures of one image, by the names of `METRICS`, over its evaluated pixels, in float64.

    `predicted`, `depth`: metres (height, width). `pixels`: bool (height, width), see `evaluated_pixels`. A prediction
    that is not a positive number yields figures that are not numbers, or infinite. Raises ValueError when the shapes
    differ or there is no pixel: a mean over images would say nothing of an image that was left out.
    """
    if not predicted.shape == depth.shape == pixels.shape:
        shapes = " and ".join(str(tuple(each.shape)) for each in (depth, pixels))
        raise ValueError(f"a prediction of shape {tuple(predicted.shape)} for depth and pixels of shape {shapes}")
    guess, truth = predicted[pixels].double(), depth[pixels].double()
    if not truth.numel():
        raise ValueError(
            "the image has no ground truth in the part that is evaluated and between the shortest and longest depth; "
            "leave it out of the list, or correct range and unit of its depth map"
        )
    import torch

    error, log_error = guess - truth, guess.log() - truth.log()
    factor = torch.maximum(guess / truth, truth / guess)
    squares = log_error.square().mean()
    figures = {
        "rmse": error.square().mean().sqrt(),
        "log_rmse": squares.sqrt(),
        "abs_rel": (error.abs() / truth).mean(),
        "sq_rel": (error.square() / truth).mean(),
        "silog": (squares - LAMBDA * log_error.mean().square()).sqrt(),
        "log10": (guess.log10() - truth.log10()).abs().mean(),
    }
    figures |= {f"d{power}": (factor < FACTOR**power).double().mean() for power in (1, 2, 3)}
    if log_error.isnan().any():  # such a pixel is not just one that lies outside of every factor, or even within
        figures |= dict.fromkeys(("d1", "d2", "d3"), log_error.new_tensor(torch.nan))
    values = torch.stack(list(figures.values())).tolist()  # a GPU is waited for once
    return dict(zip(figures, values, strict=True))


def mean_over_images(images: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Every figure as the mean of its values per image, each image counting alike, RMSE too, as in the paper's code.
    (Over all pixels of all images together they are others.) Raises ValueError for no image."""
    if not images:
        raise ValueError("no image to take the mean over")
    return {name: sum(image[name] for image in images) / len(images) for name in images[0]}
