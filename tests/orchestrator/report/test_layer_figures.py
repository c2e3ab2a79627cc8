"""Figures over layers: what they show is what was measured, in every form of the report and in their files."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from measured_layers import FIGURES, HEADS, LAYERS, distance, record

from orchestrator.report import plotting
from orchestrator.report.build import build
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.job_results import JobResults
from orchestrator.report.layer_files import files, files_of_stage
from orchestrator.report.layer_panels import LayerFigure
from orchestrator.report.layer_words import caption, means
from orchestrator.report.publish import publish, saved
from orchestrator.report.verify import verify
from orchestrator.settings import settings
from orchestrator.store.store import Store


@pytest.fixture
def figures(store: Store) -> tuple[LayerFigure, ...]:
    return build(store, record(store)).layers


def test_panels_hold_the_means_of_heads_and_seeds(figures: tuple[LayerFigure, ...]) -> None:
    first = figures[0]
    assert (first.name, first.figure.unit) == ("figure-1", "px")
    assert [panel.row for panel in first.panels] == ["SUP", "MIM"]
    sup = first.panels[0]
    assert [seed.seed for seed in sup.seeds] == [0, 1, 2]
    for layer in range(LAYERS):
        heads = [sum(distance("SUP", seed, layer, head) for head in range(HEADS)) / HEADS for seed in range(3)]
        assert [seed.means[layer] for seed in sup.seeds] == pytest.approx(heads)
        assert sup.mean(layer) == pytest.approx(sum(heads) / 3)
    assert sup.anchor == tuple((layer, 60.0) for layer in range(LAYERS))
    assert len(sup.values) == 3 * LAYERS * HEADS


def test_a_matrix_has_a_gap_where_a_value_is_no_number(figures: tuple[LayerFigure, ...]) -> None:
    (panel,) = figures[1].panels
    matrix = panel.matrix()
    assert matrix[0] == pytest.approx((1.0, 0.9, 0.8, None))
    assert matrix[3][0] is None
    assert panel.mean(1) == pytest.approx((0.9 + 0.9 + 0.8) / 3), "a layer's likeness to itself says nothing"
    assert panel.mean(0) is None


def test_a_terminal_reads_means_alone(store: Store, figures: tuple[LayerFigure, ...]) -> None:
    """One row for each layer in place of one for each dot, and the same table."""
    short = build(store, store.jobs.all()[0].id, full=False).layers
    assert [panel.reason for figure in short for panel in figure.panels] == [
        panel.reason for figure in figures for panel in figure.panels
    ]
    assert [means(figure) for figure in short] == [means(figure) for figure in figures]
    assert [len(panel.values) for panel in short[0].panels] == [3 * LAYERS, 3 * LAYERS]
    assert [panel.anchor for panel in short[0].panels] == [panel.anchor for panel in figures[0].panels]


def test_a_row_without_measurements_says_why(store: Store) -> None:
    wanted = [{**FIGURES[0], "rows": ["MIM", "SUP"]}]
    report = build(store, record(store, wanted, failed=[("SUP", 0), ("SUP", 1), ("SUP", 2)]))
    mim, sup = report.layers[0].panels
    assert (mim.row, mim.reason) == ("MIM", "")
    assert sup.reason == "not measured: failed"
    assert b"not measured: failed" in plotting.svg(report.layers[0])


def test_a_panel_says_which_seeds_it_is_without_and_why(store: Store) -> None:
    report = build(store, record(store, failed=[("SUP", 1)]))
    figure = report.layers[0]
    sup, mim = figure.panels
    assert ([seed.seed for seed in sup.seeds], sup.missing, sup.reason) == ([0, 2], ("seed 1: failed",), "")
    assert mim.missing == ()
    titles = [place.get_title() for place in plotting.draw(figure).axes if place.get_title()]
    assert titles == ["(a) SUP, 2 of 3 seeds", "(b) MIM, 3 seeds"]
    assert [line[0] for line in means(figure)[1]] == ["SUP (2 of 3 seeds)", "MIM"]
    for form in ("text", "md", "tex", "html"):
        text = " ".join(FORMATS[form].render(report, Links()).split())
        assert "left out: SUP seed 1: failed." in text, form


@pytest.mark.parametrize(
    ("replicates", "missing"), [(3, "another seed: not begun"), ({"n": 3, "first": 0}, "seed 2: not begun")]
)
def test_a_panel_counts_the_seeds_that_are_not_placed_yet(
    store: Store, replicates: int | dict[str, int], missing: str
) -> None:
    """Such as wait for the weights of a pre-training of the same seed."""
    for panel in build(store, record(store, seeds=[0, 1], replicates=replicates)).layers[0].panels:
        assert (panel.count, panel.missing) == ("2 of 3 seeds", (missing,))


def test_one_seed_of_several_is_no_single_run(store: Store) -> None:
    sup, mim = build(store, record(store, failed=[("SUP", 0), ("SUP", 1)])).layers[0].panels
    assert (sup.count, mim.count) == ("1 of 3 seeds", "3 seeds")


def test_a_single_run_has_no_count_of_seeds(store: Store) -> None:
    assert {panel.count for panel in build(store, record(store, seeds=[0])).layers[0].panels} == {""}


@pytest.mark.parametrize("override", [{"task.dataset": "faces"}, {"task": {"kind": "analysis", "dataset": "faces"}}])
def test_rows_and_columns_that_a_stage_sets_by_override(store: Store, override: dict[str, object]) -> None:
    """As claims have them, and the check of the spec: what is drawn is found by the same names."""
    results = JobResults(store, record(store), full=False)
    assert {results.place_of(trial) for trial in results.placed} == {("SUP", "digits"), ("MIM", "digits")}
    results = JobResults(store, results.job.id, full=False)
    results.stages["analyse"] = {**results.stages["analyse"], "override": override}
    results._fixed_values.clear()  # what it had at these paths before
    assert {results.place_of(trial) for trial in results.placed} == {("SUP", "faces"), ("MIM", "faces")}


def test_several_settings_are_not_drawn_as_seeds_of_one(store: Store) -> None:
    """SUP at two learning rates, with other seeds: neither a mean nor an interval over all of them means anything."""
    report = build(store, record(store, other_rate={("SUP", 2)}))
    sup, mim = report.layers[0].panels
    assert (sup.seeds, sup.values, sup.reason) == ((), (), "2 settings, of which a panel shows one")
    assert len(mim.seeds) == 3


def test_panels_share_an_axis_and_have_a_dot_for_each_value(figures: tuple[LayerFigure, ...]) -> None:
    drawn = plotting.draw(figures[0])
    axes = [place for place in drawn.axes if place.get_title()]
    assert [place.get_title() for place in axes] == ["(a) SUP, 3 seeds", "(b) MIM, 3 seeds"]
    assert axes[0].get_ylim() == axes[1].get_ylim()
    dots, means = axes[1].collections[0], axes[1].collections[-1]
    assert len(dots.get_offsets()) == 3 * LAYERS * HEADS  # type: ignore[arg-type]
    assert means.get_offsets()[:, 1].tolist() == pytest.approx([21.5] * LAYERS)  # type: ignore[index, union-attr]


def test_files_are_the_same_for_the_same_data_and_hold_every_value(figures: tuple[LayerFigure, ...]) -> None:
    once = dict(files(figures))
    plotting.svg.cache_clear()
    again = dict(files(figures))
    assert once == again
    assert set(once) == {f"{name}.{suffix}" for name in ("figure-1", "figure-6-b") for suffix in ("svg", "png", "csv")}
    assert once["figure-1.png"][:8] == b"\x89PNG\r\n\x1a\n"
    text = "".join(ElementTree.fromstring(once["figure-1.svg"]).itertext())
    assert "attention distance (px)" in text
    rows = list(csv.DictReader(io.StringIO(once["figure-1.csv"].decode())))
    shown = {(r["panel"], int(r["seed"]), int(r["layer"]), int(r["head"])): float(r["value"])
             for r in rows if r["kind"] == "attention_distance"}  # fmt: skip
    assert shown == {
        (row, seed, layer, head): distance(row, seed, layer, head)
        for row in ("SUP", "MIM") for seed in range(3) for layer in range(LAYERS) for head in range(HEADS)
    }  # fmt: skip
    assert sum(r["kind"] == "anchor" for r in rows) == 2 * LAYERS


@pytest.mark.parametrize("form", ["text", "md", "tex", "html"])
def test_every_form_shows_the_figures(store: Store, form: str) -> None:
    text = FORMATS[form].render(build(store, record(store)), Links())
    assert "Figure 1" in text
    assert "dashed: attention to all places alike" in text
    if form in ("text", "md"):
        assert "51.5" in text, "layer 3 of SUP: 20 + 30, the mean head 1, the mean seed 0.5"
    if form == "html":
        assert text.count("data:image/svg+xml;base64,") == 2


def test_published_files_stand_beside_the_page_and_verify_notices_a_change(store: Store, tmp_path: Path) -> None:
    job_id, where = record(store), settings(tmp_path)
    page = publish(store, job_id, where)["html"]
    assert {"figure-1.svg", "figure-1.png", "figure-1.csv"} <= {file.name for file in page.parent.iterdir()}
    written = saved(where, job_id)
    assert written is not None
    assert verify(store, job_id, written) == []
    changed = json.loads(json.dumps(written))
    changed["layers"][0]["panels"][0]["seeds"][0]["means"][0] += 0.25
    assert any("layers" in line for line in verify(store, job_id, changed))


def test_a_stage_has_the_files_of_its_own_figures(store: Store) -> None:
    job_id = record(store)
    assert len(files_of_stage(store, job_id, "analyse")) == 6
    assert files_of_stage(store, job_id, "final") == {}


def test_curves_of_all_rows_share_a_panel(store: Store) -> None:
    wanted = [
        {**FIGURES[0], "form": "curves", "axis": "overlap threshold (%)", "low": 0.0, "high": 100.0, "anchor": ""}
    ]
    report = build(store, record(store, wanted, failed=[("MIM", 0), ("MIM", 1), ("MIM", 2)]))
    (figure,) = report.layers
    (place,) = plotting.draw(figure).axes
    sup, empty = place.get_lines()
    assert list(sup.get_xdata()) == list(range(LAYERS))
    expected = [
        sum(distance("SUP", seed, layer, head) for seed in range(3) for head in range(3)) / 9 for layer in range(LAYERS)
    ]
    assert list(sup.get_ydata()) == pytest.approx(expected)
    assert [line.get_label() for line in (sup, empty)] == ["SUP, 3 seeds", "MIM: not measured: failed"]
    assert len(place.collections) == 1  # the band over three seeds
    assert (place.get_xlabel(), place.get_ylim()) == ("overlap threshold (%)", (0.0, 100.0))
    assert means(figure)[0][0] == "overlap threshold (%)"
    assert "a line for each row: the mean over its seeds; bands: 95 % interval" in caption(figure)
    assert b"overlap threshold" in plotting.svg(figure)
