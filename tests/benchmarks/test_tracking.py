"""benchmarks/tracking.py: its tracker part in its smallest form, which also compares the boxes of both ways."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ENTRY = Path(__file__).parents[2] / "benchmarks" / "tracking.py"


def test_the_tracker_part_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "tracking.json"
    smallest = ("--parts", "tracker", "--sequences", "2", "--frames", "3", "--rounds", "1", "--out", str(out))
    done = subprocess.run([sys.executable, str(ENTRY), *smallest], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(out.read_text())["rows"]
    assert row["part"] == "tracker"
    assert row["pixels_apart"] <= 1e-3
    assert row["ratio"] > 0
