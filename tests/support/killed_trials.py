"""Runs trials whose process is killed (SIGKILL) at given points, attempt after attempt, until they end."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiny_task import digest, outcome_values

from workers.messages import Report
from workers.state import RankContext
from workers.train import train
from workers.trial import TrialSpec


def killed_trials(scenarios: Sequence[tuple[TrialSpec, list[str]]], root: Path) -> list[dict[str, Any]]:
    """Runs each trial, with its crashes, in a folder named by its position. Returns for each: `killed` (by attempt),
    `sha256` of the weights, `figures`, `resumed_at`, `reports` without time and speed, and `left`, its file names."""
    (root / "scenarios.pickle").write_bytes(pickle.dumps(list(scenarios)))
    script = Path(__file__)
    paths = [script.parents[2], script.parent, *map(Path, sys.path)]
    done = subprocess.run(
        [sys.executable, str(script), str(root)], capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


def _attempts(spec: TrialSpec, crashes: list[str], folder: Path) -> dict[str, Any]:
    """An attempt for each crash and a last one without; each in a process of its own."""
    ends = []
    for token, crash in enumerate([*crashes, ""]):
        pid = os.fork()
        if pid == 0:
            try:
                os.environ["ORCHESTRATOR_CRASH_AT"] = crash
                _attempt(spec, folder, token)
                os._exit(0)
            finally:
                os._exit(1)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    lines = [json.loads(line) for line in (folder.parent / f"{folder.name}.jsonl").read_text().splitlines()]
    sha256, figures, resumed_at = lines.pop()
    reports = {epoch: [epoch, step, values] for epoch, step, values in lines}
    return {
        "killed": [end == -signal.SIGKILL for end in ends],
        "sha256": sha256,
        "figures": figures,
        "resumed_at": resumed_at,
        "reports": [reports[epoch] for epoch in sorted(reports)],
        "left": sorted(path.name for path in folder.iterdir()),
    }


def _attempt(spec: TrialSpec, folder: Path, token: int) -> None:
    with (folder.parent / f"{folder.name}.jsonl").open("a") as log:

        def emit(report: Report) -> None:
            log.write(json.dumps([report.epoch, report.step, outcome_values(report)]) + "\n")
            log.flush()

        place = RankContext(folder=folder, data_root=folder, keep_weights=True, token=token)
        outcome = train(spec, place, emit, lambda: False)
        log.write(json.dumps([digest(outcome), outcome.figures, outcome.facts["resumed_at"]]) + "\n")


if __name__ == "__main__":  # a process that has torch but no threads yet, so that it may fork
    import safetensors.torch  # noqa: F401
    import torch._dynamo  # noqa: F401  every optimizer imports it at its first step: once here, not in every attempt

    folder = Path(sys.argv[1])
    scenarios = pickle.loads((folder / "scenarios.pickle").read_bytes())
    print(json.dumps([_attempts(spec, crashes, folder / str(n)) for n, (spec, crashes) in enumerate(scenarios)]))
