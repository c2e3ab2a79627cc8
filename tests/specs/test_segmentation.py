"""specs/segmentation.yaml: what its paper profile takes from mmsegmentation, where the paper is silent."""

from __future__ import annotations

import pytest
from spec_files import SPECS

from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.spec import load
from tasks.segmentation.task import Segmentation

pytest.importorskip("transformers")  # without it the spec says so
SPEC = next(path for path in SPECS if path.stem == "segmentation")


def test_batch_norm_is_over_all_workers_and_upernets_heads_have_dropout() -> None:
    """Without a choice for batch norm, eight workers would be refused when they begin."""
    specs = Planner(load(SPEC, "paper"), DurationModel()).specs()
    upernet = [spec for spec in specs if isinstance(spec.task, Segmentation) and spec.task.decoder == "upernet"]
    assert len(specs) == 4
    assert len(upernet) == 2
    for spec in upernet:
        assert spec.runtime.sync_batchnorm is True
        assert spec.task.upernet.dropout == 0.1  # type: ignore[union-attr]
