"""Figures over epochs: panels of what trials reported, a line for each row, in every form and in their files."""

from __future__ import annotations

import csv
import io
import math
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest
from measured_layers import record

from orchestrator.report import plotting
from orchestrator.report.build import build
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.layer_files import files
from orchestrator.report.layer_panels import LayerFigure
from orchestrator.report.layer_words import caption, means
from orchestrator.store.store import Store

EPOCHS = 4
FIGURE_7: dict[str, Any] = {
    "title": "Figure 7", "figure": "train_roi_class", "beside": ["train_roi_box"], "form": "epochs", "stage": "analyse",
    "caption": "Losses.",
}  # fmt: skip


def reported(row: str, seed: int) -> list[dict[str, float]]:
    """Losses that fall; SUP's of seed 1 is not finite after the second epoch."""
    return [
        {
            "train_loss": 9.0,
            "train_roi_class": math.inf if (row, seed, epoch) == ("SUP", 1, 2) else 1 / epoch + 0.1 * seed,
            "train_roi_box": (2.0 if row == "SUP" else 1.0) / epoch,
        }
        for epoch in range(1, EPOCHS + 1)
    ]


def figure_of(store: Store, **other: Any) -> LayerFigure:
    (figure,) = build(store, record(store, [{**FIGURE_7, **other}], reported=reported)).layers
    return figure


def test_lines_hold_what_was_reported(store: Store) -> None:
    figure = figure_of(store)
    assert (figure.name, figure.axis, figure.figure.name) == ("figure-7", "epoch", "train_roi_class")
    sup, mim = figure.panels
    assert (sup.row, mim.row) == ("SUP", "MIM")
    assert [seed.layers for seed in sup.seeds] == [(1, 2, 3, 4)] * 3
    assert [mim.mean(epoch) for epoch in range(1, 5)] == pytest.approx([1 / n + 0.1 for n in range(1, 5)])
    assert sup.mean(2) is None
    (boxes,) = figure.beside
    assert boxes.figure.name == "train_roi_box"
    assert [[panel.mean(n) for n in (1, 4)] for panel in boxes.panels] == [[2.0, 0.5], [1.0, 0.25]]


def test_words_and_files_have_both_panels(store: Store) -> None:
    figure = figure_of(store)
    header, lines = means(figure)
    assert header == ["epoch", "1", "2", "3", "4"]
    assert lines[0] == ["SUP, training loss (roi_class)", "1.100", "–", "0.433", "0.350"]
    assert lines[3] == ["MIM, training loss (roi_box)", "1.000", "0.500", "0.333", "0.250"]
    assert caption(figure).startswith(
        "Losses. training loss (roi_class) and training loss (roi_box), stage analyse; a line"
    )
    content = dict(files([figure]))
    assert set(content) == {"figure-7.svg", "figure-7.png", "figure-7.csv"}
    rows = list(csv.DictReader(io.StringIO(content["figure-7.csv"].decode())))
    assert len(rows) == 2 * 3 * EPOCHS * 2
    assert {(row["panel"], row["kind"]) for row in rows} == {
        (row, name) for row in ("SUP", "MIM") for name in ("train_roi_class", "train_roi_box")
    }


def test_the_picture_has_a_panel_for_each_figure_and_a_line_for_each_row(store: Store) -> None:
    figure = figure_of(store)
    drawn = plotting.draw(figure)
    assert [axes.get_title() for axes in drawn.axes] == ["(a) training loss (roi_class)", "(b) training loss (roi_box)"]
    for axes in drawn.axes:
        assert axes.get_xlabel() == "epoch"
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["SUP, 3 seeds", "MIM, 3 seeds"]
    box_lines = [line.get_ydata().tolist() for line in drawn.axes[1].get_lines()]
    assert box_lines == [[2.0, 1.0, pytest.approx(2 / 3), 0.5], [1.0, 0.5, pytest.approx(1 / 3), 0.25]]
    root = ElementTree.fromstring(plotting.svg(figure))
    assert "epoch" in "".join(root.itertext())


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_of_the_report_shows_it(form: str, store: Store) -> None:
    report = build(store, record(store, [FIGURE_7], reported=reported))
    text = FORMATS[form].render(report, Links())
    assert "Figure 7" in text if form != "csv" else text


def test_one_figure_is_one_panel_and_a_terminal_has_the_same_numbers(store: Store) -> None:
    figure = figure_of(store, beside=[], figure="train_loss", axis="time")
    assert (figure.axis, figure.beside, figure.figure.title) == ("time", (), "training loss")
    short = build(store, store.jobs.all()[0].id, full=False).layers
    assert means(short[0]) == means(figure)
    assert [axes.get_title() for axes in plotting.draw(figure).axes] == [""]


def test_what_was_not_reported_says_so(store: Store) -> None:
    figure = figure_of(store, figure="train_mask")
    why = "no train_mask for its epochs, perhaps of another stage"
    assert [panel.reason for panel in figure.panels] == [why] * 2
    assert f"; without a line: {figure.panels[0].row} ({why}), " in caption(figure)
