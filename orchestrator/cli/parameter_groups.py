"""Shows the learning rate and weight decay with which each parameter of a trial's model is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError

from orchestrator.errors import OrchestratorError
from orchestrator.launch.job_plugins import use_recorded
from orchestrator.report.formatting import aligned
from orchestrator.report.status import View
from workers.optim import parameter_groups
from workers.trial import TrialSpec

if TYPE_CHECKING:
    from torch import nn

    from orchestrator.store.store import Store

NAMED = 2
"""Parameters of a group that the table names; JSON has all."""


def table(store: Store, key: str) -> View:
    """The groups of the trial's optimizer, from the input of the model to its head.

    Raises NotFound, and OrchestratorError if this version cannot read the recorded spec or build its model.
    """
    spec = store.trials.get(key).spec
    use_recorded(spec, f"trial {key[:12]}")
    try:
        trial = TrialSpec.model_validate(spec)
    except ValidationError as error:
        raise OrchestratorError(f"trial {key[:12]} was recorded by a version with other specs: {error}") from error
    try:
        model = built(trial)
        groups = parameter_groups(model, trial.optim)
    except ValueError as error:
        raise OrchestratorError(f"trial {key[:12]}: {error}") from error
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    optim = trial.optim
    rows = [
        {
            "lr_scale": group.lr_scale, "lr": optim.peak_lr * group.lr_scale, "weight_decay": group.weight_decay,
            "tensors": len(group.names), "parameters": sum(sizes[name] for name in group.names),
            "names": list(group.names),
        }
        for group in groups
    ]  # fmt: skip
    frozen = len(sizes) - sum(len(group.names) for group in groups)
    content = {
        "key": key, "layer_decay": optim.layer_decay, "layer_decay_scheme": optim.layer_decay_scheme,
        "optimizer": optim.optimizer, "no_decay": optim.no_decay, "frozen": frozen, "groups": rows,
    }  # fmt: skip
    body = [
        [f"{group.lr_scale:.4g}", f"{optim.peak_lr * group.lr_scale:.4g}", f"{group.weight_decay:g}",
         str(len(group.names)), f"{sum(sizes[name] for name in group.names):,}", _first(group.names)]
        for group in groups
    ]  # fmt: skip
    total = sum(sizes.values())
    lines = [
        f"{trial.backbone.model}: {len(sizes)} tensors, {total:,} parameters"
        + (f", {frozen} tensors frozen" if frozen else ""),
        f"layer decay {optim.layer_decay:g}, levels by {optim.layer_decay_scheme}: "
        f"{len({group.lr_scale for group in groups})} learning rates",
        f"{optim.optimizer}, weight decay {optim.weight_decay:g}, exemptions by {optim.no_decay}",
        "",
        *aligned(["lr x", "peak lr", "weight decay", "tensors", "parameters", "names"], body, 200),
    ]
    return View(content, lines)


def built(trial: TrialSpec) -> nn.Module:
    """The trial's model, on the meta device if possible: without memory, in a tenth of a second for a large model.

    Raises ValueError if the model cannot be built as the spec says.
    """
    try:
        with torch.device("meta"):
            return trial.task.build(trial.backbone, None)
    except (NotImplementedError, RuntimeError):  # its constructor reads values of tensors
        return trial.task.build(trial.backbone, None)


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:NAMED]) + (", .." if len(names) > NAMED else "")
