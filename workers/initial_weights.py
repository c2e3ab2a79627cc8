"""The only place that brings the weights a trial starts from to the node: a file, another trial's, or timm's hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from tasks.backbones import safetensors_header
from tasks.backbones.spec import FromFile, FromStage, FromTimm, FromTrial, Init
from tasks.backbones.swin_windows import Windows, reference_windows
from workers.checkpoint import load_weights
from workers.errors import ErrorClass, TrialError
from workers.messages import Weights


@dataclass(frozen=True)
class Initial:
    """Weights as they were found, their SHA-256 verified, and what is known of them."""

    tensors: dict[str, torch.Tensor]
    windows: Windows | None = None
    """Those that SwinV2's position bias refers to, where the weights say so."""
    notes: list[str] = field(default_factory=list)


def initial_weights(init: Init, data_root: Path, parents: Mapping[str, Weights]) -> Initial | None:
    """None: random ones. `parents`: weights of other trials by key. Raises DataError or TrialError (data) when they are
    not to be had, ValueError when the spec was not planned."""
    if isinstance(init, FromFile):
        problem = init.missing(data_root)
        if problem or init.sha256 is None:
            raise TrialError(ErrorClass.data, problem or f"weights {init.name}: sha256 is not filled in")
        return _from(Weights(str(init.local(data_root)), init.sha256))
    if isinstance(init, FromTrial):
        if init.trial not in parents:
            raise ValueError(f"starts from trial {init.trial[:8]}, whose weights were not handed over")
        return _from(parents[init.trial])
    if isinstance(init, FromTimm):
        from tasks.backbones.timm_hub import pretrained

        tensors, said, digest = pretrained(init)
        return Initial(tensors, said["windows"], [f"weights: {init.tag} of timm, SHA-256 {digest}"])
    if isinstance(init, FromStage):
        raise ValueError(f"backbone.init still names stage {init.stage!r}: plan it first")
    return None


def _from(weights: Weights) -> Initial:
    tensors = load_weights(weights)
    return Initial(tensors, safetensors_header.windows(safetensors_header.read(Path(weights.path))))


def weights_metadata(model: nn.Module) -> dict[str, str] | None:
    """What a file of this model's weights has to say of them, as safetensors metadata; None: nothing."""
    windows = reference_windows(model)
    return safetensors_header.packed({"windows": windows}) if windows else None
