"""benchmarks/dense.py: every part in its smallest form; parts without their peers are left out in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ENTRY = Path(__file__).parents[2] / "benchmarks" / "dense.py"
SMALLEST = ("--workers", "0", "--batches", "1", "--boxes", "12", "--steps", "1", "--rounds", "1")
HIDES = """
import importlib.util

found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {hidden!r} else found(name, package)
"""


def run(folder: Path, *options: str, **environment: str) -> tuple[str, list[dict[str, object]]]:
    """What it printed, and the rows of its result."""
    out = folder / "dense.json"
    command = [sys.executable, str(ENTRY), *SMALLEST, *options, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(out.read_text())["rows"]


def test_parts_without_their_peers_are_left_out_and_say_so(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDES.format(hidden=("albumentations", "cv2", "pycocotools")))
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    said, rows = run(tmp_path, PYTHONPATH=paths)
    install = "not installed: pip install '.[benchmarks]'"
    assert f"pose: left out, albumentations and opencv-python-headless {install}" in said
    assert f"depth: left out, albumentations and opencv-python-headless {install}" in said
    assert f"coco: left out, pycocotools {install}" in said
    parts = [(row["part"], row["norm"]) for row in rows]  # each also compares the losses
    assert parts == [("pose step", False), ("pose step", True), ("depth step", False), ("depth step", True)]


@pytest.mark.parametrize(("part", "peers"), [("pose", "albumentations cv2"), ("depth", "albumentations cv2"),
                                             ("coco", "pycocotools")])  # fmt: skip
def test_a_part_with_its_peers_is_measured(part: str, peers: str, tmp_path: Path) -> None:
    if lacking := [peer for peer in peers.split() if find_spec(peer) is None]:
        pytest.skip(f"no {', '.join(lacking)}")
    _, (row,) = run(tmp_path, "--parts", part)
    assert row["part"] == part
    assert len(row["ratios"]) == 1  # type: ignore[arg-type]
