"""Parameter groups with layer decay, optimizers, and learning-rate schedules per step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from tasks.backbones.model import head_names
from workers.layer_decay import backbone_of, levels, no_weight_decay
from workers.optim_spec import OptimSpec


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay."""

    lr_scale: float
    """The peak learning rate is multiplied by this: layer_decay ** (levels below the head), in the backbone times
    `optim.backbone_lr_factor`."""
    weight_decay: float
    names: tuple[str, ...]
    """Names as in `model.named_parameters()`."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a pure function of the step, so that a resumed run needs no state of a scheduler."""

    optim: OptimSpec
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.optim.iterations or self.optim.epochs * self.steps_per_epoch

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps of the warm-up."""
        in_iterations = self.optim.warmup_iterations
        return int(self.optim.warmup_epochs * self.steps_per_epoch) if in_iterations is None else in_iterations

    @property
    def up_steps(self) -> int:
        """Optimizer steps in which `up_down` rises."""
        per_unit = self.steps_per_epoch if self.optim.iterations is None else 1
        return max(1, int(self.optim.up_length * per_unit))

    def _up_down(self, step: int, peak: float, floor: float) -> float:
        """Source: the training loop of SwinTransformer/MIM-Depth-Estimation, which counts its steps from 1."""
        done, power = (step + 1) / self.up_steps, self.optim.up_power
        if done < 1:
            return floor + (peak - floor) * float(done**power)
        return max(floor, peak - (peak - floor) * float((done - 1) ** power))

    def lr(self, step: int, scale: float = 1.0) -> float:
        """Absolute learning rate of optimizer step `step` (0-based) for a group with this `lr_scale`.

        `warmup_lr` and `min_lr` are the same absolute numbers for every group, as in SimMIM's fine-tuning code:
        only the peak is scaled by layer decay. With `per_512` all three are multiplied by batch / 512, as there. Of
        `up_down` everything is scaled, as in the paper's depth code.
        """
        optim, step = self.optim, max(0, step - self.optim.lr_lag)
        convention = optim.peak_lr / optim.lr
        peak, start, floor = optim.peak_lr * scale, optim.warmup_lr * convention, optim.min_lr * convention
        warmup = self.warmup_steps
        if optim.schedule == "up_down":
            return scale * self._up_down(step, optim.peak_lr, floor)
        if step < warmup:
            return start + (peak - start) * step / warmup
        if optim.schedule == "step":
            milestones = [int(epoch * self.steps_per_epoch) for epoch in optim.step_epochs]
            milestones = sorted(optim.step_iterations or milestones)
            return peak * float(optim.step_factor ** bisect_right(milestones, step))
        total = self.total_steps
        if optim.warmup_prefix:
            step, total = step - warmup, total - warmup
        done = min(step, total) / total
        if optim.schedule == "poly":
            return floor + (peak - floor) * float((1 - done) ** optim.poly_power)
        return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * done))


def parameter_groups(model: nn.Module, optim: OptimSpec) -> list[ParameterGroup]:
    """The parameters by learning rate and weight decay, according to `optim.layer_decay_scheme` and `optim.no_decay`.

    Parameters that take no gradient are left out; levels that share both numbers are one group, for fewer optimizer
    kernels. Raises ValueError when the scheme does not fit the model, also where `layer_decay` is 1: no result should
    carry the name of a scheme with which it could not have been made. Raises ValueError when everything is frozen.
    """
    plain = optim.layer_decay == 1 and optim.layer_decay_scheme == "timm"  # then any model fits
    level = {} if plain else levels(model, optim.layer_decay_scheme)
    slower = _in_backbone(model, optim) if optim.backbone_lr_factor != 1 else set()
    spared = no_weight_decay(model, optim.no_decay)
    table: dict[tuple[float, float], list[str]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = 1.0 if plain else optim.layer_decay ** level[name]
            scale *= optim.backbone_lr_factor if name in slower else 1.0
            table.setdefault((scale, 0.0 if name in spared else optim.weight_decay), []).append(name)
    if not table:
        raise ValueError(
            "no weight of the model takes a gradient: freeze less in backbone.freeze, or set optim.epochs 0"
        )
    return [ParameterGroup(scale, decay, tuple(names)) for (scale, decay), names in table.items()]


def _in_backbone(model: nn.Module, optim: OptimSpec) -> set[str]:
    """Names of the parameters of the one timm model in `model`, without its classifier."""
    prefix, backbone = backbone_of(model, f"optim.backbone_lr_factor {optim.backbone_lr_factor:g}")
    heads = tuple(f"{prefix}{name}." for name in head_names(backbone))
    return {name for name, _ in model.named_parameters() if name.startswith(prefix) and not name.startswith(heads)}


def optimizer_of(model: nn.Module, groups: Sequence[ParameterGroup], optim: OptimSpec) -> torch.optim.Optimizer:
    """The spec's optimizer over `groups`. In a trial that does not train there are no groups.

    torch's own (AdamW, SGD) have the fused kernel: the same bits in every run, and the fastest on CPU and GPU.
    SGD's takes no shards, whose last bits may so differ.
    """
    parameters = dict(model.named_parameters())
    settings: list[dict[str, Any]] = [
        {
            "params": [parameters[name] for name in group.names],
            "lr": optim.peak_lr * group.lr_scale,
            "lr_scale": group.lr_scale,
            "weight_decay": group.weight_decay,
        }
        for group in groups
    ]
    if optim.optimizer == "adamw" or not settings:
        return torch.optim.AdamW(settings or [{"params": []}], betas=optim.betas, eps=optim.eps, fused=True)
    moving: dict[str, Any] = {"momentum": optim.momentum, "nesterov": optim.uses_nesterov}
    if optim.optimizer in ("sgd", "momentum"):
        in_shards = any(isinstance(parameter, DTensor) for parameter in parameters.values())
        return torch.optim.SGD(settings, **moving, fused=not in_shards)
    from timm.optim import Lamb, Lars  # imported late: it takes seconds

    adapted: dict[str, Any] = {"lr": optim.peak_lr, "eps": optim.eps, "always_adapt": optim.always_adapt}
    made: torch.optim.Optimizer = (
        Lars(settings, **moving, **adapted, trust_coeff=optim.trust_coeff)
        if optim.optimizer == "lars"
        else Lamb(settings, **adapted, betas=optim.betas, max_grad_norm=None)
    )
    return made


def set_lr(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int) -> None:
    """Sets the learning rate of every group for this step."""
    for group in optimizer.param_groups:
        group["lr"] = schedule.lr(step, group["lr_scale"])
