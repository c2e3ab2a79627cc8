"""Figures that a report names are checked when the spec is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_spec import FIGURES

import tasks
from orchestrator.errors import SpecError
from orchestrator.spec import load
from orchestrator.spec.job import JobSpec


def problems(folder: Path, report: str, kind: str = "classify") -> list[str]:
    text = FIGURES.replace("REPORT", report).replace("kind: classify, dataset: faces", f"kind: {kind}, dataset: faces")
    path = folder / "figures.yaml"
    path.write_text(text)
    try:
        load(path)
    except SpecError as error:
        return [line.removeprefix(f"{path}:") for line in error.problems]
    return []


@pytest.mark.parametrize(
    "report",
    [
        "{figures: [mean_per_class, top1, loss]}",
        "{figures: [top1], plots: [{x: loss, y: error}]}",
        "{plots: [{x: loss, y: error}]}",
        "{figures: [loss], plots: [{x: top1}]}",
        "{plots: [{x: backbone.drop_path}]}",
        "{plots: [{x: optim.lr}]}",
        "{reference: {source: paper, values: {RAND: {faces: {top1: 90, loss: 0.3}}}}}",
        "{reference: {source: paper, values: {RAND: {faces: 90}}}}",
    ],
)
def test_figures_that_the_task_measures(report: str, tmp_path: Path) -> None:
    assert problems(tmp_path, report) == []


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (
            "{figures: [top1, top2]}",
            "8:26: report.figures: top2: no such figure; figures: mean_per_class, top1, loss; nearest: top1",
        ),
        ("{figures: [top1, top1]}", "8:26: report.figures: top1: listed twice; remove one"),
        (
            "{figures: [loss], plots: [{x: top1, y: error}]}",
            "8:48: report.plots.y: error: loss has no complement to plot; write y: value; or list one of these first "
            "in report.figures: mean_per_class, top1",
        ),
        (
            "{reference: {source: paper, values: {RAND: {faces: {tpo1: 90}}}}}",
            "8:61: report.reference.values.RAND.faces: tpo1: no such figure; figures: mean_per_class, top1, loss; "
            "nearest: top1",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place_and_remedy(report: str, expected: str, tmp_path: Path) -> None:
    assert problems(tmp_path, report) == [expected]


def test_a_plot_over_a_setting_names_a_field_of_the_trial(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, "{plots: [{x: optim.lrr}]}")
    assert line.startswith("8:22: report.plots.x: optim.lrr: no such field of a trial; fields of optim: lr, ")
    assert line.endswith("nearest: optim.lr")


def test_no_error_of_a_task_without_complements(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, "{plots: [{x: avg_dist, y: error}]}", "pretrain")
    assert line.endswith("report.plots.y: error: loss has no complement to plot; write y: value")


@pytest.mark.parametrize(
    ("data_fields", "report", "columns"),
    [
        (("dataset",), {}, "task.dataset"),
        (("scans", "dataset"), {}, "task.dataset"),
        (("scans", "faces"), {}, "task.scans"),
        ((), {"rows": "backbone.model"}, "task.kind"),
        (("scans",), {"columns": "optim.lr"}, "optim.lr"),
    ],
)
def test_columns_are_data_sets_by_whatever_field_names_them(
    data_fields: tuple[str, ...], report: dict[str, str], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tasks.TASKS, "scan", type("Scan", (), {"data_fields": data_fields}))
    job = {"name": "scans", "trial": {"task": {"kind": "scan"}}, "stages": [{"name": "only"}], "report": report}
    assert JobSpec.model_validate(job).report.columns == columns
    assert JobSpec.model_validate(JobSpec.model_validate(job).model_dump(by_alias=True)).report.columns == columns
