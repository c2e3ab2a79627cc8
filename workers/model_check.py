"""Checks, without memory or data, that the models of trials can be built and take their weight files.

Runs as a process of its own (`python -m workers.model_check`), since its caller imports no torch: reads JSON from
stdin, {plugins: `PluginCode.plain` of each, models: list of {trial, weights: path or null}}, and prints a JSON list
with null or the problem of each model. Of those that have `layers: true` and no problem it prints {layers: what
`Task.measured_layers` says}.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tasks.backbones import safetensors_header
from tasks.backbones.model import build
from tasks.backbones.swin_windows import check_same_windows
from tasks.errors import DataError
from workers.optim import parameter_groups
from workers.plugin_code import PluginCode
from workers.plugins import use
from workers.prepare import enable_grad_checkpointing
from workers.trial import TrialSpec

TIME_LIMIT_S = 30.0
"""After so long no further model is built: problems of the rest show when their trials start."""

log = logging.getLogger(__name__)


def problem(trial: TrialSpec, weights: Path | None) -> str | None:
    """Why no trial could start with this model, or from this file; None if no reason was found.

    Everything is on torch's meta device: shapes without content.
    """
    return _checked(trial, weights)[0]


def _checked(trial: TrialSpec, weights: Path | None) -> tuple[str | None, nn.Module | None]:
    """The problem, and the model where it could be built."""
    try:
        with torch.device("meta"):
            shapes = None if weights is None else safetensors_header.shapes(weights)
            given = None if shapes is None else {name: torch.empty(shape) for name, shape in shapes.items()}
            model = trial.task.build(trial.backbone, given) if _is_known(trial) else build(trial.backbone, 1)
            check_same_windows(model, safetensors_header.windows(safetensors_header.read(weights)) if weights else None)
            if trial.runtime.grad_checkpointing:
                enable_grad_checkpointing(model, trial.backbone.model)
            if trial.trains:
                parameter_groups(model, trial.optim)
    except (ValueError, DataError) as error:
        return str(error), None
    except (RuntimeError, NotImplementedError) as error:  # something needs content: only a trial can show it
        log.warning("%s could not be checked: %s", trial.backbone.model, error)
        return None, None
    return None, model


def _is_known(trial: TrialSpec) -> bool:
    """False while nothing is known of the data, so that a head cannot be built yet (see `Task.evaluation_samples`)."""
    return not trial.task.makes_steps or trial.task.train_samples > 0


def problems(models: list[dict[str, Any]]) -> list[Any]:
    """The problem of each {trial, weights}; None, or the layers if they are asked for, where there is none. None where
    the time was over."""
    end = time.monotonic() + TIME_LIMIT_S
    results: list[Any] = []
    for model in models:
        path = Path(model["weights"]) if model["weights"] else None
        late = time.monotonic() > end
        trial = TrialSpec.model_validate(model["trial"])
        wrong, built = (None, None) if late else _checked(trial, path)
        if built is not None and model.get("layers"):
            results.append({"layers": trial.task.measured_layers(built)})
        else:
            results.append(wrong)
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = json.load(sys.stdin)
    use([PluginCode.from_plain(plain) for plain in given["plugins"]])
    with contextlib.redirect_stdout(sys.stderr):  # of code that prints
        answers = problems(given["models"])
    print(json.dumps(answers))
