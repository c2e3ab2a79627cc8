"""benchmarks/detection.py: every part in its smallest form; without its peer a part is left out in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ENTRY = Path(__file__).parents[2] / "benchmarks" / "detection.py"
SMALLEST = ("--images", "4", "--evaluated", "40", "--coded", "8", "--steps", "1", "--rounds", "1")


def test_every_part_is_measured_or_left_out(tmp_path: Path) -> None:
    out = tmp_path / "detection.json"
    command = [sys.executable, str(ENTRY), *SMALLEST, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = ["loader", "evaluation", "memory", "step"]
    if find_spec("pycocotools") is None:
        parts.remove("evaluation")
        assert "evaluation: left out, pycocotools not installed" in done.stdout
    rows = json.loads(out.read_text())["rows"]
    assert [row["part"] for row in rows] == parts
    assert all(len(row["ratios"]) == 1 and row["ours"] > 0 for row in rows)
