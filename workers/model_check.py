"""The only place that tries, without memory or data, whether trials' models can be built and take their weight files.

A process of its own (`python -m workers.model_check`), since the driver that asks imports no torch: reads a JSON
list of {trial, weights: path or null} and prints a JSON list of answers, null or what is wrong.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tasks.backbones import safetensors_header
from tasks.backbones.swin_windows import check_same_windows
from tasks.errors import DataError
from workers.optim import parameter_groups
from workers.prepare import enable_grad_checkpointing
from workers.trial import TrialSpec

ENOUGH_S = 30.0
"""No further model is begun after so long: a trial tells of what is wrong with the rest."""

log = logging.getLogger(__name__)


def problem(trial: TrialSpec, weights: Path | None) -> str | None:
    """Why no trial could start with this model, or from this file; None: nothing was found.

    Everything is on torch's meta device: shapes without content.
    """
    try:
        with torch.device("meta"):
            shapes = None if weights is None else safetensors_header.shapes(weights)
            given = None if shapes is None else {name: torch.empty(shape) for name, shape in shapes.items()}
            model = trial.task.build(trial.backbone, given)
            check_same_windows(model, safetensors_header.windows(safetensors_header.read(weights)) if weights else None)
            if trial.runtime.grad_checkpointing:
                enable_grad_checkpointing(model, trial.backbone.model)
            if trial.trains:
                parameter_groups(model, trial.optim)
    except (ValueError, DataError) as error:
        return str(error)
    except (RuntimeError, NotImplementedError) as error:  # something needs content: only a trial can tell
        log.warning("%s was not tried: %s", trial.backbone.model, error)
    return None


def answers(asked: list[dict[str, Any]]) -> list[str | None]:
    end = time.monotonic() + ENOUGH_S
    found: list[str | None] = []
    for item in asked:
        path = Path(item["weights"]) if item["weights"] else None
        late = time.monotonic() > end
        found.append(None if late else problem(TrialSpec.model_validate(item["trial"]), path))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(answers(json.load(sys.stdin))))
