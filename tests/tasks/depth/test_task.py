"""Depth as a task: data in three layouts, training, evaluation over ranks, figures apart, and what enters the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from depth_sets import write_kitti, write_nyuv2

from tasks.base import DataContext
from tasks.depth.task import Depth
from workers.messages import Report
from workers.state import RankContext
from workers.train import train
from workers.trial import TrialSpec

SWIN = {
    "model": "swinv2_tiny_window8_256", "image_size": 32,
    "args": {"patch_size": 4, "embed_dim": 8, "depths": [1, 1, 2], "num_heads": [1, 2, 4], "window_size": 4},
}  # fmt: skip


def trial(dataset: Any, backbone: dict[str, Any] | None = None, **task: Any) -> TrialSpec:
    return TrialSpec.model_validate({
        "task": {"kind": "depth", "dataset": dataset, **task},
        "backbone": backbone or SWIN,
        "optim": {"lr": 1e-3, "batch": 2, "epochs": 1, "warmup_epochs": 0, "clip": 0},
        "may_test": True,
    })  # fmt: skip


def run(spec: TrialSpec, root: Path, **place: Any) -> Any:
    reports: list[Report] = []
    context = RankContext(folder=root / "runs", data_root=root, **place)
    outcome = train(spec, context, reports.append, lambda: False)
    return outcome, reports


def test_nyuv2_in_its_published_layout_trains_and_is_evaluated(tmp_path: Path) -> None:
    write_nyuv2(tmp_path)
    outcome, _ = run(trial("nyuv2", evaluate="test"), tmp_path)
    assert set(outcome.figures) == {metric.name for metric in Depth(dataset="nyuv2").metrics}
    assert outcome.figures["rmse"] > 0
    found = outcome.facts["preprocessing"]
    assert (found["windows"], found["uncovered_columns"]) == ([2], 0)
    assert (found["depth"]["window"], found["depth"]["longest"], found["depth"]["steps_per_metre"]) == ("nyu", 10, 1000)
    assert any("3 test images of NYUv2" in caveat for caveat in outcome.facts["caveats"]) is False  # not planned


def test_kitti_in_its_published_layout_trains_and_nine_columns_stay_without_a_prediction(tmp_path: Path) -> None:
    write_kitti(tmp_path, (2, 1))
    backbone = {
        "model": "vit_tiny_patch16_224", "image_size": 352,
        "args": {"patch_size": 32, "embed_dim": 8, "depth": 1, "num_heads": 2},
    }  # fmt: skip
    outcome, _ = run(trial("kitti-eigen", backbone, evaluate="test", embedding=4), tmp_path)
    found = outcome.facts["preprocessing"]
    assert (found["windows"], found["uncovered_columns"], found["uncovered_columns_evaluated"]) == ([16], 9, 0)
    assert found["images_without_depth_map"] == 1
    assert 0 < outcome.figures["rmse"] < 80
    task = Depth(dataset="kitti-eigen", evaluate="test")
    loaders = task.loaders(DataContext(tmp_path, (352, 352), device="cpu", seed=0, batch=2, may_test=True))
    (batch,) = loaders.evaluation()
    assert tuple(batch["images"].shape) == (1, 3, 352, 1216)
    assert 11 < float(batch["depth"].max()) < 60  # the file's numbers over 256
    (learnt,) = loaders.epoch(0)
    assert tuple(learnt["images"].shape) == (2, 3, 352, 352)
