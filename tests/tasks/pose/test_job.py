"""Pose in jobs: a result without a figure is a result, and weights of one stage are measured again by another."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import person_trees as trees
import pytest
from in_process_backend import Machine, drive_to_end
from pose_trials import STILL, SWIN

from orchestrator.errors import NotFound
from orchestrator.launch.data_manifests import with_manifests
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.states import JobState
from orchestrator.report.build import build
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.verify import verify
from orchestrator.settings import settings
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store.store import open_store
from workers.run import run_trial


def job(**other: Any) -> JobSpec:
    return JobSpec.model_validate({
        "name": "poses",
        "trial": {
            "task": {"kind": "pose", "dataset": "coco-keypoints", "sigma": 1, "augment": STILL}, "backbone": SWIN,
            "optim": {"lr": 1e-3, "batch": 12, "epochs": 1, "warmup_epochs": 0, "clip": 0},
        },
        "stages": [
            {"name": "pose", "per": ["backbone.init"]},
            {
                "name": "test_dev", "per": ["backbone.init"],
                "override": {"task.head": "keep", "task.evaluate": "test", "optim.epochs": 0},
                "sweep": {"grid": {"backbone.init": [
                    {"kind": "stage", "name": "RAND", "stage": "pose", "group": "RAND"}]}},
            },
        ],
        **other,
    })  # fmt: skip


def test_a_job_that_ends_with_a_submission_is_done(tmp_path: Path) -> None:
    trees.published_coco(tmp_path / "data")
    named = job(trial={**job().trial, "backbone": {**SWIN, "init": {"kind": "none", "name": "RAND"}}})
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        state, _ = drive_to_end(store, named, Machine(1, run_trial), tmp_path)
        assert state is JobState.done, [(r.stage, r.state, r.error) for r in store.trials.placed(job_id(named))]
        trained, sent = (store.trials.placed(job_id(named), stage)[0] for stage in ("pose", "test_dev"))
        assert (trained.split, sent.split) == ("val", "test")
        assert trained.value is not None
        assert sent.state == "done"
        assert sent.key not in store.trials.figures([sent.key])
        facts = store.trials.snapshots([sent.key])[sent.key].facts
        assert (tmp_path / "storage" / facts["submission"]).is_file()
        report = build(store, job_id(named))
        assert [cell.value for cell in report.cells] == [None]
        for form in FORMATS.values():
            assert form.render(report, Links())
        assert verify(store, job_id(named), None) == []


def test_columns_of_boxes_are_cells_of_one_training() -> None:
    """Trained once for each row, whatever it is measured with."""
    fields = {"task.head": "keep", "optim.epochs": 0}
    trained = [{"kind": "stage", "name": "RAND", "stage": "pose", "group": "RAND"}]
    grid = {"backbone.init": trained, "task.boxes": ["ground_truth", "detections"]}
    stages = [
        {"name": "pose", "per": ["backbone.init"]},
        {"name": "boxes", "per": ["backbone.init"], "override": fields, "sweep": {"grid": grid}},
    ]
    both = job(stages=stages, report={"stage": "boxes", "columns": "task.boxes"})
    planner = Planner(both, DurationModel())
    epochs = [trial.optim.epochs for trial in (*planner.specs(), *planner.foreseen())]
    assert sorted(epochs) == [0, 0, 1]


def both_boxes(dataset: Any, **task: Any) -> JobSpec:
    """One stage that measures with annotated and with detected boxes."""
    fields = {"kind": "pose", "dataset": dataset, "sigma": 1, "augment": STILL, **task}
    stages = [{"name": "all", "sweep": {"grid": {"task.boxes": ["ground_truth", "detections"]}}}]
    return job(trial={**job().trial, "task": fields}, stages=stages, report={"columns": "task.boxes"})


def test_planning_gives_each_trial_the_digests_of_what_it_reads(tmp_path: Path) -> None:
    trees.published_coco(tmp_path)
    where = settings(folder=tmp_path / "runs", data_root=tmp_path)
    planned = with_manifests(both_boxes("coco-keypoints"), where)
    tasks: dict[str, Any] = {}
    for trial in Planner(planned, DurationModel()).specs():
        task: Any = trial.task
        tasks[task.boxes] = task
    assert set(tasks["ground_truth"].manifests) == {"coco-keypoints/official"}
    assert set(tasks["detections"].manifests) == {"coco-keypoints/official", "coco-keypoints/val/published boxes"}
    assert tasks["detections"].evaluation_samples == 21


def test_described_data_without_boxes_are_one_line_at_planning(tmp_path: Path) -> None:
    base = trees.coco_tree(tmp_path / "people")
    (base / "person_detection_results" / "val2017_detections.json").unlink()
    where = settings(folder=tmp_path / "runs", data_root=tmp_path)
    with pytest.raises(NotFound, match=r"people: no boxes .* for val: name one in task.boxes_file, or set task.boxes"):
        with_manifests(both_boxes({"kind": "coco", "path": "people"}), where)


@pytest.mark.parametrize("dataset", ["coco-keypoints", "crowdpose"])
def test_figures_carry_their_titles_to_tables(dataset: str) -> None:
    from tasks.pose.task import Pose

    metrics = Pose(dataset=dataset).metrics
    assert [metric.title for metric in metrics[:3]] == ["AP", "AP50", "AP75"]
    assert {metric.unit for metric in metrics} == {"%"}
    assert {metric.scale for metric in metrics} == {100}
