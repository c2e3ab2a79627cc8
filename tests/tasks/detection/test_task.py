"""Detection as a task: it trains through the real loop and is measured; what its fields decide; wrong data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import object_trees as trees
import pytest
import torch
from object_trees import described, detection_trial
from PIL import Image
from tiny_task import run

from tasks.detection.evaluation import METRICS
from tasks.detection.model import TERMS
from tasks.detection.task import Detection


def test_it_trains_and_is_measured(tmp_path: Path) -> None:
    outcome, (report,) = run(detection_trial(), tmp_path)
    assert set(outcome.figures) == {metric.name for metric in METRICS}
    learnt = trees.IMAGES["train"] - 1
    assert outcome.facts["steps"] == learnt // 6
    assert outcome.facts["preprocessing"]["images_without_objects"] == 1
    assert np.isfinite(report.values["train_loss"])
    terms = [report.values[f"train_{name}"] for name in TERMS.values()]
    assert sum(terms) == pytest.approx(report.values["train_loss"], rel=1e-5)
    rows = [json.loads(line) for line in (tmp_path / "measurements.jsonl").read_text().splitlines()]
    assert {(row["figure"], row["item"]) for row in rows} == {
        (figure, name) for figure in ("ap_box", "ap_mask") for name in trees.CATEGORIES.values()
    }
    of_boxes = [row["value"] for row in rows if row["figure"] == "ap_box"]
    assert np.mean(of_boxes) == pytest.approx(outcome.figures["ap_box"])
    with Image.open(tmp_path / "pictures" / "detections-0001.png") as image:
        assert image.width > 8 * 200
