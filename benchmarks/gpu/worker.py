"""A process that carries out the trials it is sent, one after another, as the project's actors do without Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpu.trials import Bench, DrawnTrial, free, never, place_of
from workers.messages import Report
from workers.train import train

ENTRY = Path(__file__).resolve().parents[1] / "gpu.py"
MARK = "answer "
"""Begins a line that is an answer; libraries print others."""


def serve(device: str) -> int:
    """Answers each line of standard input, {trial, folder, threads}, with what came of it or {error}."""
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = _carried_out(asked, device)
        except Exception as error:  # the next trial may do better, and who asked decides
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(MARK + json.dumps(answer), flush=True)
    return 0


def _carried_out(asked: dict[str, Any], device: str) -> dict[str, Any]:
    trial, folder = DrawnTrial.model_validate(asked["trial"]), Path(asked["folder"])
    bench = Bench(device, False, folder.parent, asked["threads"])
    reports: list[Report] = []
    began = time.monotonic()
    outcome = train(trial, place_of(bench, folder, asked["keep_weights"]), reports.append, never)
    seconds = time.monotonic() - began
    free(bench)  # a process that waits for the next trial has no use for memory that others need
    last = reports[-1].values
    return {
        "seconds": seconds,
        "facts": outcome.facts,
        "images_per_second": last["system_images_per_second"],
        "data_wait": last["system_data_wait"],
        "weights": outcome.weights and {"path": outcome.weights.path, "sha256": outcome.weights.sha256},
    }


class Worker:
    """Such a process, seen from the one that started it."""

    def __init__(self, bench: Bench, name: str, environment: Mapping[str, str] | None = None) -> None:
        """`name`: of its log in the bench's folder."""
        # the project itself has to set it
        inherited = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
        self._log = bench.folder / f"{name}.log"
        with self._log.open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(ENTRY), "--worker", "--device", bench.device],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**inherited, **(environment or {})},
            )  # fmt: skip

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()

    def ready(self) -> None:
        """Waits until it has loaded everything. Raises RuntimeError when it cannot start."""
        if self.process.stdout is None or not self.process.stdout.readline():
            raise RuntimeError(f"a process did not start: {self.why()}")

    def ask(self, trial: DrawnTrial, folder: Path, threads: int, keep_weights: bool = True) -> None:
        assert self.process.stdin is not None
        asked = {"trial": trial.model_dump(mode="json"), "folder": str(folder), "threads": threads}
        self.process.stdin.write(json.dumps({**asked, "keep_weights": keep_weights}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any] | None:
        """The next one; None when the process has ended. Raises RuntimeError for a trial that ended with an error."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                answer: dict[str, Any] = json.loads(line.removeprefix(MARK))
                if "error" in answer:
                    raise RuntimeError(answer["error"])
                return answer
        return None

    def end(self) -> int:
        """Its exit code; negative: the signal that ended it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait()

    def why(self) -> str:
        """The last line that it wrote to its log."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing in its log"
