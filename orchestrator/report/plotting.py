"""Draws the figures over layers, in the paper's layout, as SVG and PNG for print."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from orchestrator.report.figures import title
from orchestrator.report.layer_panels import LayerFigure, Panel
from orchestrator.report.layer_words import LINES
from orchestrator.report.statistics import mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 200
"""Dots per inch of PNG files: 1,400 pixels for the width of a page with three panels."""

POINTS_AS_PICTURE = 4000
"""From this number of small dots in a panel on, they are drawn as a picture within the SVG, which stays small."""

STYLE: Any = {
    "font.family": "sans-serif", "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "svg.fonttype": "none", "svg.hashsalt": "orchestrator", "figure.dpi": DPI,
}  # fmt: skip
"""Text stays text in SVG, and the same data give the same file."""

BLUE, ORANGE, GREY = "#2f6fb2", "#c2571a", "#8a8a8a"
"""Apart for readers who see no red or green, and in grey print."""

COLOURS = ("#2f6fb2", "#c2571a", "#3b7d4f", "#8a4fa3", "#8a8a8a", "#b5892c")
DASHES = ("-", "--", "-.", ":")
"""Of curves: colours first, then dashes."""


@lru_cache(maxsize=50)
def svg(figure: LayerFigure) -> bytes:
    """The figure as an SVG file, drawn once for the page and the file beside it."""
    return _saved(figure, "svg", {"Date": None, "Creator": None})


def png(figure: LayerFigure) -> bytes:
    """The figure as a PNG file."""
    return _saved(figure, "png", {"Software": None})


def _saved(figure: LayerFigure, form: str, metadata: dict[str, Any]) -> bytes:
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        drawn = draw(figure)
        file = io.BytesIO()
        drawn.savefig(file, format=form, metadata=metadata, bbox_inches="tight", pad_inches=0.05)
        return file.getvalue()


def draw(figure: LayerFigure) -> Figure:
    """Panels (a), (b), .. beside each other, on one scale."""
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    if figure.form in LINES:
        whole = (figure, *figure.beside)
        canvas = Canvas(figsize=(3.6 * len(whole), 2.9), layout="constrained")
        for number, (each, place) in enumerate(
            zip(whole, canvas.subplots(1, len(whole), squeeze=False)[0], strict=True)
        ):
            if len(whole) > 1:
                place.set_title(f"({chr(ord('a') + number)}) {title(each.figure)}")
            _curves(each, place)
            if figure.form == "epochs":
                place.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        return canvas
    count = max(1, len(figure.panels))
    across = min(count, 4)
    down = -(-count // across)
    size = (max(2.3 * across, 3.2), (2.3 if figure.form == "matrix" else 2.1) * down)
    canvas = Canvas(figsize=size, layout="constrained")
    axes = canvas.subplots(down, across, squeeze=False, sharey=True, sharex=figure.form == "matrix").flatten()
    for place in axes[count:]:
        place.set_axis_off()
    shown: list[Axes] = list(axes[:count])
    for number, (panel, place) in enumerate(zip(figure.panels, shown, strict=False)):
        seeds = f", {panel.count}" if panel.count else ""
        place.set_title(f"({chr(ord('a') + number % 26)}) {panel.row}{seeds}")
        if not panel.seeds:
            place.text(
                0.5, 0.5, panel.reason, ha="center", va="center", transform=place.transAxes, color=GREY, wrap=True
            )
    if figure.form == "matrix":
        _matrices(canvas, figure, shown, across)
    else:
        _layers(figure, shown, across)
    return canvas


def _layers(figure: LayerFigure, axes: Sequence[Axes], across: int) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, (panel, place) in enumerate(zip(figure.panels, axes, strict=False)):
        if figure.form == "dots":
            _dots(panel, place)
        if panel.anchor:
            layers, values = zip(*panel.anchor, strict=True)
            dashes = (0, (4, 2))
            place.plot(layers, values, color=GREY, linewidth=0.8, linestyle=dashes, zorder=1, label="uniform attention")
        _means(panel, place)
        place.set_xlabel(figure.axis)
        place.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if number % across == 0:
            place.set_ylabel(title(figure.figure))
    low, high = _range(figure)
    margin = (high - low) * 0.05 or 1.0
    axes[0].set_ylim(
        low if figure.low is not None else low - margin, high if figure.high is not None else high + margin
    )
    handles: dict[str, Any] = {}
    for place in axes:
        handles |= {name: handle for handle, name in zip(*place.get_legend_handles_labels(), strict=True)}
    if len(handles) > 1:
        axes[0].figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles),
                              frameon=False)  # fmt: skip


def _dots(panel: Panel, place: Axes) -> None:
    known = [value for value in panel.values if value.value is not None]
    if not known:
        return
    many = len(known) > 800
    place.scatter(
        [value.layer for value in known],
        [value.value for value in known if value.value is not None],
        s=1.5 if many else 5,
        alpha=0.35 if many else 0.6,
        color=BLUE,
        linewidths=0,
        zorder=2,
        rasterized=len(known) > POINTS_AS_PICTURE,
        label="a pair of heads" if known[0].item else "a channel" if (known[-1].head or 0) > 100 else "a head",
    )


def _means(panel: Panel, place: Axes) -> None:
    """A large dot for each layer: the mean over heads, then over seeds, with its 95 % interval over three or more."""
    layers, means, spread = _over_seeds(panel)
    if not layers:
        return
    if spread:
        place.errorbar(layers, means, yerr=spread, fmt="none", ecolor=ORANGE, elinewidth=0.8, capsize=1.5, zorder=4)
    place.scatter(layers, means, s=22, color=ORANGE, edgecolors="white", linewidths=0.5, zorder=5, label="their mean")


def _over_seeds(panel: Panel) -> tuple[list[int], list[float], list[float]]:
    """Layers, the mean of each over the seeds, and half its 95 % interval; of fewer than three seeds no intervals."""
    found: dict[int, list[float]] = {layer: [] for layer in panel.layers if panel.mean(layer) is not None}
    for seed in panel.seeds:
        for layer, mean in zip(seed.layers, seed.means, strict=True):
            if layer in found and mean is not None:
                found[layer].append(mean)
    intervals = [mean_interval(values) for values in found.values()]
    enough = bool(found) and min(map(len, found.values())) > 2
    spread = [half or 0.0 for _, half in intervals] if enough else []
    return list(found), [mean for mean, _ in intervals], spread


def _curves(figure: LayerFigure, place: Axes) -> None:
    """All rows in one panel: a line through the means over seeds, with a band for their interval."""
    for number, panel in enumerate(figure.panels):
        layers, means, spread = _over_seeds(panel)
        if not layers:
            place.plot([], [], " ", label=f"{panel.row}: {panel.reason or 'no values'}")
            continue
        colour, dashes = COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)]
        seeds = f", {panel.count}" if panel.count else ""
        place.plot(layers, means, color=colour, linestyle=dashes, linewidth=1.2, label=f"{panel.row}{seeds}")
        if spread:
            low, high = ([mean + sign * half for mean, half in zip(means, spread, strict=True)] for sign in (-1, 1))
            place.fill_between(layers, low, high, color=colour, alpha=0.15, linewidth=0)
    place.set_xlabel(figure.axis)
    place.set_ylabel(title(figure.figure))
    least, most = _range(figure)
    place.set_ylim(least, most if most > least else least + 1)
    place.margins(x=0)
    place.legend(frameon=False)


def _range(figure: LayerFigure) -> tuple[float, float]:
    """The lowest and highest value over all panels, or what the spec says."""
    known: list[float] = []
    for panel in figure.panels:
        known += [mean for seed in panel.seeds for mean in seed.means if mean is not None]
        known += [value for _, value in panel.anchor]
        if figure.form == "dots":
            known += [value.value for value in panel.values if value.value is not None]
    return (
        min(known, default=0.0) if figure.low is None else figure.low,
        max(known, default=1.0) if figure.high is None else figure.high,
    )


def _matrices(canvas: Figure, figure: LayerFigure, axes: Sequence[Axes], across: int) -> None:
    """Heat maps of all pairs of layers, layer 0 below left, all on one scale of colours."""
    import numpy as np

    maps = [np.array(panel.matrix(), dtype=float) if panel.seeds else None for panel in figure.panels]
    known = [float(value) for each in maps if each is not None for value in each[np.isfinite(each)]]
    low = figure.low if figure.low is not None else min([*known, 0.0])
    high = figure.high if figure.high is not None else max([*known, low + 1e-6])
    image = None
    for number, (values, place) in enumerate(zip(maps, axes, strict=False)):
        place.spines[["top", "right"]].set_visible(True)
        if values is None or not values.size:
            place.set_box_aspect(1)
            continue
        place.set_facecolor("#dddddd")  # of pairs without a number
        image = place.imshow(values, origin="lower", vmin=low, vmax=high, cmap="viridis", interpolation="nearest")
        place.set_xlabel("layer (from 0)")
        if number % across == 0:
            place.set_ylabel("layer (from 0)")
    if image is not None:
        canvas.colorbar(image, ax=list(axes), shrink=0.8, label=title(figure.figure))
