"""The live table and the progress line of `submit`, and that `status` says the same of the same job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_process_backend import Machine, drive_to_end, made_up, prepared_driver
from k12_job import FINAL, PRETRAIN, RAND, SUP, grid, job

from orchestrator.cli.progress import Live, parts, summary
from orchestrator.engine import membership
from orchestrator.records.rows import MetricRow
from orchestrator.report.matrix import Part, arrange, cell_text
from orchestrator.report.status import status
from orchestrator.spec.job import job_id
from orchestrator.store.store import open_store
from workers.messages import Assignment, Outcome

RMSE = MetricRow("rmse", "RMSE", "lower", "m")
JOB = job(PRETRAIN, grid(dataset=["digits"], init=[RAND, SUP], lr=[1e-4, 6e-4], layer_decay=[0.85]),
          FINAL | {"from": "grid"})  # fmt: skip


def accurate(assignment: Assignment, emit: Any, stop: Any) -> Outcome:
    """Figures that are fractions of one, as real ones are."""
    ended = made_up(assignment, emit, stop)
    return replace(ended, figures={name: value / 100 for name, value in ended.figures.items()})


def test_a_cell_counts_and_names_the_best(tmp_path: Path) -> None:
    chosen = Part("RAND", "digits", "grid", {"done": 2, "running": 1, "failed": 1, "pending": 1}, 0.04, RMSE, 5)
    final = Part("RAND", "digits", "final", {}, None, RMSE, 1)
    assert cell_text([chosen, final], "final") == "2/6 ▸1 ✕1 failed best 0.040 m"
    done = Part("RAND", "digits", "final", {"done": 1}, 0.05, RMSE, 1)
    assert cell_text([chosen, done], "final") == "3/6 ▸1 ✕1 failed best 0.040 m final 0.050 m"
    other = Part("RAND", "digits", "refine", {"done": 1}, 0.03, RMSE)
    assert cell_text([chosen, other], "final").endswith("best 0.030 m"), "the smaller error"
    assert cell_text([Part("RAND", "digits", "grid", {})], "final") == "not placed yet"
    assert cell_text([], "final") == "–"
    assert arrange([final, other])[:2] == (["RAND"], ["digits"])


def test_the_live_table_and_status_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "BEAT_S", 0.2)
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    before = prepared_driver(store, JOB, tmp_path)
    waiting = arrange(parts(before.planner.progress(), JOB.report.rows, JOB.report.columns))[2]
    assert cell_text(waiting["RAND", "digits"], "final") == "0/3"
    _, drive = drive_to_end(store, JOB, Machine(execute=accurate), tmp_path)
    progress = drive.planner.progress()
    rows, columns, cells = arrange(parts(progress, JOB.report.rows, JOB.report.columns))
    assert (rows, columns) == (["pretrain", "RAND", "SUP"], ["", "digits"]), "pretrain has a row of its own"
    text = status(store, job_id(JOB)).text()
    shown = {row: cell_text(cells[row, "digits"], "final") for row in ("RAND", "SUP")}
    assert shown == {"RAND": "3/3 best 89.9 % final 89.9 %", "SUP": "3/3 best 90.9 % final 90.9 %"}
    for row, cell in shown.items():
        assert any(line.startswith(row) and line.endswith(cell) for line in text.splitlines())
    line = summary(drive, progress)
    assert line.startswith(f"{job_id(JOB)}: 7 of about 7 trials ended · 0 running")
    assert "failed" not in line
    store.close()


def test_the_line_is_printed_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("orchestrator.cli.progress.LINE_S", 0.0)
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    drive = prepared_driver(store, JOB, tmp_path)
    drive.backend = Machineless()  # type: ignore[assignment]
    live = Live()
    live(drive)
    live(drive)
    Live(quiet=True)(drive)
    assert capsys.readouterr().err.count("0 of about 7 trials ended") == 1
    store.close()


class Machineless:
    """A backend on which nothing runs."""

    def running(self) -> list[Any]:
        return []
