"""What a reader is warned of: caveats that tasks state come from the facts recorded with each trial."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.report.caveats import ANY_COUNT, warnings
from orchestrator.report.model import Report
from orchestrator.store.store import Store


@pytest.mark.parametrize(
    ("facts", "task", "expected"),
    [
        ({"caveats": ["labels of 2012 were used"]}, {}, {"labels of 2012 were used"}),
        ({"caveats": []}, {"counts": "any"}, set()),
        ({}, {"counts": "any"}, {ANY_COUNT}),
        ({}, {"counts": "exact"}, set()),
        ({}, {}, set()),
    ],
)
def test_caveats_are_the_recorded_ones(
    whole_study: tuple[Store, Report], facts: dict[str, Any], task: dict[str, Any], expected: set[str]
) -> None:
    """Of trials that recorded none, because they ran before tasks stated any, the recorded spec tells."""
    store, report = whole_study
    job, placed = store.jobs.get(report.job_id), store.trials.placed(report.job_id)
    one = report.at["SUP", "digits"].keys[0]
    trial = replace(store.trials.get(one), facts=facts, spec={"task": task})
    lines = warnings(job, report.cells, report.groups, report.stages, placed, {one: trial})
    assert set(lines) - set(report.warnings) == {f"digits: {caveat}" for caveat in expected}
