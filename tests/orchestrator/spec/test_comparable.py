"""A winner is chosen within one data set, whatever the report's columns are."""

from __future__ import annotations

import pytest
from good_spec import GOOD, Write, _problems

from orchestrator.spec import load

WITHOUT_AVERAGES = GOOD.replace("report:\n  averages: [{name: Mean, over: [digits, faces]}]\n", "§")
HIDDEN = WITHOUT_AVERAGES.replace("per: [task.dataset, backbone.init]", "per: [backbone.init]")


@pytest.mark.parametrize("report", ["report: {columns: optim.batch}\n", "report: {columns: backbone.model}\n", ""])
def test_a_winner_over_several_data_sets_is_refused(write: Write, report: str) -> None:
    problems = _problems(write(HIDDEN.replace("§", report)))
    assert any("task.dataset" in problem and "stages.grid" in problem for problem in problems)


@pytest.mark.parametrize("report", ["report: {rows: task.dataset, columns: backbone.init}\n", ""])
def test_a_winner_for_each_data_set_is_not(write: Write, report: str) -> None:
    job = load(write(WITHOUT_AVERAGES.replace("§", report)))
    assert job.stages[1].per == ["task.dataset", "backbone.init"]
