"""The only place that has a job's models tried before any trial starts, beside the start of the cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.plan.durations import DurationModel, architecture
from tasks.backbones.spec import FromFile
from workers.trial import TrialSpec

LONGEST_S = 120.0


class ModelPreflight:
    """Models that no recorded trial has had, and weight files, tried in a process that this starts.

    One new model and no file is not worth a process: the first trial tells the same, as soon.
    """

    def __init__(self, specs: Iterable[TrialSpec], speed: DurationModel, data_root: Path) -> None:
        self._asked = _distinct(specs, speed, data_root)
        self._process: subprocess.Popen[str] | None = None
        if len(self._asked) > 1 or any(item["weights"] for item in self._asked.values()):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.model_check"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(list(self._asked.values())))
            self._process.stdin.close()
            self._process.stdin = None

    def end(self) -> None:
        """Waits for the answers. Raises SpecError with what cannot be built or does not take its weights; a process
        that broke down or takes too long is no reason against the job: its trials will tell."""
        if self._process is None:
            return
        try:
            said, _ = self._process.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            self.close()
            return
        if self._process.returncode != 0:
            return
        problems = [problem for problem in json.loads(said) if problem]
        if problems:
            raise SpecError([f"backbone: {problem}" for problem in problems] + ["No trial was started."])

    def close(self) -> None:
        """Ends the process, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _distinct(specs: Iterable[TrialSpec], speed: DurationModel, data_root: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for spec in specs:
        backbone, init, optim = spec.backbone, spec.backbone.init, spec.optim
        path = str(init.local(data_root)) if isinstance(init, FromFile) else None
        if path is None and speed.built(spec):
            continue
        how = [backbone.norm_eps, backbone.drop_path > 0, spec.runtime.grad_checkpointing, path]
        levels = optim.layer_decay_scheme if optim.layer_decay < 1 else None
        name = json.dumps([spec.task.kind, architecture(backbone), levels, *how])
        if name not in found:
            # a span goes on from another trial's state, which plays no part here
            asked = spec.model_dump(mode="json", exclude={"span": True, "backbone": {"init"}})
            found[name] = {"trial": asked, "weights": path}
    return found
