"""The only place that says how weights are moved: parameter groups with layer decay, AdamW, and schedules per step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from workers.trial import OptimSpec


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate and a weight decay."""

    lr_scale: float
    """The peak learning rate is multiplied by this: layer_decay ** (levels below the head)."""
    weight_decay: float
    names: tuple[str, ...]
    """As in `model.named_parameters()`."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a pure function of the step, so that a resumed run needs no state of a scheduler."""

    optim: OptimSpec
    steps_per_epoch: int

    def lr(self, step: int, scale: float = 1.0) -> float:
        """Absolute learning rate of optimizer step `step` (0-based) for a group with this `lr_scale`.

        `warmup_lr` and `min_lr` are the same absolute numbers for every group, as in SimMIM's fine-tuning code:
        only the peak is scaled by layer decay. SimMIM runs its first two steps at `warmup_lr` (it asks the schedule
        after the step); here step 0 alone does. Under `per_512` all three are multiplied by batch / 512, as there.
        """
        optim = self.optim
        convention = optim.peak_lr / optim.lr
        peak, start, floor = optim.peak_lr * scale, optim.warmup_lr * convention, optim.min_lr * convention
        warmup = int(optim.warmup_epochs * self.steps_per_epoch)
        if step < warmup:
            return start + (peak - start) * step / warmup
        if optim.schedule == "step":
            milestones = [int(epoch * self.steps_per_epoch) for epoch in sorted(optim.step_epochs)]
            return peak * float(optim.step_factor ** bisect_right(milestones, step))
        total = optim.epochs * self.steps_per_epoch
        if optim.warmup_prefix:
            step, total = step - warmup, total - warmup
        return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * min(step, total) / total))


def parameter_groups(model: nn.Module, optim: OptimSpec) -> list[Group]:
    """Which parameter is trained with which learning rate and weight decay: the table that `adamw` follows.

    Levels come from timm.optim.param_groups_layer_decay, that is from the model's own `group_matcher`; no weight
    decay for what has one dimension or is named by the model's `no_weight_decay`. Parameters that take no
    gradient are left out. Raises ValueError when layer decay is asked of a model that does not say its levels.
    """
    if hasattr(model, "group_matcher"):
        from timm.optim import param_groups_layer_decay  # here: it takes seconds, and not every model is timm's

        skip = cast("Any", model).no_weight_decay() if hasattr(model, "no_weight_decay") else ()
        found = param_groups_layer_decay(
            model, optim.weight_decay, no_weight_decay_list=skip, layer_decay=optim.layer_decay
        )
    elif optim.layer_decay == 1:
        parameters = [p for p in model.parameters() if p.requires_grad]
        found = [
            {"lr_scale": 1.0, "weight_decay": 0.0, "params": [p for p in parameters if p.ndim <= 1]},
            {"lr_scale": 1.0, "weight_decay": optim.weight_decay, "params": [p for p in parameters if p.ndim > 1]},
        ]
    else:
        raise ValueError(
            f"layer_decay {optim.layer_decay:g} needs a model with timm's group_matcher, which says what belongs to "
            f"which level; {type(model).__name__} has none"
        )
    # timm makes a group for each level; levels that share both numbers are one group, for fewer optimizer kernels
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    table: dict[tuple[float, float], list[str]] = {}
    for group in found:
        names = table.setdefault((group["lr_scale"], group["weight_decay"]), [])
        names.extend(name_of[id(parameter)] for parameter in group["params"])
    return [Group(scale, decay, tuple(names)) for (scale, decay), names in table.items() if names]


def adamw(model: nn.Module, groups: Sequence[Group], optim: OptimSpec) -> torch.optim.AdamW:
    """AdamW over `groups`, with the fused kernel: the same bits in every run, and the fastest on both devices."""
    parameters = dict(model.named_parameters())
    return torch.optim.AdamW(
        [
            {
                "params": [parameters[name] for name in group.names],
                "lr": optim.peak_lr * group.lr_scale,
                "lr_scale": group.lr_scale,
                "weight_decay": group.weight_decay,
            }
            for group in groups
        ],
        betas=optim.betas,
        eps=optim.eps,
        fused=True,
    )


def set_lr(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int) -> None:
    """Gives every group its learning rate for this step."""
    for group in optimizer.param_groups:
        group["lr"] = schedule.lr(step, group["lr_scale"])
