"""A job's table over tasks of different kinds, and over cells that lie within one group."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from planned_jobs import run
from two_specs import measured

from orchestrator.report import status
from orchestrator.report.build import build
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.model import Report
from orchestrator.report.verify import verify
from orchestrator.spec import load
from orchestrator.store.store import Store

KINDS = """\
name: kinds
trial:
  backbone: {model: vit_tiny_patch16_224, image_size: 128}
  optim: {lr: 1e-3, batch: 32, epochs: 4, warmup_epochs: 1}
stages:
  - name: train
    per: [task.kind, backbone.init]
    replicates: 3
    sweep:
      grid:
        task: [{kind: classify, dataset: digits}, {kind: pretrain, dataset: digits-pretrain}]
        backbone.init: [{kind: none, name: RAND}, {kind: file, name: SUP, path: w.safetensors}]
report: {columns: task.dataset}
"""
INITS = "[{kind: none, name: RAND}, {kind: file, name: SUP, path: w.safetensors}]"
TWO_SETS = f"{{task.dataset: [digits, textures], backbone.init: {INITS}}}"
WITHIN = """\
name: within
trial:
  task: {kind: classify}
  backbone: {model: vit_tiny_patch16_224, image_size: 32}
  optim: {lr: 1e-3, batch: 32, epochs: 4, warmup_epochs: 1}
stages:
  - {name: train, PER sweep: {grid: GRID}}
"""


def job_of(text: str, folder: Path, store: Store, begun: bool = True) -> Report:
    path = folder / "spec.yaml"
    path.write_text(text)
    return build(store, run(store, load(path), measured, lambda trial: begun))


def numbers(report: Report) -> dict[tuple[str, str], float | None]:
    return {(cell.row, cell.column): cell.value for cell in report.cells}


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("per", ["task.kind", "task.dataset"])
def test_columns_of_two_kinds_of_tasks(per: str, begun: bool, tmp_path: Path, store: Store) -> None:
    report = job_of(KINDS.replace("task.kind", per), tmp_path, store, begun)
    assert sorted(column.name for column in report.columns) == ["digits", "digits-pretrain"]
    assert {cell.state for cell in report.cells} == {"done" if begun else "pending"}
    assert status.status(store, report.job_id).text().count("digits-pretrain") == 1
    if not begun:
        return
    assert numbers(report) == pytest.approx(
        {("RAND", "digits"): 51.0, ("SUP", "digits"): 61.0,
         ("RAND", "digits-pretrain"): 0.135, ("SUP", "digits-pretrain"): 0.235}
    )  # fmt: skip
    best = {(cell.row, cell.column) for cell in report.cells if cell.leading}
    assert best == {("SUP", "digits"), ("RAND", "digits-pretrain")}
    assert {mean.unlike for mean in report.means} == {True}
    assert {cell.best_of for cell in report.cells} == {1}
    assert verify(store, report.job_id) == []


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_names_the_figure_of_each_column(form: str, tmp_path: Path, store: Store) -> None:
    text = FORMATS[form].render(job_of(KINDS, tmp_path, store), Links())
    if form == "csv":
        of = {
            row["column"]: row["metric"] for row in csv.DictReader(io.StringIO(text, newline="")) if row["row"] == "SUP"
        }
        assert of == {"digits": "top1", "digits-pretrain": "loss", "Average": "mean"}
    else:
        assert "not comparable" in text or form == "json"
        heads = ("top1", "lower") if form == "json" else ("top-1 accuracy (", "loss")
        assert all(word in text for word in heads)


def test_figures_that_a_task_does_not_have_are_no_cells(tmp_path: Path, store: Store) -> None:
    text = KINDS.replace("{columns: task.dataset}", "{columns: task.kind, figures: [loss, top1], averages: []}")
    report = job_of(text, tmp_path, store)
    states = {
        (cell.column, column.figure): cell.state for cell, column in zip(report.cells, report.columns, strict=False)
    }
    assert states == {("classify", "loss"): "done", ("classify", "top1"): "done", ("pretrain", "loss"): "done",
                      ("pretrain", "top1"): "absent"}  # fmt: skip


@pytest.mark.parametrize(
    "per", ["", "per: [backbone.init],", "per: [task.dataset],", "per: [task.dataset, backbone.init],"]
)
def test_data_sets_within_a_group_are_cells_of_their_own(per: str, tmp_path: Path, store: Store) -> None:
    """Else the best of two data sets would stand for one of them."""
    report = job_of(WITHIN.replace("PER", per).replace("GRID", TWO_SETS), tmp_path, store)
    assert numbers(report) == pytest.approx(
        {("RAND", "digits"): 50.0, ("SUP", "digits"): 60.0, ("RAND", "textures"): 25.0, ("SUP", "textures"): 35.0}
    )
    assert {cell.best_of for cell in report.cells} == {1}


def test_grids_that_differ_have_no_cells_that_neither_asks_for(tmp_path: Path, store: Store) -> None:
    grids = (
        "[{task.dataset: [digits], backbone.init: [{kind: none, name: RAND}]}, "
        "{task.dataset: [textures], backbone.init: [{kind: file, name: SUP, path: w.safetensors}]}]"
    )
    report = job_of(WITHIN.replace("PER", "").replace("GRID", grids), tmp_path, store)
    states = {(cell.row, cell.column): cell.state for cell in report.cells}
    assert states == {("RAND", "digits"): "done", ("SUP", "textures"): "done", ("RAND", "textures"): "absent",
                      ("SUP", "digits"): "absent"}  # fmt: skip
