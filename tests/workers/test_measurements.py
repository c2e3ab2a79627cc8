"""Values per item, layer and head: a file that the outcome names."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from analysis_task import Trained, analysis, measured
from tiny_task import run, trial_of

from tasks.metrics import Measurement
from workers.checkpoint import Folder, clear
from workers.errors import TrialError
from workers.messages import Outcome

ROWS: dict[str, Any] = {"rows": ((None, "right"), (2, "spread"))}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "measurements.jsonl").read_text().splitlines()]


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_outcome_names_the_measurements_of_the_last_evaluation(tmp_path: Path) -> None:
    outcome, _ = run(trial_of(Trained(**ROWS)), tmp_path)
    rows = rows_of(tmp_path)
    assert (outcome.measurements, outcome.measurements_sha256) == (
        "measurements.jsonl",
        sha256(tmp_path / "measurements.jsonl"),
    )
    assert [(row["figure"], row["split"], row["item"], row["layer"], row["head"]) for row in rows] == [
        (figure, "val", f"item {number:03d}", layer, None)
        for number in range(5)
        for layer, figure in ((None, "right"), (2, "spread"))
    ]
    spreads = [row["value"] for row in rows if row["figure"] == "spread"]
    assert outcome.figures["spread"] == sum(spreads) / len(spreads)
    clear(tmp_path)
    assert rows_of(tmp_path) == rows


def test_without_measurements_there_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "measurements.jsonl").write_text("of an earlier run\n")
    outcome, _ = run(analysis(), tmp_path)
    assert (outcome.measurements, outcome.measurements_sha256) == (None, None)
    assert not (tmp_path / "measurements.jsonl").exists()


def test_an_outcome_is_given_again_only_with_its_measurements(tmp_path: Path) -> None:
    log, file = tmp_path / "log", tmp_path / "trial" / "measurements.jsonl"
    spec = analysis({**ROWS, "log": str(log)})
    first, _ = run(spec, tmp_path / "trial")
    assert run(spec, tmp_path / "trial")[0] == first
    assert len(measured(log)) == 5  # nothing was measured again
    for damage in (lambda: file.write_text("cut"), file.unlink, (tmp_path / "trial" / "outcome.json").unlink):
        damage()
        again, _ = run(spec, tmp_path / "trial")
        assert again.measurements_sha256 == first.measurements_sha256 == sha256(file)
    assert len(measured(log)) == 5  # its items are finished


def test_values_that_are_not_finite_are_null(tmp_path: Path) -> None:
    def rows() -> Iterator[Measurement]:
        for head, value in enumerate((0.1, math.nan, math.inf, -math.inf)):
            yield Measurement("kl", value, "image", 3, head)

    folder = Folder(tmp_path, "k", 1)
    assert folder.save_measurements(rows(), "test") == ("measurements.jsonl", sha256(tmp_path / "measurements.jsonl"))
    assert [row["value"] for row in rows_of(tmp_path)] == [0.1, None, None, None]
    assert rows_of(tmp_path)[0] == {
        "figure": "kl", "split": "test", "item": "image", "layer": 3, "head": 0, "value": 0.1,
    }  # fmt: skip


def test_they_are_written_whole_and_by_the_newest_attempt(tmp_path: Path) -> None:
    old, new = Folder(tmp_path, "k", 1), Folder(tmp_path, "k", 2)
    old.claim()
    old.save_measurements([Measurement("kl", 1.0)], "val")
    before = (tmp_path / "measurements.jsonl").read_bytes()

    def breaks() -> Iterator[Measurement]:
        yield Measurement("kl", 2.0)
        raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        old.save_measurements(breaks(), "val")
    new.claim()
    with pytest.raises(TrialError, match="attempt 1 was given up"):
        old.save_measurements([Measurement("kl", 3.0)], "val")
    assert (tmp_path / "measurements.jsonl").read_bytes() == before
    assert [path.name for path in tmp_path.glob("*.tmp")] == []


def test_an_outcome_recorded_before_there_were_measurements_is_read(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "k", 1)
    folder.finish(Outcome({"top1": 0.5}, {"steps": 3}), [])
    content = json.loads((tmp_path / "outcome.json").read_text())
    for name in ("measurements", "measurements_sha256"):
        del content["outcome"][name]
    (tmp_path / "outcome.json").write_text(json.dumps(content))
    assert folder.finished(with_weights=False) == (Outcome({"top1": 0.5}, {"steps": 3}), [])
