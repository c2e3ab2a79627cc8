"""The table of a study whose chosen setting is applied to several data sets: a cell for each of them."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from in_process_backend import Machine, drive_to_end, prepared_driver
from k12_job import FINAL, PRETRAIN, RAND, SUP, figures, grid, job

from orchestrator.engine import membership
from orchestrator.report import build
from orchestrator.report.caveats import ANY_COUNT
from orchestrator.report.formats.html_page import html
from orchestrator.report.formats.terminal import terminal
from orchestrator.report.json_values import to_json
from orchestrator.report.verify import verify
from orchestrator.spec.job import job_id
from orchestrator.store.store import open_store
from workers.messages import Assignment, Outcome, Report

SEARCH = {**grid(dataset=["digits"], init=[RAND, SUP], lr=[1e-4, 6e-4], layer_decay=[0.85]), "per": "backbone.init"}
APPLY = FINAL | {"from": "grid", "sweep": {"grid": {"task.dataset": ["digits", "faces"], "seed": [0, 1]}}}
JOB = job(PRETRAIN, SEARCH, APPLY)


def test_each_data_set_has_its_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "BEAT_S", 0.2)
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    prepared_driver(store, JOB, tmp_path)
    before = build.build(store, job_id(JOB))
    assert before.rows == ("RAND", "SUP")
    assert [column.name for column in before.columns] == ["digits", "faces"]
    assert {cell.state for cell in before.cells} == {"missing"}
    drive_to_end(store, JOB, Machine(), tmp_path)
    told = build.build(store, job_id(JOB))
    assert {(cell.column, cell.figure.name) for cell in told.cells} == {
        ("digits", "top1"), ("faces", "mean_per_class"),
    }  # fmt: skip
    for cell in told.cells:
        assert (cell.state, cell.seeds, cell.best_of) == ("done", (0, 1), 1)
        rows = [row for row in store.trials.placed(job_id(JOB), "final") if row.key in cell.keys]
        assert {(row.settings["task.dataset"], row.group) for row in rows} == {(cell.column, cell.row)}
    assert len({cell.keys for cell in told.cells}) == 4
    assert [group.name for group in told.groups] == ["RAND", "SUP"]
    assert verify(store, job_id(JOB)) == []
    assert "faces" in terminal(told)
    assert "faces" in html(told)
    store.close()


def test_a_plot_over_the_columns_is_a_curve_for_each_row_and_null_has_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figure 5 of the paper: the chosen recipe with more and more blocks dropped; null is the whole model."""
    monkeypatch.setattr(membership, "BEAT_S", 0.2)
    drop = FINAL | {"from": "grid", "sweep": {"grid": {"backbone.drop_last": [None, 0, 2, 3], "seed": [0, 1, 2]}}}
    shown = {"columns": "backbone.drop_last", "averages": [], "plots": [{"x": "backbone.drop_last"}]}
    study = job(PRETRAIN, SEARCH, drop, report=shown)
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    drive_to_end(store, study, Machine(), tmp_path)
    told = build.build(store, job_id(study))
    assert [column.name for column in told.columns] == ["None", "0", "2", "3"]
    (plot,) = told.plots
    assert (plot.curves, plot.x_name, plot.left_out) == (True, "blocks dropped", ())
    for row in ("RAND", "SUP"):
        dots = [dot for dot in plot.dots if dot.name == row]
        assert [(dot.x, dot.x_word) for dot in dots] == [(-1.0, "null"), (0.0, ""), (2.0, ""), (3.0, "")]
        for dot, column in zip(dots, told.columns, strict=True):
            cell = told.at[row, column.name]
            assert (dot.keys, dot.y) == (cell.keys, cell.value)
            assert dot.interval == pytest.approx(cell.interval)
            assert dot.interval is not None
            assert dot.interval > 0
    page = html(told)
    drawing = page[page.index('<svg class="scatter"') :]
    drawing = drawing[: drawing.index("</svg>")]
    assert drawing.count("<polyline") == 2
    assert drawing.count('class="whisker of c0"') == drawing.count('class="whisker of c1"') == 4
    for look, row in (("c0", "RAND"), ("c1", "SUP")):
        assert f'class="line of {look}"' in drawing
        assert f' class="of {look}">{row}</text>' in drawing, "the name has the colour of its line"
    assert "95 % intervals of the mean over seeds" in page
    for word in ("null", "0", "2", "3"):
        assert f">{word}</text>" in drawing
    assert ">-1</text>" not in drawing
    saved = to_json(told)
    for dot in saved["plots"][0]["dots"]:
        del dot["interval"]
    assert verify(store, job_id(study), {**saved, "form": 6}) == [], "saved before points had intervals"
    assert re.search(r"RAND: blocks dropped null, top-1 accuracy \(%\) [0-9.]+ ± [0-9.]+<", page)
    assert verify(store, job_id(study)) == []
    store.close()


def test_a_trial_outside_of_the_columns_axis_is_in_the_column_of_the_base_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Section 3.2 of the paper: a baseline without drawn blocks beside five draws."""
    monkeypatch.setattr(membership, "BEAT_S", 0.2)
    path = "backbone.sample_layers.draw"
    tune = {**SEARCH, "sweep": {"grid": {"backbone.init": [SUP], "optim.lr": [1e-4, 6e-4]}}}
    tune["override"] = {"task.dataset": "digits", "backbone.drop_last": 1}
    axes = [{"seed": [0, 1]}, {path: [0, 1], "seed": [0, 1]}]
    study = job(
        PRETRAIN, tune, FINAL | {"from": "grid", "sweep": {"grid": axes}},
        report={"columns": path, "averages": [{"name": "draws", "over": ["0", "1"]}]},
    )  # fmt: skip
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    drive_to_end(store, study, Machine(), tmp_path)
    told = build.build(store, job_id(study))
    assert [column.name for column in told.columns] == ["None", "0", "1"]
    for cell in told.cells:
        assert (cell.seeds, cell.best_of) == ((0, 1), 1)
        for key in cell.keys:
            sampled = store.trials.get(key).spec["backbone"].get("sample_layers")
            assert str(sampled and sampled["draw"]) == cell.column
    assert len({key for cell in told.cells for key in cell.keys}) == 6
    store.close()


def test_the_table_against_a_figure_of_the_weights_it_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figure 2a of the paper: the error of fine-tuning against AvgDist of the pre-training."""
    monkeypatch.setattr(membership, "BEAT_S", 0.2)
    masks = {**PRETRAIN, "per": "optim.lr", "sweep": {"grid": {"optim.lr": [1e-4, 6e-4]}}}
    inits = [RAND, *({**SUP, "name": f"mask {name}", "group": name} for name in ("0.0001", "0.0006"))]
    tune = {**grid(dataset=["digits"], init=inits, lr=[6e-4], layer_decay=[0.85]), "name": "tune"}
    plots = [{"x": "loss", "of": "parent", "y": "error"}, {"x": "loss"}]
    study = job(masks, tune, report={"plots": plots})
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    drive_to_end(store, study, Machine(), tmp_path)
    told = build.build(store, job_id(study))
    of_parents, own = told.plots
    assert [dot.name for dot in of_parents.dots] == ["mask 0.0006", "mask 0.0001"]
    assert of_parents.left_out == ("RAND",)
    losses = {
        row.settings["optim.lr"]: store.trials.get(row.key).figures["loss"]
        for row in store.trials.placed(job_id(study), "pretrain")
    }
    assert [dot.x for dot in of_parents.dots] == [losses[6e-4], losses[1e-4]]
    for dot in of_parents.dots:
        assert dot.y == 100 - told.at[dot.name, "digits"].value  # type: ignore[operator]
    assert len(own.dots) == 3
    page = html(told)
    assert page.count('class="scatter"') == 2
    assert "Without loss of the weights: RAND" in page
    store.close()


def test_data_sets_whose_images_were_not_counted_are_called_not_comparable_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "BEAT_S", 0.2)
    tune = grid(dataset=["digits", "faces"], init=[RAND], lr=[6e-4], layer_decay=[0.85])
    each = tune["sweep"]["grid"]
    apart = [
        {**each, "task.dataset": [name], "task.counts": [counts]}
        for name, counts in (("digits", "exact"), ("faces", "any"))
    ]
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    studies = (
        ({**tune, "override": {"task.counts": "any"}}, ["all columns: "]),
        ({**tune, "override": {"task.counts": "exact"}}, []),
        ({**tune, "sweep": {"grid": apart}}, ["faces: "]),
    )
    for stage, named in studies:
        study = job(stage)
        drive_to_end(store, study, Machine(), tmp_path)
        told = build.build(store, job_id(study)).warnings
        assert [line for line in told if "not comparable" in line] == [name + ANY_COUNT for name in named]
    store.close()


def test_pictures_are_in_the_page_as_long_as_their_files_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "BEAT_S", 0.2)

    def drawing(assignment: Assignment, emit: Any, stop: Any) -> Outcome:
        folder = Path(assignment.folder) / "pictures"
        folder.mkdir(parents=True)
        for epoch in (1, 2, 3):
            (folder / f"seen-{epoch:04d}.png").write_bytes(b"PNG %d" % epoch)
            emit(Report(epoch, epoch, {"train_loss": 1.0}, 0.1, (f"pictures/seen-{epoch:04d}.png",)))
        return Outcome(figures(assignment.trial), {}, None)

    study = job(grid(dataset=["digits"], init=[RAND], lr=[6e-4], layer_decay=[0.85]))
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    drive_to_end(store, study, Machine(execute=drawing), tmp_path)
    told = build.build(store, job_id(study))
    assert [(picture.epoch, picture.path) for picture in told.pictures] == [
        (1, "pictures/seen-0001.png"), (3, "pictures/seen-0003.png"),
    ]  # fmt: skip
    page = html(told, storage=tmp_path / "storage")
    assert [base64.b64encode(b"PNG %d" % epoch).decode() in page for epoch in (1, 2, 3)] == [True, False, True]
    gone = html(told, storage=tmp_path / "elsewhere")
    assert "no file pictures/seen-0003.png" in gone
    store.close()
