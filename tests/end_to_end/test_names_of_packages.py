"""A job submitted where files have the names of our packages: trials on the nodes find ours, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from small_job import NOBODY, SPEC, environment, write_spec

ROOT = Path(__file__).parents[2]
ONE = SPEC.partition("stages:")[0].replace("name: small", "name: named").replace("epochs: 4", "epochs: 2") + (
    "stages:\n  - {name: only, override: {task.dataset: faces}}\n"
)


def test_files_named_like_our_packages_hide_nothing_on_the_nodes(ray_cluster: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "tasks").mkdir(parents=True)
    (here / "tasks" / "__init__.py").write_text("raise SystemExit('theirs')\n")
    (here / "workers.py").write_text("raise SystemExit('theirs')\n")
    spec = write_spec(tmp_path, ONE)
    command = ["submit", spec, "--runs", tmp_path / "runs", "--address", ray_cluster, "--no-ship"]
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *map(str, command), "--tracking-uri", f"http://{NOBODY}", "-q"],
        capture_output=True, text=True, cwd=here, env={**environment(), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 trials started" in done.stderr
