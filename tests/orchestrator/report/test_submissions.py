"""Cells of trials that wrote a file for a public evaluation server and have no figure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from planned_jobs import run
from two_specs import measured

from orchestrator.plan.trials import PlannedTrial
from orchestrator.report.build import build
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.model import Report
from orchestrator.spec import load
from orchestrator.store.store import Store

SPEC = """\
name: server
trial:
  task: {kind: classify}
  backbone: {model: vit_tiny_patch16_224, image_size: 32}
  optim: {lr: 1e-3, batch: 32, epochs: 4, warmup_epochs: 1}
stages:
  - name: train
    per: [task.dataset]
    replicates: REPLICATES
    sweep: {grid: {task.dataset: [digits, textures]}}
"""
FILE = "/storage/trials/ab/submission.json"


def report_of(
    store: Store, folder: Path, digits: dict[str, float], facts: dict[str, Any], replicates: int = 1
) -> Report:
    """Of a study whose trials on digits end with these figures; those on textures with all."""

    def figures(trial: PlannedTrial) -> dict[str, float]:
        return digits if trial.settings["task.dataset"] == "digits" else measured(trial)

    path = folder / "spec.yaml"
    path.write_text(SPEC.replace("REPLICATES", str(replicates)))
    return build(store, run(store, load(path), figures, facts=facts))


@pytest.mark.parametrize("replicates", [1, 3])
@pytest.mark.parametrize("form", FORMATS)
def test_every_form_says_submitted_and_names_the_file(form: str, replicates: int, tmp_path: Path, store: Store) -> None:
    report = report_of(store, tmp_path, {}, {"submission": FILE}, replicates)
    cell, other = report.cells
    assert (cell.state, cell.value, cell.interval, cell.leading) == ("submitted", None, None, False)
    assert cell.submissions == (FILE,) * replicates
    assert (other.state, other.submissions) == ("done", ())
    text = FORMATS[form].render(report, Links())
    assert "submitted" in text
    assert FILE in text
    assert "diverged" not in text.replace("diverged_seeds", "").replace(",diverged,", "") or form in ("json", "html")


def test_it_is_no_warning_and_the_average_waits_for_it(tmp_path: Path, store: Store) -> None:
    report = report_of(store, tmp_path, {}, {"submission": FILE})
    assert report.warnings == ()
    assert report.means[0].missing == ("digits",)


@pytest.mark.parametrize(
    ("figures", "facts"),
    [
        ({}, {}),
        ({}, {"submission": ""}),
        ({}, {"submission": 3}),
        ({"top1": math.nan, "loss": math.nan}, {"submission": FILE}),
    ],
)
def test_without_a_file_or_with_a_figure_that_is_no_number_it_is_diverged(
    figures: dict[str, float], facts: dict[str, Any], tmp_path: Path, store: Store
) -> None:
    cell = report_of(store, tmp_path, figures, facts).cells[0]
    assert (cell.state, cell.reason) == ("diverged", "the figure is not a finite number")


def test_a_value_beside_a_file_is_shown(tmp_path: Path, store: Store) -> None:
    cell = report_of(store, tmp_path, {"top1": 0.5, "loss": 1.0}, {"submission": FILE}).cells[0]
    assert (cell.state, cell.value) == ("done", 50.0)
