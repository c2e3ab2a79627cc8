"""The alternative texts of pictures say their numbers."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.report.drawings import Scatter, ScatterPoint
from orchestrator.report.formats.html_page import html
from orchestrator.report.layer_panels import LayerFigure, Panel, SeedLayers
from orchestrator.report.model import Report
from orchestrator.report.page.words import layer_words, loss_words, metric_words, plot_words


def test_curves(whole: Report) -> None:
    group = whole.named["digits/SUP"]
    told = metric_words(group)
    assert told.startswith("top-1 accuracy (%) of SUP on digits, epochs 1 to 8: chosen on val from ")
    assert " to 96.0; 19 other trials end between " in told
    assert "marked: final, figure on test, seed 0 95.0" in told
    assert loss_words(group).startswith("Training loss of SUP on digits, epochs 1 to 8: chosen on val from ")
    assert "final on test, seed 2 from " in loss_words(group)


def test_heat_maps(whole: Report) -> None:
    page = html(whole)
    settings = "15 of 15 settings of learning rate and layer decay have a value, from "
    assert f"SUP on digits: top-1 accuracy (%) on val, {settings}" in page
    assert "; chosen learning rate 2.64e-4, layer decay 0.75 with 96.0" in page


def test_plots() -> None:
    dots = (ScatterPoint("RAND", ("a",), 0.5, 12.345), ScatterPoint("SUP", ("b",), 1.0, 3.0, "null", 0.123))
    plot = Scatter("", "distance", "error rate (%)", dots, second_name="loss", second=(ScatterPoint("RAND", (), 1, 2),))
    assert plot_words(plot) == (
        "error rate (%) against distance. distance, error rate (%) of RAND (0.5, 12.35); SUP (null, 3 ± 0.12). "
        "loss: RAND 2"
    )


def test_layers(whole: Report) -> None:
    seed = SeedLayers(0, "key", (0, 1, 2), (0.5, 0.25, 1.0))
    panels = (Panel("RAND", (seed,)), Panel("SUP", reason="waits for grid"))
    figure = LayerFigure("distance", "Mean attention distance", "mean", whole.cells[0].figure, "final", (), panels)
    told = layer_words(figure)
    assert told.endswith("RAND: layer 0 0.5, layer 2 1; SUP: waits for grid")


def test_figures_over_epochs_say_epochs_and_what_is_beside(whole: Report) -> None:
    panels = (Panel("RAND", (SeedLayers(0, "key", (1, 3), (0.5, 0.25)),)),)
    beside = LayerFigure("", "", "epochs", whole.cells[0].figure, "final", (), panels, axis="epoch")
    told = layer_words(replace(beside, title="Figure 7", beside=(beside,)))
    part = "top-1 accuracy (%) of each epoch. RAND: epoch 1 0.5, epoch 3 0.25"
    assert told == f"Figure 7: {part}. {part}"
