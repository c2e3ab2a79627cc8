"""Figure 2a's form: beside each dot a diamond, of what another stage measured in the same row and column."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_process_backend import Machine, drive_to_end, prepared_driver
from k12_job import PRETRAIN, RAND, SUP, figures, grid, job

from orchestrator.engine import membership
from orchestrator.report.build import build
from orchestrator.report.drawings import Scatter, ScatterPoint
from orchestrator.report.formats.html_page import html
from orchestrator.report.model import Report
from orchestrator.report.svg import scatter
from orchestrator.report.svg.scatter import scatter_svg
from orchestrator.spec.job import job_id
from orchestrator.store.store import Store, open_store
from tasks.errors import DataError
from workers.messages import Assignment, Outcome, Weights

SVG = "{http://www.w3.org/2000/svg}"
MASKS = [{**SUP, "name": f"mask {lr}", "group": lr} for lr in ("0.0001", "0.0006", "0.002")]
PRETRAINED = {**PRETRAIN, "per": "optim.lr", "sweep": {"grid": {"optim.lr": [1e-4, 6e-4, 2e-3]}}}
LOOK = {
    "name": "look",
    "per": ["backbone.init", "task.dataset"],
    "sweep": {
        "grid": [
            {"task.dataset": ["digits"], "backbone.init": MASKS, "backbone.drop_path": [0.1], "seed": [0, 1]},
            {"task.dataset": ["faces"], "backbone.init": MASKS, "backbone.drop_path": [0.3], "seed": [0, 1]},
        ]
    },
}
"""Two seeds in each row and column; their loss depends on the column."""
TUNE = {**grid(init=[RAND, *MASKS], lr=[6e-4], layer_decay=[0.87]), "name": "tune"}
PLOT = {"x": "loss", "of": "parent", "second": {"stage": "look", "figure": "loss"}}
STUDY = job(PRETRAINED, LOOK, TUNE, report={"averages": [], "plots": [PLOT]})


def measured(assignment: Assignment, emit: object, stop: object) -> Outcome:
    """Made-up figures; the look at one mask on faces fails with one seed."""
    trial = assignment.trial
    if trial.backbone.init.name == "mask 0.002" and trial.backbone.drop_path == 0.3 and trial.seed == 1:
        raise DataError("no such folder")
    weights = Weights(f"{assignment.folder}/weights", "0" * 64) if assignment.keep_weights else None
    return Outcome(figures(trial), {"train_seconds": 0.02, "device": "cpu"}, weights)


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, Report]]:
    monkeypatch.setattr(membership, "BEAT_S", 0.2)
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    drive_to_end(store, STUDY, Machine(execute=measured), tmp_path)
    yield store, build(store, job_id(STUDY))
    store.close()


def test_a_dot_has_the_mean_of_the_other_stage_in_its_row_and_column(told: tuple[Store, Report]) -> None:
    store, report = told
    (plot,) = report.plots
    assert len(plot.dots) == 6
    looks = store.trials.placed(job_id(STUDY), "look")
    recorded = store.trials.figures(trial.key for trial in looks)
    expected = {}
    for mask in ("mask 0.0001", "mask 0.0006", "mask 0.002"):
        for column in ("digits", "faces"):
            keys = [t.key for t in looks if t.group == f"{mask}/{column}" and t.state == "done"]
            if len(keys) == 2:
                expected[f"{mask}, {column}"] = sum(recorded[key]["loss"] for key in keys) / 2
    assert len(expected) == 5, "the sixth has one seed of two"
    assert {dot.name: dot.y for dot in plot.second} == pytest.approx(expected)
    assert expected["mask 0.0001, faces"] == pytest.approx(expected["mask 0.0001, digits"] + 0.2)
    places = {dot.name: dot.x for dot in plot.dots}
    assert {dot.name: dot.x for dot in plot.second} == {name: places[name] for name in expected}


def test_what_the_other_stage_lacks_is_named(told: tuple[Store, Report]) -> None:
    report = told[1]
    assert report.plots[0].without_second == ("mask 0.002, faces (seed 1: failed)",)
    page = html(report)
    assert "Without loss: mask 0.002, faces (seed 1: failed)" in page
    assert "Without loss of the weights: RAND, digits; RAND, faces" in page


def test_several_settings_of_the_other_stage_have_no_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two learning rates in one row and column, one seed each."""
    monkeypatch.setattr(membership, "BEAT_S", 0.2)
    axes = {"task.dataset": ["digits"], "backbone.init": MASKS, "optim.lr": [5e-4, 7e-4]}
    look = {**LOOK, "sweep": {"grid": [axes]}}
    study = job(PRETRAINED, look, TUNE, report={"averages": [], "plots": [PLOT]})
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    drive_to_end(store, study, Machine(execute=measured), tmp_path)
    (plot,) = build(store, job_id(study)).plots
    assert plot.second == ()
    assert "mask 0.0006, digits (2 settings, of which a dot shows one)" in plot.without_second
    assert "mask 0.0006, faces (no such trial)" in plot.without_second
    store.close()


def test_a_plot_before_the_other_stage_ran_has_no_second_axis(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    prepared_driver(store, STUDY, tmp_path)
    (plot,) = build(store, job_id(STUDY)).plots
    assert (plot.dots, plot.second, plot.without_second) == ((), (), ())
    store.close()


def test_the_drawing_says_which_mark_is_which_figure(told: tuple[Store, Report]) -> None:
    plot: Scatter = told[1].plots[0]
    drawn = scatter_svg(plot).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    root = ElementTree.fromstring(drawn)
    words = [each.text for each in root.iter(f"{SVG}text")]
    assert f"○ {plot.y_name}" in words
    assert f"◇ {plot.second_name}" in words
    centres = [float(each.attrib["cx"]) for each in root.iter(f"{SVG}circle")]
    marks = [each.attrib for each in root.iter(f"{SVG}rect")]
    assert (len(centres), len(marks)) == (6, 5)
    at = dict(zip([dot.name for dot in plot.dots], centres, strict=True))
    assert [float(mark["x"]) + 4 for mark in marks] == pytest.approx([at[dot.name] for dot in plot.second], abs=0.1)
    heights = [float(mark["y"]) for mark in marks]
    rising = sorted(range(5), key=lambda n: plot.second[n].y)
    assert [heights[n] for n in rising] == sorted(heights, reverse=True), "larger values are higher"
    alone = Scatter(plot.title, plot.x_name, plot.y_name, plot.dots)
    assert "○" not in scatter_svg(alone), "one figure needs no legend"


def test_curves_that_end_together_have_their_names_apart_and_none_leaves_the_picture() -> None:
    names = [f"row {n}" for n in range(8)]
    dots = tuple(ScatterPoint(name, (name,), float(at), 1.0 * (at == 0), "", 0.1) for name in names for at in (0, 1))
    drawn = scatter_svg(Scatter("", "x", "y", dots, curves=True)).replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ')
    root = ElementTree.fromstring(drawn)
    heights = sorted(float(each.attrib["y"]) for each in root.iter(f"{SVG}text") if each.text in names)
    assert len(heights) == 8
    assert min(high - low for low, high in itertools.pairwise(heights)) >= 12
    assert heights[-1] < float(root.attrib["viewBox"].split()[3])
    lines = [each.attrib for each in root.iter(f"{SVG}polyline")]
    assert len({line["points"] for line in lines}) == 8, "none hides another"
    assert [line["class"] for line in lines[5:7]] == ["line of c5", "line of c0"], (
        "a seventh has the first's look again"
    )
    style = (Path(scatter.__file__).parents[1] / "templates" / "report.css").read_text()
    assert all(f"\n.c{look} {{ --mark: " in style for look in range(scatter.LOOKS))
    assert f".c{scatter.LOOKS} " not in style
