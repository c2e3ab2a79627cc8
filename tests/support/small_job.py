"""A small job with the whole protocol, and commands that run as processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from orchestrator.records.rows import PlacedRow
from orchestrator.store.store import Store, open_store

NOBODY = "127.0.0.1:1"
"""An address where nothing listens."""
JOB = "small"
TRIALS = 13
"""pretrain, 2 x 3 in grid, 2 x 2 in refine, 2 final."""
EPOCHS = 4
STEPS = {"faces": 5, "digits-pretrain": 28}
"""Optimizer steps of an epoch at this batch (faces: 7 if trained on train + val)."""

SPEC = """
name: small
trial:
  task:
    kind: classify
    normalize: half
    augment:
      {crop_scale: [0.7, 1], flip: 0, color_jitter: 0, rand_augment: none, erasing: 0, mixup: 0, cutmix: 0}
  backbone:
    model: vit_tiny_patch16_224
    args: {patch_size: 4, embed_dim: 32, depth: 2, num_heads: 2}
    image_size: 16
    drop_path: 0.1
  optim: {lr: 1e-3, batch: 16, epochs: 4, warmup_epochs: 1}
  runtime: {checkpoint_epochs: 1}
stages:
  - name: pretrain
    override: {task.dataset: digits-pretrain, backbone.init: {kind: none}}
  - name: grid
    per: [task.dataset, backbone.init]
    sweep:
      grid:
        task.dataset: [faces]
        backbone.init: [{kind: none, name: RAND}, {kind: stage, name: SUP, stage: pretrain}]
        optim.lr: [1e-3, 2e-3, 4e-3]
  - name: refine
    from: grid
    neighbourhood:
      shape: star
      near: {optim.lr: {multiply: [0.7, 1.4]}}
  - name: final
    from: [grid, refine]
    override: {task.train: trainval, task.evaluate: test}
"""


def environment(**variables: str) -> dict[str, str]:
    """The environment of this process, without variables that would send a command to other places."""
    ours = ("ORCHESTRATOR_", "RAY_", "MLFLOW_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    for name in ("DATABASE_URL", "DATA_ROOT"):
        kept.pop(name, None)
    return {**kept, **variables}


def begin(*arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
    """python -m orchestrator ARGUMENTS, in a session of its own, as a shell starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *map(str, arguments)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(**variables), start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], timeout_s: float = 150) -> subprocess.CompletedProcess[str]:
    """Waits for the process; kills it, and fails, if it takes too long."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return ended(begin(*arguments, **variables))


def write_spec(folder: Path, text: str = SPEC) -> Path:
    path = folder / "small.yaml"
    path.write_text(text)
    return path


@contextlib.contextmanager
def store_of(runs: Path) -> Iterator[Store]:
    with closing(open_store(f"sqlite:///{runs / 'store.db'}", create=False)) as store:
        yield store


def placed(runs: Path, job: str = JOB) -> list[PlacedRow]:
    """The job's trials so far; none before it is recorded."""
    from orchestrator.errors import OrchestratorError

    try:
        with store_of(runs) as store:
            return store.trials.placed(store.jobs.find(job))
    except OrchestratorError:
        return []


def wait_until(
    condition: Callable[[], Any], process: subprocess.Popen[str] | None = None, timeout_s: float = 90
) -> Any:
    """Returns the condition's value once it is true; fails if the process ends or the time is up before."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        if process is not None and process.poll() is not None:
            done = ended(process)
            raise AssertionError(f"ended with {done.returncode} before the condition was true:\n{done.stderr[-2000:]}")
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s:g} s")


def report_of(runs: Path) -> dict[str, Any]:
    """The saved report, without what may differ between two runs of the same job: addresses, times, hosts, code."""
    (path,) = (runs / "reports").glob(f"{JOB}-*/report.json")
    return _same(json.loads(path.read_text()))


def _same(value: Any) -> Any:
    passing = ("created", "host", "provenance", "run_id", "run_ids", "seconds", "warnings")
    if isinstance(value, dict):
        return {name: _same(inner) for name, inner in value.items() if name not in passing}
    return [_same(inner) for inner in value] if isinstance(value, list) else value


def workers_of(storage: Path) -> dict[Path, psutil.Process]:
    """The processes that train now, by the folder of their trial, whose log they have open."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            for file in process.open_files():
                if file.path.startswith(str(storage / "trials")):
                    found[Path(file.path).parent] = process
    return found


def kill_cluster(folder: Path) -> None:
    """Kills the local cluster of this folder, with everything on it, if it runs."""
    with contextlib.suppress(OSError, psutil.NoSuchProcess):
        head = head_of(folder)
        kill_all([head, *head.children(recursive=True)])


def kill_all(processes: list[psutil.Process]) -> None:
    """Kills the processes, as nearly at once as possible."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=20)


def head_of(folder: Path) -> psutil.Process:
    """The process of the local cluster of this folder."""
    return psutil.Process(json.loads((folder / "ray.json").read_text())["pid"])


def end_cluster(folder: Path) -> None:
    """Ends the local cluster of this folder, if it runs."""
    try:
        head = head_of(folder)
        family = [head, *head.children(recursive=True)]
        head.terminate()
    except (OSError, psutil.NoSuchProcess):
        return
    _, left = psutil.wait_procs(family, timeout=20)
    kill_all(left)
