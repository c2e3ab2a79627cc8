"""Which stages may read test data, from the spec to the planned trials."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from in_process_backend import Machine, drive_to_end

from orchestrator.errors import SpecError
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.plan.stage_graph import StageGraph
from orchestrator.report.build import build
from orchestrator.spec import load
from orchestrator.spec.job import job_id
from orchestrator.store.store import open_store

HEAD = """\
name: compare
trial:
  task: {kind: classify, dataset: digits, evaluate: test, train: trainval}
  backbone: {model: vit_tiny_patch16_224, image_size: 16, args: {patch_size: 4, embed_dim: 64, depth: 3, num_heads: 4}}
  optim: {lr: 1e-3, batch: 20, epochs: 4, warmup_epochs: 1}
"""
PRETRAIN = """\
  - name: pretrain
    override: {task: {kind: pretrain, dataset: digits-pretrain, mask_patch: 4, normalize: half, augment: {flip: 0}}}
"""
WEIGHTS = "backbone.init: [{kind: none, name: RAND}, {kind: stage, stage: pretrain, name: MIM}]"
ALLOWED = {
    "rows and seeds": (f"{PRETRAIN}  - {{name: all, sweep: {{grid: {{{WEIGHTS}, seed: [0, 1, 2]}}}}}}\n", 6),
    "columns": ("  - {name: all, sweep: {grid: {task.dataset: [digits, faces]}}}\n", 2),
    "one trial": ("  - {name: all}\n", 1),
    "another row": (
        "  - {name: all, sweep: {grid: {backbone.drop_path: [0, 0.1, 0.2]}}}\nreport: {rows: backbone.drop_path}\n", 3),
    "a value that follows from the column": (
        "  - {name: all, sweep: {grid: [{task.dataset: [digits], optim.lr: [1e-3]}, "
        "{task.dataset: [faces], optim.lr: [2e-3]}]}}\n", 2),
    "an x axis": (
        "  - {name: all, sweep: {grid: {backbone.drop_path: [0, 0.1]}}}\nreport: {plots: [{x: backbone.drop_path}]}\n",
        2),
}  # fmt: skip
"""Stages -> trials that read test."""
REFUSED = {
    "a hidden axis": (
        "  - {name: all, sweep: {grid: {backbone.drop_path: [0, 0.1]}}}\n", "several values of backbone.drop"),
    "learning rates": (
        "  - {name: all, sweep: {grid: {optim.lr: {logspace: [1e-4, 1e-3, 3]}}}}\n", "several values of optim.lr"),
    "grids with a column in common": (
        "  - {name: all, sweep: {grid: [{task.dataset: [digits, faces], optim.lr: [1e-3]}, "
        "{task.dataset: [faces], optim.lr: [2e-3]}]}}\n", "several values of optim.lr"),
    "a grid that leaves the column to the base": (
        "  - {name: all, sweep: {grid: [{optim.lr: [1e-3]}, {task.dataset: [faces], optim.lr: [2e-3]}]}}\n",
        "several values of optim.lr"),
    "several values in one grid": (
        "  - {name: all, sweep: {grid: [{task.dataset: [digits], optim.lr: [1e-3, 2e-3]}, "
        "{task.dataset: [faces], optim.lr: [2e-3]}]}}\n", "several values of optim.lr"),
    "a value that follows from the seed": (
        "  - {name: all, sweep: {grid: [{seed: [0], optim.lr: [1e-3]}, {seed: [1], optim.lr: [2e-3]}]}}\n",
        "several values of optim.lr"),
    "a search": ("  - {name: all, sweep: {search: {optim.lr: {loguniform: [1e-4, 1e-2]}}, trials: 3}}\n", "searches"),
    "a winner taken later": (
        "  - {name: all, sweep: {grid: {seed: [0, 1]}}}\n  - {name: final, from: all}\n", "winners are chosen from"),
}  # fmt: skip
GROUPS = """\
name: groups
trial:
  task: {kind: classify, dataset: digits}
  backbone: {model: vit_tiny_patch16_224, image_size: 16, args: {patch_size: 4, embed_dim: 64, depth: 3, num_heads: 4}}
  optim: {batch: 20, epochs: 4, warmup_epochs: 1}
stages:
  - {name: grid, per: [task.dataset, optim.lr], sweep: {grid: {optim.lr: [1e-4, 1e-3], optim.layer_decay: [0.8, 0.9]}}}
  - {name: final, from: grid, override: {task.train: trainval, task.evaluate: test}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("case", ALLOWED)
def test_what_the_report_shows_whole_may_be_measured_on_test(case: str, tmp_path: Path) -> None:
    stages, count = ALLOWED[case]
    job = load(written(tmp_path, f"{HEAD}stages:\n{stages}"))
    specs = [spec for spec in Planner(job, DurationModel()).specs() if spec.task.reads_test]
    assert [spec.may_test for spec in specs] == [True] * count


@pytest.mark.parametrize("case", REFUSED)
def test_what_could_be_chosen_by_test_is_refused(case: str, tmp_path: Path) -> None:
    stages, reason = REFUSED[case]
    with pytest.raises(SpecError, match=rf"spec\.yaml:3:\d+: .*test data before selection: .*{reason}"):
        load(written(tmp_path, f"{HEAD}stages:\n{stages}"))


def test_groups_that_the_report_hides_let_nobody_choose_on_test(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"spec\.yaml:8:\d+: stages\.final: .*several values of optim\.lr"):
        load(written(tmp_path, GROUPS))
    job = load(written(tmp_path, f"{GROUPS}report: {{rows: optim.lr}}\n"))
    assert len(Planner(job, DurationModel()).specs()) == 4


RATES = (
    "optim: [{lr: 1e-4, batch: 20, epochs: 4, warmup_epochs: 1}, {lr: 1e-3, batch: 20, epochs: 4, warmup_epochs: 1}]"
)


@pytest.mark.parametrize(
    ("per", "axes", "hidden"),
    [
        ("optim", "optim.lr: [1e-4, 1e-3]", r"optim\.lr"),
        ("task.dataset, optim", "task.dataset: [digits, faces], optim.lr: [1e-4, 1e-3]", r"optim\.lr"),
        ("optim.lr", RATES, r"optim\.lr"),
        ("optim", RATES, "optim"),
    ],
)
def test_groups_may_be_formed_neither_by_a_section_nor_by_a_field_of_one(
    per: str, axes: str, hidden: str, tmp_path: Path
) -> None:
    """Other spellings of one winner, measured on test, for each learning rate."""
    grid = f"  - {{name: grid, per: [{per}], sweep: {{grid: {{{axes}}}}}}}\n"
    near = "  - {name: near, from: grid, neighbourhood: {near: {optim.weight_decay: {multiply: [0.5, 2]}}}}\n"
    for between, source in (("", "grid"), (near, "[grid, near]")):
        final = f"  - {{name: final, from: {source}, override: {{task.train: trainval, task.evaluate: test}}}}\n"
        head = HEAD.replace(", evaluate: test, train: trainval", "")
        with pytest.raises(SpecError, match=rf"stages\.final: .*several values of {hidden}, "):
            load(written(tmp_path, f"{head}stages:\n{grid}{between}{final}"))


def test_groups_of_a_section_that_differ_in_what_the_report_compares_are_fine(tmp_path: Path) -> None:
    tasks = "task: [{kind: classify, dataset: digits, val_fraction: 0.3}, {kind: classify, dataset: faces}]"
    head = HEAD.replace(", evaluate: test, train: trainval", "")
    final = "  - {name: final, from: grid, override: {task.train: trainval, task.evaluate: test}}\n"
    for per, axes in (
        ("task.dataset", tasks),
        ("task.dataset, optim", tasks),
    ):
        grid = f"  - {{name: grid, per: [{per}], sweep: {{grid: {{{axes}, backbone.drop_path: [0, 0.1]}}}}}}\n"
        job = load(written(tmp_path, f"{head}stages:\n{grid}{final}"))
        assert StageGraph(job).may_test(job.stages[1])


def test_weights_taken_from_a_stage_that_reads_test_are_refused(tmp_path: Path) -> None:
    stages = (
        "  - {name: first}\n"
        "  - {name: second, override: {backbone.init: {kind: stage, stage: first, name: SUP}, task.evaluate: val, "
        "task.train: train}}\n"
    )
    with pytest.raises(SpecError, match="test data before selection: second starts from its weights"):
        load(written(tmp_path, f"{HEAD}stages:\n{stages}"))


def test_a_curve_measured_on_test_has_no_best_point_in_the_table(tmp_path: Path) -> None:
    """To show the best of its points in a cell would choose it by test."""
    job = load(written(tmp_path, f"{HEAD}stages:\n{ALLOWED['an x axis'][0]}"))
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        drive_to_end(store, job, Machine(), tmp_path)
        (cell,) = build(store, job_id(job)).cells
        assert (cell.value, cell.reason) == (None, "a curve over drop path: see its plot")


def test_the_last_neighbourhood_may_not_read_test_either(tmp_path: Path) -> None:
    """Nobody takes its winner; but the best of its neighbours in the table would be one."""
    on_val = HEAD.replace("evaluate: test, train: trainval", "evaluate: val")
    grid = "  - {name: grid, per: task.dataset, sweep: {grid: {optim.lr: [1e-4, 1e-3]}}}\n"
    near = "  - {name: near, from: grid, neighbourhood: {near: {optim.lr: {multiply: [0.5, 2]}}}OVERRIDE}\n"
    asks = f"{on_val}stages:\n{grid}{near.replace('OVERRIDE', ', override: {task.evaluate: test}')}"
    with pytest.raises(SpecError, match=r"spec\.yaml:8:\d+: stages\.near: .*this stage searches a neighbourhood"):
        load(written(tmp_path, asks))
    job = load(written(tmp_path, f"{on_val}stages:\n{grid}{near.replace('OVERRIDE', '')}"))
    assert [StageGraph(job).may_test(stage) for stage in job.stages] == [False, False]
