"""The words and numbers beside a figure over layers, for every form of the report."""

from __future__ import annotations

import csv
import io

from orchestrator.report import figures
from orchestrator.report.layer_panels import LayerFigure, Panel

SIGNS = {
    "dots": "small dots: heads (divergence: pairs of heads; RepLKNet: channels); large dots: their mean",
    "mean": "dots: the mean over heads (divergence: pairs of heads; RepLKNet: channels)",
    "curves": "a line for each row: the mean over its seeds",
    "epochs": "a line for each row: the mean over its seeds, as reported after each epoch",
    "matrix": "each square: a pair of layers, all panels on one scale",
}
"""What the marks of each form mean."""
LINES = ("curves", "epochs")
"""Forms with a line for each row."""


def caption(figure: LayerFigure) -> str:
    """What the figure shows, in a sentence or two."""
    titles = " and ".join(figures.title(each.figure) for each in (figure, *figure.beside))
    parts = [", ".join((titles, f"stage {figure.stage}", *figure.columns))]
    parts.append(SIGNS[figure.form])
    if any(panel.anchor for panel in figure.panels):
        parts.append("dashed: attention to all places alike")
    counts = {len(panel.seeds) for panel in figure.panels if panel.seeds}
    if counts and max(counts) > 2 and figure.form != "matrix":
        marks = "bands" if figure.form in LINES else "bars"
        parts.append(f"{marks}: 95 % interval of the mean over seeds (Student t)")
    if left_out := [f"{panel.row} {why}" for panel in figure.panels for why in panel.missing]:
        parts.append(f"left out: {', '.join(left_out)}")
    if figure.form in LINES and (empty := [f"{each.row} ({each.reason})" for each in figure.panels if not each.seeds]):
        parts.append(f"without a line: {', '.join(empty)}")
    text = "; ".join(parts) + "."
    return f"{figure.caption} {text}" if figure.caption else text


def means(figure: LayerFigure) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a table: for each panel the mean of each layer (of a matrix: over the other layers)."""
    whole = (figure, *figure.beside)
    layers = sorted({layer for each in whole for panel in each.panels for layer in panel.layers})
    corner = figure.axis if figure.form in LINES else "layer"
    lines = [_line(each, panel, layers, bool(figure.beside)) for each in whole for panel in each.panels]
    return [corner, *map(str, layers)], lines


def _line(figure: LayerFigure, panel: Panel, layers: list[int], named: bool) -> list[str]:
    """One panel's means; a layer that it does not have stays empty, a value that is no number is a dash."""
    texts = []
    for layer in layers:
        mean = panel.mean(layer)
        texts.append("" if layer not in panel.layers else "–" if mean is None else figures.text(mean, figure.figure))
    row = f"{panel.row}, {figures.title(figure.figure)}" if named else panel.row
    return [f"{row} ({panel.count})" if panel.missing else row, *texts]


def values_csv(figure: LayerFigure) -> str:
    """Everything behind the picture in full precision, in the unit of the figure; anchors have the kind `anchor`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["panel", "kind", "seed", "layer", "head", "item", "value", "unit", "trial"])
    for metric, panel in ((each.figure, panel) for each in (figure, *figure.beside) for panel in each.panels):
        keys = {seed.seed: seed.key for seed in panel.seeds}
        row = f"'{panel.row}" if panel.row[:1] in ("=", "+", "-", "@", "\t", "\r") else panel.row
        for value in panel.values:
            writer.writerow(
                [row, metric.name, value.seed, value.layer, value.head, value.item, value.value, metric.unit,
                 keys[value.seed]]
            )  # fmt: skip
        for layer, number in panel.anchor:
            first = panel.seeds[0]
            writer.writerow([row, "anchor", first.seed, layer, None, "", number, metric.unit, first.key])
    return out.getvalue()
