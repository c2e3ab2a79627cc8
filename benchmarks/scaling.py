"""One trial over 1 and 2 workers, through the real path: command, driver, Ray Train, gloo; images per second.

    python benchmarks/scaling.py                     a fresh folder, a fresh local Ray; two minutes on 2 cores
    python benchmarks/scaling.py --parallel fsdp --epochs 20

The global batch is the same whatever the number of workers, so each of two has half of it: strong scaling. `efficiency`
is images/s over CPUs x images/s of one. Also shown: one worker with as many threads as two have together, which is
what one would use on a single machine without GPUs; and `start`: seconds between the moment a trial was handed out and
its end in which it did not train (of two workers: mostly Ray Train placing and connecting them).
The trials run one after another: with two CPUs no two of them fit at once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import noop
import yaml

from orchestrator.settings import sqlite_url
from orchestrator.store.store import open_store

STAGES = {
    "1 worker, 1 thread": {"workers": 1, "cpus": 1},
    "2 workers, 1 thread each": {"workers": 2, "cpus": 1},
    "1 worker, 2 threads": {"workers": 1, "cpus": 2},
}


def spec(epochs: int, batch: int, parallel: str) -> dict[str, Any]:
    """A job of one trial for each of `STAGES`. The seeds differ because the number of workers is no part of a trial:
    the store would know the second one already."""
    return {
        "name": "scaling",
        "trial": {
            "task": {"kind": "classify", "dataset": "digits", "augment": {"rand_augment": "none"}},
            "backbone": {
                "model": "vit_tiny_patch16_224", "image_size": 32,
                "args": {"patch_size": 4, "embed_dim": 96, "depth": 6, "num_heads": 3},
            },
            "optim": {"lr": 1e-3, "epochs": epochs, "warmup_epochs": 1, "batch": batch},
            "runtime": {"evaluate_every": epochs, "parallel": parallel},
        },
        "stages": [
            {"name": f"s{n}", "override": {"seed": n}, "resources": resources}
            for n, resources in enumerate(STAGES.values())
        ],
    }  # fmt: skip


def submit(folder: Path, job: dict[str, Any]) -> None:
    """The command, as a user types it."""
    file = folder / "scaling.yaml"
    file.write_text(yaml.safe_dump(job))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR_", "RAY_"))}
    for name in ("DATABASE_URL", "DATA_ROOT", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "orchestrator", "submit", str(file), "--runs", str(folder), "--cpus", "2"]
    command += ["--quiet", "--no-tracking"]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")


def show(folder: Path) -> None:
    speeds: list[float] = []
    with closing(open_store(sqlite_url(folder / "store.db"), create=False)) as store:
        (job,) = store.jobs.all()
        for (name, resources), row in zip(STAGES.items(), store.trials.placed(job.id), strict=True):
            facts, (attempt,) = store.trials.get(row.key).facts, store.trials.attempts(row.key)
            assert attempt.ended is not None
            speeds.append(facts["images_per_second"])
            cpus = resources["workers"] * resources["cpus"]
            print(
                f"  {name:26} {speeds[-1]:7.1f} images/s  {1e3 * facts['step_seconds']:7.1f} ms a step  "
                f"{speeds[-1] / speeds[0]:5.2f} x  efficiency {speeds[-1] / speeds[0] / cpus:6.1%}  "
                f"start {attempt.ended - attempt.started - facts['train_seconds']:5.1f} s"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--parallel", choices=("ddp", "fsdp"), default="ddp")
    given = parser.parse_args()
    print(noop.machine())
    folder = Path(tempfile.mkdtemp(prefix="scaling-"))
    try:
        submit(folder, spec(given.epochs, given.batch, given.parallel))
        print(f"ViT 96 x 6, 32 px, global batch {given.batch}, {given.epochs} epochs of digits, {given.parallel}")
        show(folder)
    finally:
        noop.end_cluster(folder)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
