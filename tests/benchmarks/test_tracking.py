"""benchmarks/tracking.py: its tracker part in its smallest form, which also compares the boxes of both ways."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ENTRY = Path(__file__).parents[2] / "benchmarks" / "tracking.py"


def test_the_tracker_part_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "tracking.json"
    smallest = ("--parts", "tracker", "--sequences", "2", "--frames", "3", "--rounds", "1", "--threads", "2")
    done = subprocess.run(
        [sys.executable, str(ENTRY), *smallest, "--out", str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [(row["part"], row["threads"], row["clock"]) for row in rows] == [
        ("tracker", 1, "processor time"), ("tracker", 2, "wall clock"),
    ]  # fmt: skip
    for row in rows:
        assert row["pixels_apart"] <= 1e-3
        assert row["ratio"] > 0
        assert row["counts"] == (row["threads"] == 1 or row["load"][0] < 1.3)
    assert done.stdout.count("ratio") == 2
