"""benchmarks/segmentation.py: every part in its smallest form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
ENTRY = Path(__file__).parents[2] / "benchmarks" / "segmentation.py"
SMALLEST = (
    "--images", "4", "--evaluated", "1", "--predicted", "1", "--classes", "5", "--steps", "1", "--rounds", "1",
)  # fmt: skip


def test_every_part_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "segmentation.json"
    command = [sys.executable, str(ENTRY), *SMALLEST, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["part"] for row in rows] == [
        "loader", "loader, colours", "evaluation", "evaluation", "prediction", "upernet step", "mask2former step",
    ]  # fmt: skip
    assert all(len(row["ratios"]) == 1 and row["ours"] > 0 for row in rows)
    assert all(row["memory_mib"] > 0 for row in rows if row["part"] == "prediction")
