"""Draws what a model predicts beside the class maps, in the set's colours, and what the worst classes are taken for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.base import Batch
from tasks.datasets.class_maps.types import Pixels
from tasks.segmentation.confusion import Counts, added, confusion, ious
from tasks.segmentation.loaders import SegmentationLoaders

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKED_AT = 32
"""Images, at even distances through the evaluated part, whose pixels the picture of confusions counts."""
SHOWN = 6
"""Of these the images that are drawn."""
WORST = 12
"""Classes in the picture of confusions, and as many columns of what they are taken for."""
LEGEND = 24
"""Names of classes below the images, those with the most pixels in them."""
TITLES = ("image", "ground truth", "prediction")
DPI, WIDTH = 100, 9
Predict = Callable[[Batch], "Iterator[tuple[Tensor, Tensor]]"]
"""A batch -> each image's predicted classes and its map (h, w)."""


@dataclass(frozen=True)
class _Row:
    image: Pixels
    truth: Pixels
    predicted: Pixels


def sheets(loaders: SegmentationLoaders, predict: Predict) -> dict[str, NDArray[np.uint8]]:
    """`segmentation` and `confusion`, each (height, width, 3)."""
    maps = loaders.evaluated_set
    classes, looked = len(maps.classes), min(LOOKED_AT, len(maps))
    drawn = set(np.linspace(0, looked - 1, min(SHOWN, looked)).round().astype(int).tolist())
    rows, counts, number = list[_Row](), list[Counts](), 0
    for batch in loaders.pictured(LOOKED_AT):
        for index, (guess, truth) in zip(batch["indices"], predict(batch), strict=True):
            counts.append(confusion(guess, truth, classes))
            if number in drawn:
                both = (each.cpu().numpy().astype(np.uint8) for each in (truth, guess))
                rows.append(_Row(maps.load(index)[0], *both))
            number += 1
    names, palette = maps.classes, maps.palette
    return {
        "segmentation": _pixels(_segmentation(rows, names, palette)),
        "confusion": _pixels(_confusion(added(counts), names, looked)),
    }


def _segmentation(rows: list[_Row], names: tuple[str, ...], palette: Pixels) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colours = np.zeros((256, 3), np.uint8)  # no class is black
    colours[: len(palette)] = palette
    shown = np.concatenate([part.ravel() for row in rows for part in (row.truth, row.predicted)])
    seen = np.bincount(shown, minlength=256)[: len(names)]
    most = [place for place in np.argsort(-seen, kind="stable")[:LEGEND].tolist() if seen[place]]
    lines = -(-len(most) // 6)
    ratio = min(max(rows[0].truth.shape[0] / rows[0].truth.shape[1], 0.25), 2.0)
    low, tall = 0.1 + 0.25 * lines, 0.3 + WIDTH / 3 * ratio * len(rows)
    figure = Figure(figsize=(WIDTH, low + tall), dpi=DPI)
    edges = {"left": 0.01, "right": 0.99, "bottom": low / (low + tall), "top": 1 - 0.3 / (low + tall)}
    axes = figure.subplots(len(rows), len(TITLES), squeeze=False, gridspec_kw={**edges, "wspace": 0.03, "hspace": 0.03})
    for line, row in zip(axes, rows, strict=True):
        for place, values in zip(line, (row.image, colours[row.truth], colours[row.predicted]), strict=True):
            place.imshow(values, interpolation="nearest")
            place.set_axis_off()
    for place, title in zip(axes[0], TITLES, strict=True):
        place.set_title(title, fontsize=9)
    patches = [Patch(facecolor=palette[place] / 255, edgecolor="grey", label=names[place]) for place in most]
    figure.legend(handles=patches, loc="lower center", ncol=6, fontsize=7, frameon=False)
    return figure


def _confusion(counts: Counts, names: tuple[str, ...], images: int) -> Figure:
    """Rows: the classes with the lowest IoU, worst first; columns: what most of their pixels are taken for."""
    from matplotlib.figure import Figure

    each, there = ious(counts), counts.sum(1)
    worst = [place for place in np.argsort(each, kind="stable").tolist() if there[place]][:WORST]
    shares = counts[worst] / there[worst][:, None] if worst else np.zeros((0, len(names)))
    columns = [place for place in np.argsort(-shares.sum(0), kind="stable").tolist() if shares[:, place].any()][:WORST]
    figure = Figure(figsize=(max(4.5, 2.5 + 0.55 * len(columns)), 2 + 0.4 * max(1, len(worst))), dpi=DPI)
    axis: Any = figure.subplots()
    if worst:
        axis.imshow(100 * shares[:, columns], cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for row, line in enumerate(100 * shares[:, columns]):
            for column, value in enumerate(line):
                axis.text(
                    column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color="w" if value > 60 else "k"
                )
    axis.set_xticks(range(len(columns)), [names[place] for place in columns], rotation=60, ha="right", fontsize=7)
    axis.set_yticks(range(len(worst)), [f"{names[place]} (IoU {100 * each[place]:.0f})" for place in worst], fontsize=7)
    axis.set_xlabel("predicted", fontsize=8)
    axis.set_ylabel("ground truth", fontsize=8)
    axis.set_title(f"% of a class's pixels\nworst classes, {images} images", fontsize=8)
    figure.tight_layout()
    return figure


def _pixels(figure: Figure) -> NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)  # no pyplot, whose figures live on in a warm worker
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
    return pixels
