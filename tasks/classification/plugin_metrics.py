"""Computes the figures that plugins define from the logits of a classifier."""

from __future__ import annotations

import math
import traceback
from typing import Any

import numpy as np
from torch import Tensor

from tasks import plugged
from tasks.errors import PluginError


def of_plugin(name: str, logits: Tensor, labels: Tensor) -> float:
    """The figure of this name, of all images together; see `tasks.metrics.FromLogits.compute`.

    The function gets copies, since the next one reads the same tensors. Raises PluginError where it raises, or returns
    something else than one finite number.
    """
    module, metric = plugged.METRICS[name]
    what = f"METRICS: {name}: its function {getattr(metric.compute, '__name__', 'of no name')}"
    try:
        value: Any = metric.compute(logits.clone(), labels.clone())
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        shapes = f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)}"
        raise PluginError(
            module, f"{what} raised {said} ({place.filename}, line {place.lineno}) for {shapes}: mend it"
        ) from error
    file = getattr(getattr(metric.compute, "__code__", None), "co_filename", module)
    if isinstance(value, Tensor | np.ndarray | np.generic):
        if math.prod(value.shape) != 1:
            raise PluginError(
                module, f"{what} ({file}) returned a tensor of shape {tuple(value.shape)}: return one number"
            )
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PluginError(module, f"{what} ({file}) returned {type(value).__name__}: return one number (a float)")
    if not math.isfinite(value):
        cause = "" if logits.isfinite().all() else "; not all logits are finite"
        raise PluginError(module, f"{what} ({file}) returned {value}: return a finite number for every model{cause}")
    return float(value)
