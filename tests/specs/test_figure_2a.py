"""The spec of Figure 2a: what each mask's fine-tuning and analysis measure meets in one plot."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from in_process_backend import Machine, drive_to_end

from orchestrator.records.states import JobState
from orchestrator.report.build import build
from orchestrator.report.verify import verify
from orchestrator.report.wording import title
from orchestrator.spec import load
from orchestrator.spec.job import job_id
from orchestrator.spec.sweep import points
from orchestrator.store.store import open_store
from workers.run import run_trial

SPEC = Path(__file__).parents[2] / "specs" / "imagenet_finetune.yaml"


def test_every_mask_has_its_error_and_its_attention_distance(tmp_path: Path) -> None:
    job = load(SPEC, "smoke")
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        state, _ = drive_to_end(store, job, Machine(1, run_trial), tmp_path)
        assert state is JobState.done
        report = build(store, job_id(job))
        recorded = store.trials.figures(trial.key for trial in store.trials.placed(job_id(job)))
        distances = {
            t.group: recorded[t.key]["attention_distance"] for t in store.trials.placed(job_id(job), "analyse")
        }
        assert verify(store, job_id(job)) == []
    (plot,) = report.plots
    masks = ["2 px 0.75", "8 px 0.75"]
    assert [dot.name for dot in plot.dots] == [dot.name for dot in plot.second] == masks
    assert [dot.y for dot in plot.dots] == pytest.approx([100 - (report.at[m, "digits"].value or 0) for m in masks])
    assert {dot.name: dot.y for dot in plot.second} == pytest.approx(distances)
    assert [dot.x for dot in plot.dots] == [dot.x for dot in plot.second]
    assert 0 < plot.dots[0].x < plot.dots[1].x
    assert (plot.y_name, plot.second_name) == ("error rate (%)", "attention distance (px)")
    assert plot.left_out == ("RAND",), "no mask was drawn for it"
    assert "one pre-training run: seeds vary fine-tuning alone" in title(report)


@pytest.mark.parametrize("profile", ["laptop", "smoke", "figure2a"])
def test_the_same_masks_are_analysed_and_fine_tuned_on_one_data_set(profile: str) -> None:
    job = load(SPEC, profile)
    stages = {stage.name: stage for stage in job.stages}
    analysed, tuned = (
        [json.dumps(point["backbone.init"], sort_keys=True) for point in points(stages[name].sweep)]
        for name in ("analyse", "finetune")
    )
    assert set(tuned) >= set(analysed)
    assert len(analysed) == len(points(stages["pretrain"].sweep))
    assert stages["analyse"].override["task"]["dataset"] == job.trial["task"]["dataset"]
