"""Draws images, their depth, the prediction and its error side by side, all depths in one scale of colours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.base import Batch, EvaluationShare
from tasks.datasets.loaders import SampleLoaders

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 6
"""Images, at even distances through those that are evaluated."""
COLOURS = "viridis"
TITLES = ("image", "ground truth", "prediction", "error")
DPI, WIDTH, TOP = 100, 9, 0.4
"""Pixels per inch; inches of the picture, and above its first row."""

Predict = Callable[[Batch], "Iterator[tuple[Tensor, Tensor]]"]
"""A batch -> each image (3, h, w) of it and the depth predicted for it (1, h, w)."""


def sheet(loaders: SampleLoaders, predict: Predict) -> NDArray[np.uint8]:
    """(height, width, 3): a row for each image; one bar of colours, in metres, for ground truth, prediction, and the
    absolute error. Pixels without ground truth are white in the second and the last column."""
    chosen = _chosen(loaders, predict)
    longest = max(float(truth.max()) for _, truth, _ in chosen)
    return _drawn([_row(*each) for each in chosen], longest)


def _chosen(loaders: SampleLoaders, predict: Predict) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Image, ground truth and prediction of the images that are shown; batches without one of them are not read."""
    parts = loaders.evaluated()
    total = parts[-1][1].stop
    wanted = set(np.linspace(0, total - 1, min(SHOWN, total)).round().astype(int).tolist())
    places = {item: [row for row, number in enumerate(range(total)[part]) if number in wanted] for item, part in parts}
    others = frozenset(item for item, rows in places.items() if not rows)
    chosen = []
    for batch in loaders.evaluation(EvaluationShare(done=others)):
        rows = places[batch["item"]]
        taken = {"images": [batch["images"][row] for row in rows]}
        for row, (image, predicted) in zip(rows, predict(taken), strict=True):
            chosen.append((image, batch["depth"][row], predicted))
    return chosen


def _row(image: Tensor, truth: Tensor, predicted: Tensor) -> tuple[NDArray[np.float32], ...]:
    depth, guess = truth[0].cpu().numpy(), predicted[0].float().cpu().numpy()
    unknown = depth <= 0
    shown = np.where(unknown, np.nan, depth)
    return image.permute(1, 2, 0).cpu().numpy(), shown, guess, np.abs(guess - shown)


def _drawn(rows: list[tuple[NDArray[np.float32], ...]], longest: float) -> NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    height, width = rows[0][1].shape
    ratio = min(max(height / width, 0.25), 2.0)
    tall = TOP + 2 * ratio * len(rows)
    figure = Figure(figsize=(WIDTH, tall), dpi=DPI)
    canvas = FigureCanvasAgg(figure)  # no pyplot, whose figures live on in a warm worker
    edges = {"left": 0.01, "right": 0.88, "bottom": 0.01, "top": 1 - TOP / tall, "wspace": 0.03, "hspace": 0.03}
    axes = figure.subplots(len(rows), len(TITLES), squeeze=False, gridspec_kw=edges)
    scale = Normalize(0, longest)
    for line, row in zip(axes, rows, strict=True):
        for place, values in zip(line, row, strict=True):
            place.imshow(values, cmap=COLOURS, norm=None if values.ndim == 3 else scale, interpolation="nearest")
            place.set_axis_off()
    for place, title in zip(axes[0], TITLES, strict=True):
        place.set_title(title, fontsize=9)
    place = figure.add_axes((0.9, 0.05, 0.02, edges["top"] - 0.1))
    bar = figure.colorbar(ScalarMappable(scale, COLOURS), cax=place, label="metres")
    bar.ax.tick_params(labelsize=8)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
    return pixels
