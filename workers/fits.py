"""The only place that tries, without memory or data, whether backbones can be built and take their weight files.

A process of its own (`python -m workers.fits`), since the driver that asks imports no torch: reads a JSON list of
{backbone, weights: path or null} and prints a JSON list of answers, null or what is wrong.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tasks import metadata
from tasks.backbone import BackboneSpec, build, fitted
from tasks.base import DataError
from tasks.windows import check_same_windows

ENOUGH_S = 30.0
"""No further backbone is begun after so long: a trial tells of what is wrong with the rest."""

log = logging.getLogger(__name__)


def problem(backbone: BackboneSpec, weights: Path | None) -> str | None:
    """Why no trial could start with this backbone, or from this file; None: nothing was found.

    Everything is on torch's meta device: shapes without content.
    """
    try:
        with torch.device("meta"):
            model = build(backbone, 1)
            if weights is not None:
                shapes = metadata.shapes(weights)
                fitted(model, {name: torch.empty(shape) for name, shape in shapes.items()})
                check_same_windows(model, metadata.windows(metadata.read(weights)))
    except (ValueError, DataError) as error:
        return str(error)
    except (RuntimeError, NotImplementedError) as error:  # something needs content: only a trial can tell
        log.warning("%s was not tried: %s", backbone.model, error)
    return None


def answers(asked: list[dict[str, Any]]) -> list[str | None]:
    end = time.monotonic() + ENOUGH_S
    found: list[str | None] = []
    for item in asked:
        path = Path(item["weights"]) if item["weights"] else None
        late = time.monotonic() > end
        found.append(None if late else problem(BackboneSpec.model_validate(item["backbone"]), path))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(answers(json.load(sys.stdin))))
