"""Reports of figures that are no accuracies: an error in metres, several figures a trial, splits of other names."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded_study import DEPTH, METRICS, Plot, Study

from orchestrator.records.rows import JobRecord
from orchestrator.report import figures, status, wording
from orchestrator.report.build import build
from orchestrator.report.formats import csv_table, latex, markdown
from orchestrator.report.formats.html_page import html
from orchestrator.report.formats.terminal import terminal
from orchestrator.report.json_values import to_json
from orchestrator.report.model import Report
from orchestrator.report.svg.heat_map import picture
from orchestrator.report.verify import verify
from orchestrator.store.store import Store, open_store

PUBLISHED = {"SUP": {"nyu": {"rmse": 0.06, "delta1": 94.0}, "kitti": 0.05}}
"""A number for each figure, and a bare number: of the first figure."""
COMMON: dict[str, Any] = {"data_sets": ("nyu", "kitti"), "metrics": DEPTH, "splits": ("holdout", "eigen")}


def made(folder: Path, plot: Plot) -> tuple[Store, Report]:
    store = open_store(f"sqlite:///{folder / 'store.db'}")
    return store, build(store, Study(store, plot).run())


@pytest.fixture(scope="module")
def depth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Report]]:
    """Chosen by an error in metres on `holdout`, measured on `eigen`."""
    store, report = made(tmp_path_factory.mktemp("depth"), Plot(**COMMON))
    yield store, report
    store.close()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Report]]:
    """The same study with two figures in its table, of which the first is not the one that trials are chosen by."""
    shown = ("delta1", "rmse")
    store, report = made(tmp_path_factory.mktemp("several"), Plot(**COMMON, figures=shown, reference=PUBLISHED))
    yield store, report
    store.close()


def leading(report: Report) -> set[tuple[str, int]]:
    """(row, position from 0, averages included) of the numbers that lead their column."""
    return {
        (row, position)
        for row in report.rows
        for position, each in enumerate((*report.cells_of(row), *report.means_of(row)))
        if each.leading
    }


def test_the_smallest_error_is_the_best(depth: tuple[Store, Report]) -> None:
    store, report = depth
    # accuracy 0.96 + 0.002 seed, less 0.01 on the last split; the error is what it lacks to 1
    cell = report.at["SUP", "nyu"]
    assert cell.values == pytest.approx((0.05, 0.048, 0.046))
    assert cell.choice is not None
    assert cell.choice.value == pytest.approx(0.04)
    assert (cell.choice.figure, cell.choice.split) == (DEPTH[0], "holdout")
    assert leading(report) == {("SUP", 0), ("SUP", 1), ("SUP", 2)}
    assert (report.measured_on, report.chosen_on) == ("eigen", "holdout")
    assert wording.title(report).startswith("RMSE (m, lower is better) on eigen, stage final; mean over 3 seeds")
    assert verify(store, report.job_id) == []


def test_every_form_prints_metres_and_the_recorded_splits(depth: tuple[Store, Report]) -> None:
    report = depth[1]
    text, page, table = terminal(report), html(report), latex.latex(report)
    assert re.search(r"SUP +0\.048 ± 0\.005† +0\.048 ± 0\.005† +0\.048 ± 0\.005†", text)
    assert "chosen at: minimum over 20 settings on holdout; no result, too optimistic" in text
    assert "Chosen on holdout" in text
    assert "Values on holdout, lr across" in text
    assert re.search(r"0\.75.* 0\.040\*", text), "the chosen square"
    assert r"\textbf{0.048 $\pm$ 0.005}" in table
    assert table.count(r"\textbf{") == 3 + 1, "the numbers, and the note on them"
    assert "RMSE (m) on holdout" in page, "the curve's panel"
    assert page.count('class="value best"') == 3
    assert "best 0.040 m" in page
    row = next(row for row in csv.DictReader(io.StringIO(csv_table.csv(report))) if row["row"] == "SUP")
    assert (row["unit"], row["metric"], row["chosen_on"]) == ("m", "rmse", "holdout")
    assert float(row["chosen_value"]) == pytest.approx(0.04)
    for form in (text, page, table, markdown.markdown(report), csv_table.csv(report)):
        assert not re.search(r"\bval\b", form)
        assert "accuracy" not in form


def test_a_heat_map_is_bright_where_the_error_is_small(depth: tuple[Store, Report]) -> None:
    store, report = depth
    trials = [trial for trial in store.trials.placed(report.job_id, "grid") if trial.group == "nyu/SUP"]
    drawn = picture(trials, {choice.key for choice in store.choices.of(report.job_id)})
    assert drawn is not None
    assert 'fill="#fde725"/><text' in drawn.replace("\n", ""), "the best square"
    assert "learning rate 2.64e-4, layer decay 0.75: 0.040 m, chosen" in drawn


def test_status_takes_the_smallest_error_for_the_best(depth: tuple[Store, Report]) -> None:
    store, report = depth
    text = status.status(store, report.job_id).text()
    assert "best 0.040 m final 0.048 m" in text, "the mean over the seeds"


def test_several_figures_stand_side_by_side(several: tuple[Store, Report]) -> None:
    store, report = several
    assert [(column.name, column.figure) for column in report.columns] == [
        ("nyu", "delta1"), ("nyu", "rmse"), ("kitti", "delta1"), ("kitti", "rmse"),
    ]  # fmt: skip
    row = report.cells_of("SUP")
    assert [cell.figure for cell in row] == [DEPTH[1], DEPTH[0]] * 2
    assert [cell.value for cell in row] == pytest.approx([95.2, 0.048, 95.2, 0.048])
    assert {cell.keys for cell in row[:2]} == {row[0].keys}, "one trial has both"
    assert [(mean.name, mean.figure.name, mean.value) for mean in report.means_of("SUP")] == [
        ("Average", "delta1", pytest.approx(95.2)), ("Average", "rmse", pytest.approx(0.048)),
    ]  # fmt: skip
    assert [cell.reference for cell in row] == [94.0, 0.06, 0.05, None]
    assert leading(report) == {("SUP", position) for position in range(6)}
    assert report.named["nyu/SUP"].heat_maps[0].figure == DEPTH[0], "choices and maps stay with the metric"
    assert verify(store, report.job_id) == []
    assert verify(store, report.job_id, json.loads(json.dumps(to_json(report)))) == []


def test_every_form_heads_each_figure(several: tuple[Store, Report]) -> None:
    report = several[1]
    delta, rmse = "δ < 1.25 (%) ↑", "RMSE (m) ↓"
    lines = terminal(report, 120).splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("initial weights"))
    assert lines[head - 1].split() == ["nyu", "nyu", "kitti", "kitti", "Average", "Average"]
    assert lines[head].count(delta) == lines[head].count(rmse) == 3
    assert f"| nyu {delta.replace('<', chr(92) + '<')} | nyu {rmse} |" in markdown.markdown(report)
    table = latex.latex(report).splitlines()
    head = next(n for n, line in enumerate(table) if "multicolumn" in line)
    assert table[head].strip().startswith(r"& \multicolumn{2}{c}{nyu} & \multicolumn{2}{c}{kitti} & ")
    assert table[head + 1].strip() == r"\cmidrule(lr){2-3} \cmidrule(lr){4-5} \cmidrule(lr){6-7}"
    assert r"RMSE (m) $\downarrow$" in table[head + 2]
    page = html(report)
    assert '<th scope="colgroup" colspan="2">nyu</th>' in page
    assert page.count('<th scope="col">RMSE (m) ↓</th>') == 3
    assert "δ &lt; 1.25 95.2 ± 0.5, RMSE 0.048 ± 0.005" in page, "the head of a group's card"
    rows = list(csv.DictReader(io.StringIO(csv_table.csv(report))))
    assert [(row["column"], row["metric"], row["unit"]) for row in rows if row["row"] == "SUP"] == [
        ("nyu", "delta1", "%"), ("nyu", "rmse", "m"), ("kitti", "delta1", "%"), ("kitti", "rmse", "m"),
        ("Average", "mean of delta1", "%"), ("Average", "mean of rmse", "m"),
    ]  # fmt: skip
    assert wording.title(report).startswith("δ < 1.25 (%) / RMSE (m, lower is better) on eigen")
    told = to_json(report)
    assert told["columns"][1] == {"name": "nyu", "figure": "rmse"}
    assert told["cells"][0]["figure"]["better"] == "higher"


def test_verify_covers_every_figure(several: tuple[Store, Report]) -> None:
    store, report = several
    saved = to_json(report)
    saved["cells"][1]["value"] += 0.001
    assert [line.partition(":")[0] for line in verify(store, report.job_id, saved)] == ["report.cells[1].value"]


def test_a_figure_that_a_task_does_not_measure_leaves_its_cell_empty(tmp_path: Path) -> None:
    store, report = made(tmp_path, Plot(figures=("top1", "top5")))
    shown, lacking = report.cells_of("RAND")[:2]
    assert shown.value == pytest.approx(89.2)
    assert (lacking.state, lacking.value, lacking.reason) == ("absent", None, "its task has no figure top5")
    assert "top5" in terminal(report)
    store.close()


def test_an_error_is_the_complement_that_the_metric_names(tmp_path: Path) -> None:
    plots = ({"x": "loss", "y": "error"}, {"x": "loss"})
    store, report = made(tmp_path, Plot(plots=plots))
    error, value = report.plots
    assert (error.y_name, value.y_name) == ("error rate (%)", "top-1 accuracy (%)")
    assert [dot.y for dot in error.dots] == pytest.approx([100 - dot.y for dot in value.dots])
    store.close()


def test_a_plot_over_a_setting_takes_it_from_the_trials(tmp_path: Path) -> None:
    plots = ({"x": "optim.lr"}, {"x": "optim.schedule"})
    store, report = made(tmp_path, Plot(plots=plots))
    rates, schedules = report.plots
    assert rates.x_name == "lr"
    cells = {f"{cell.row}, {cell.column}": cell for cell in report.cells}
    assert len(rates.dots) == len(cells) == 4
    for dot in rates.dots:
        (key, *_) = cells[dot.name].keys
        assert dot.x == store.trials.get(key).spec["optim"]["lr"]
        assert dot.y == cells[dot.name].value
    assert (schedules.dots, len(schedules.left_out)) == ((), 4)  # no number
    store.close()


def test_no_error_of_a_figure_without_a_complement(tmp_path: Path) -> None:
    store, report = made(tmp_path, Plot(**COMMON, plots=({"x": "loss", "y": "error"},)))
    (plot,) = report.plots
    assert plot.dots == ()
    assert set(plot.without_error) == {"RAND, nyu", "RAND, kitti", "SUP, nyu", "SUP, kitti"}
    assert "Their figure has no complement: " in html(report)
    store.close()


def test_a_report_that_an_earlier_version_saved_is_compared_by_its_numbers(several: tuple[Store, Report]) -> None:
    store, report = several
    saved = to_json(report)
    for cell in saved["cells"]:
        del cell["figure"]
        cell["reason"] = "worded otherwise"
    for part in ("form", "scales"):
        del saved[part]
    saved["warnings"] = []
    for column in saved["columns"]:
        column |= {"metric": "rmse", "mode": "min"}
    for group in saved["groups"]:  # which came with form 6
        group["curves"] = [curve for curve in group["curves"] if curve["role"] != "other"]
    assert verify(store, report.job_id, saved) == []
    saved["cells"][0]["value"] = 95.3
    assert [line.partition(":")[0] for line in verify(store, report.job_id, saved)] == ["report.cells[0].value"]


def test_numbers_are_printed_as_their_metric_says() -> None:
    assert figures.text(0.04812, DEPTH[0]) == "0.048"
    assert figures.signed(-0.5, METRICS[0]) == "−0.5"
    assert figures.scaled(0.5, METRICS[0]) == 50.0
    assert figures.scaled(float("nan"), METRICS[0]) is None
    assert [figures.best([1.0, 2.0], metric) for metric in (DEPTH[0], METRICS[0])] == [1.0, 2.0]
    assert figures.best([], METRICS[0]) is None


def test_trials_over_a_field_are_a_curve_and_no_best_of_them_is_taken(tmp_path: Path) -> None:
    """Such an axis may be read on test, because the report shows it whole."""
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    study = Study(store, Plot(**COMMON, plots=({"x": "optim.lr", "title": "over lr"}, {"x": "optim.lr", "y": "error"})))
    study.pretrain()
    study.grid("nyu/SUP")
    spec = {**study.spec, "stages": study.spec["stages"][:2]}
    store.jobs.put(JobRecord(id="curve", name="curve", profile="", spec=spec, spec_text=""))
    row = [place for place, _ in study.ran["nyu/SUP"] if place.settings["optim.layer_decay"] == 0.75]
    store.trials.place("curve", row)
    report = build(store, "curve")
    cell = report.at["SUP", "nyu"]
    assert (cell.state, cell.value, cell.best_of) == ("absent", None, 1)
    assert cell.reason == "a curve over lr: see its plot"
    assert set(cell.keys) == {place.key for place in row}
    curve, error = report.plots
    assert (curve.x_name, curve.y_name, curve.curves) == ("lr", "RMSE (m)", True)
    assert [dot.x for dot in curve.dots] == sorted(place.settings["optim.lr"] for place in row)
    assert min(dot.y for dot in curve.dots) == pytest.approx(0.04)
    assert error.without_error == ("SUP, nyu",)
    page = html(report)
    assert page.count('<polyline class="line of c0"') == 1
    assert all(dot.interval is None for dot in curve.dots), "one seed has no interval"
    assert "whisker" not in html(report).partition("</style>")[2]
    assert "optimistic" not in page
    assert verify(store, "curve") == []
    store.close()
