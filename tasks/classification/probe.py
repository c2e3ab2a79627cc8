"""Linear probes: a frozen backbone, of which the classifier alone is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from tasks.backbones.frozen import freeze_all_but
from tasks.backbones.model import head_names

NORM_EPS = 1e-6
"""Epsilon of the batch norm before the classifier, in MAE's public code (main_linprobe.py)."""


def norm_before_head(model: nn.Module) -> None:
    """Puts a batch norm without scale and shift before the classifier of a timm model, as MAE's linear probe has it.

    The classifier `head` becomes `head.1`. Raises ValueError where it is not one linear layer.
    """
    for name in head_names(model):
        head = model.get_submodule(name)
        if not isinstance(head, nn.Linear):
            raise ValueError(
                f"task.probe linear_bn norms what a linear classifier takes, and {name} of {type(model).__name__} is a "
                f"{type(head).__name__}: use linear, or another backbone.model"
            )
        above, _, own = name.rpartition(".")
        normed = nn.Sequential(nn.BatchNorm1d(head.in_features, eps=NORM_EPS, affine=False), head)
        setattr(model.get_submodule(above), own, normed)


def with_norm_in_head(model: nn.Module) -> nn.Module:
    """A copy of a model of `norm_before_head` without the batch norm, which its classifier takes over: in eval mode it
    computes the same, up to rounding."""
    plain = copy.deepcopy(model)
    for name in head_names(plain):
        norm, linear = cast("tuple[nn.BatchNorm1d, nn.Linear]", tuple(cast(Any, plain.get_submodule(name))))
        assert norm.running_mean is not None
        assert norm.running_var is not None
        with torch.no_grad():
            linear.weight.div_(torch.sqrt(norm.running_var + norm.eps))
            linear.bias.sub_(linear.weight @ norm.running_mean)
        above, _, own = name.rpartition(".")
        setattr(plain.get_submodule(above), own, linear)
    return plain


def freeze_backbone(model: nn.Module) -> None:
    """Freezes all of a timm model but its classifier."""
    freeze_all_but(model, head_names(model))


class Features:
    """What the classifier of a model takes, kept from its last forward pass."""

    def __init__(self) -> None:
        self.last: Tensor | None = None

    def take(self) -> Tensor:
        """(n, channels), fp32. Raises RuntimeError when the model's classifier was not called."""
        if self.last is None:
            raise RuntimeError("the model gave no features: its classifier was not called in the forward pass")
        features, self.last = self.last, None
        return features.flatten(1).float()


@contextmanager
def features_of(model: nn.Module) -> Iterator[Features]:
    """Keeps the pooled features of every forward pass inside: what the classifier takes, before a norm of its own."""
    kept = Features()

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        kept.last = inputs[0].detach()

    hook = model.get_submodule(head_names(model)[0]).register_forward_pre_hook(keep)
    try:
        yield kept
    finally:
        hook.remove()


def forward(model: nn.Module, images: Tensor) -> Tensor:
    """The model's output, not compiled, since a compiled graph does not call hooks that came after it."""
    compiled = getattr(model, "_compiled_call_impl", None) is not None
    return cast("Tensor", model.forward(images) if compiled else cast("Any", model)(images))
