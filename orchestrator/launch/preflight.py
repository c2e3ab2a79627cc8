"""Builds a job's new models without data before any trial starts, while the cluster starts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.plan.durations import DurationModel, model_id
from tasks.backbones.spec import FromFile
from workers.plugin_code import PluginCode
from workers.trial import TrialSpec

TIMEOUT_S = 120.0
"""A check that takes longer is given up; the trials then find the mistakes."""


CHECK = "import orchestrator, runpy; runpy.run_module('workers.model_check', None, '__main__')"
"""By way of our package, so that a file workers.py where the user works does not hide the package."""


class ModelPreflight:
    """Checks models that no recorded trial has built, and weight files, in a process of its own.

    A single new model without a file starts no process: its first trial fails just as soon.
    """

    def __init__(
        self, specs: Iterable[TrialSpec], durations: DurationModel, data_root: Path, plugins: Sequence[PluginCode] = ()
    ) -> None:
        self._checks = different_models(specs, durations, data_root)
        self._process: subprocess.Popen[str] | None = None
        if len(self._checks) > 1 or any(check["weights"] for check in self._checks):
            self._process = subprocess.Popen(
                [sys.executable, "-c", CHECK],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            assert self._process.stdin is not None
            self._process.stdin.write(asked(self._checks, plugins))
            self._process.stdin.close()
            self._process.stdin = None

    def end(self) -> None:
        """Waits for the results. Raises SpecError with the models that cannot be built or do not take their weights.

        A process that crashed or takes too long does not stop the job: its trials will show what is wrong.
        """
        if self._process is None:
            return
        try:
            output, _ = self._process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.close()
            return
        if self._process.returncode != 0:
            return
        problems = [problem for problem in json.loads(output) if problem]
        if problems:
            raise SpecError([f"backbone: {problem}" for problem in problems] + ["No trial was started."])

    def close(self) -> None:
        """Ends the process if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def asked(checks: list[dict[str, Any]], plugins: Sequence[PluginCode]) -> str:
    """What `workers.model_check` reads from its standard input."""
    return json.dumps({"plugins": [code.plain() for code in plugins], "models": checks})


def different_models(
    specs: Iterable[TrialSpec], durations: DurationModel, data_root: Path | None
) -> list[dict[str, Any]]:
    """One trial of each kind that may fail for another reason, with its weights file: the input of the check.

    `data_root`: None leaves weights files out.
    """
    checks: dict[str, dict[str, Any]] = {}
    for spec in specs:
        backbone, init, optim = spec.backbone, spec.backbone.init, spec.optim
        path = str(init.local(data_root)) if isinstance(init, FromFile) and data_root is not None else None
        if path is None and durations.parameters(spec) is not None:
            continue
        scheme = optim.layer_decay_scheme if optim.layer_decay < 1 else None
        details = [
            scheme, backbone.norm_eps, backbone.drop_path > 0, spec.runtime.grad_checkpointing, path,
            backbone.cut.final_norm, backbone.sample_layers is None,
        ]  # fmt: skip
        # without its span: the training state that a later span resumes from plays no part here
        trial = spec.model_dump(mode="json", exclude={"span"})
        checks.setdefault(json.dumps([model_id(spec), *details]), {"trial": trial, "weights": path})
    return list(checks.values())
