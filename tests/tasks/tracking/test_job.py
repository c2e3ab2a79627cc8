"""Tracking in trials and jobs: an evaluation that is killed goes on, a submission is a result, pairs learn."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import sequence_trees as trees
from in_process_backend import Machine, drive_to_end
from killed_trials import killed_trials
from tiny_task import run

from orchestrator.records.states import JobState
from orchestrator.report.build import build
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.verify import verify
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store.store import open_store
from workers.errors import Stopped
from workers.run import run_trial
from workers.trial import TrialSpec

VIT: dict[str, Any] = {
    "model": "vit_tiny_patch16_224", "args": {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2},
    "image_size": 32,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "kind": "tracking", "pairs": 16, "stride": 4, "fusion": {"width": 16, "heads": 2, "blocks": 1, "init_std": 0.3},
}  # fmt: skip
OPTIM = {"lr": 1e-3, "batch": 8, "epochs": 1, "warmup_epochs": 0}


def trial(dataset: Any, at_once: int) -> TrialSpec:
    task = {**SMALL, "dataset": dataset, "inference": {"at_once": at_once}}
    return TrialSpec.model_validate({"task": task, "backbone": VIT, "optim": OPTIM, "seed": 0})


def many(base: Path, sequences: int) -> dict[str, Any]:
    """Sequences of one's own, so many of them to evaluate on."""
    trees.own(base)
    for number in range(sequences - 2):
        folder = base / "val" / f"more{number}"
        folder.mkdir()
        for file in (base / "train" / "car").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    return {"kind": "sequences", "path": str(base)}


def test_a_killed_evaluation_goes_on_and_ends_in_the_same_figures(tmp_path: Path) -> None:
    """Every sequence that ended is kept, and what was found in those under way: no frame of them is tracked twice but
    those since the last piece."""
    spec = trial(many(tmp_path / "own", 5), at_once=3)
    whole, interrupted = killed_trials([(spec, []), (spec, ["piece:4", "item:2"])], tmp_path)
    assert interrupted["killed"] == [True, True, False]
    for what in ("figures", "reports", "sha256"):
        assert interrupted[what] == whole[what]
    kept = [
        [json.loads(line) for line in path.read_bytes().splitlines() if line]
        for path in sorted((tmp_path / "1").glob("evaluation-*"))
    ]
    assert [sum("part" in line for line in lines) for lines in kept] == [0, 2, 3]
    assert sorted(line["item"] for lines in kept for line in lines if "part" in line) == [
        f"{number:06d}" for number in range(5)
    ]
    known: dict[str, int] = {}
    for line in (line for lines in kept for line in lines if "piece" in line):
        assert line["piece"]["from"] == known.get(line["item"], 0)
        known[line["item"]] = line["piece"]["from"] + len(line["piece"]["boxes"])
    assert all(count > 1 for count in known.values())


def test_a_stop_is_heeded_at_a_piece(tmp_path: Path) -> None:
    spec = trial(many(tmp_path / "own", 3), at_once=3)

    def lines(name: str) -> list[dict[str, Any]]:
        files = sorted((tmp_path / name).glob("evaluation-*"))
        return [json.loads(line) for path in files for line in path.read_bytes().splitlines() if line]

    with pytest.raises(Stopped):
        run(spec, tmp_path / "stopped", lambda: bool(lines("stopped")))
    assert [set(line) for line in lines("stopped")] == [{"state", "item", "piece"}]
    assert run(spec, tmp_path / "stopped")[0].figures == run(spec, tmp_path / "whole")[0].figures


def test_a_model_tracks_other_data_again_and_may_end_with_a_submission(tmp_path: Path) -> None:
    trees.all_four(tmp_path / "data")
    trained = [{"kind": "stage", "name": "RAND", "stage": "tracking", "group": "RAND"}]
    again = {"task.head": "keep", "optim.epochs": 0, "task.evaluate": "test"}
    job = JobSpec.model_validate({
        "name": "tracks",
        "trial": {
            "task": {**SMALL, "dataset": "got10k", "train_sets": ["got10k", "coco-boxes"]},
            "backbone": {**VIT, "init": {"kind": "none", "name": "RAND"}}, "optim": OPTIM,
        },
        "stages": [
            {"name": "tracking", "per": ["backbone.init"]},
            *[
                {"name": name, "per": ["backbone.init"], "override": {**again, "task.dataset": name},
                 "sweep": {"grid": {"backbone.init": trained}}}
                for name in ("lasot", "got10k")
            ],
        ],
        "report": {
            "stage": "lasot", "averages": [],
            "layers": [{"title": "Success plot", "figure": "success", "form": "curves", "axis": "overlap (%)"}],
        },
    })  # fmt: skip
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        state, _ = drive_to_end(store, job, Machine(1, run_trial), tmp_path)
        assert state is JobState.done, [(r.stage, r.state, r.error) for r in store.trials.placed(job_id(job))]
        rows = {row.stage: row for row in store.trials.placed(job_id(job))}
        assert [rows[stage].metrics[0].name for stage in ("tracking", "lasot")] == ["ao", "success_mean"]
        sent = store.trials.snapshots([rows["got10k"].key])[rows["got10k"].key]
        assert Path(sent.facts["submission"]).name.endswith("got10k-test.zip")
        report = build(store, job_id(job))
        (figure,) = report.layers
        (panel,) = figure.panels
        assert panel.layers == tuple(range(0, 101, 5))
        (cell,) = report.cells
        means = [panel.mean(layer) for layer in panel.layers]
        assert cell.value == pytest.approx(sum(filter(None, means)) / 21)  # SUC is the mean of the plot
        for form in FORMATS.values():
            assert form.render(report, Links())
        assert verify(store, job_id(job), None) == []
