"""The service from Python: what it reads of a job that ran."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from recorded_study import Plot, Study

from orchestrator import api
from orchestrator.errors import NotFound
from orchestrator.store.store import open_store


def test_trials_and_table_are_frames(tmp_path: Path) -> None:
    where = api.settings(folder=tmp_path)
    with contextlib.closing(open_store(where.database_url)) as store:
        job = Study(store, Plot(seeds=(0, 1, 2))).run()
    assert len(api.results(job, where)) == 1 + 60 + 20 + 12
    table = api.table("k12-grid", where).set_index(["row", "column"])
    assert set(table.index) == {(row, column) for row in ("RAND", "SUP") for column in ("digits", "faces", "Average")}
    cell = table.loc["SUP", "digits"]
    # accuracy 0.96 + 0.002 seed, less 0.01 on test
    assert (cell["value"], cell["n"], cell["values"]) == (pytest.approx(95.2), 3, pytest.approx([95.0, 95.2, 95.4]))
    assert cell["interval95"] == pytest.approx(4.302653 * 0.2 / 3**0.5, rel=1e-6)
    assert (bool(cell["leading"]), cell["chosen_on"], cell["candidates"]) == (True, "val", 20)
    assert cell["chosen_value"] == pytest.approx(96.0)
    with pytest.raises(NotFound, match="nobody"):
        api.table("nobody", where)
