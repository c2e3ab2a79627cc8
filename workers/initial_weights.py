"""Loads the weights that a trial starts from: a file's, another trial's, or those of timm's hub."""

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
    """Weights as they are in their file, whose SHA-256 was verified, and what the file says about them."""

    tensors: dict[str, torch.Tensor]
    windows: Windows | None = None
    """Window sizes to which SwinV2's position bias refers, where the file has them."""
    notes: list[str] = field(default_factory=list)


def initial_weights(init: Init, data_root: Path, parents: Mapping[str, Weights]) -> Initial | None:
    """The weights of `init`; None for random ones. `parents`: weights of other trials, by key.

    Raises DataError or TrialError (data) when they cannot be had, ValueError when the spec was not planned.
    """
    if isinstance(init, FromFile):
        problem = init.missing(data_root)
        if problem or init.sha256 is None:
            raise TrialError(ErrorClass.data, problem or f"weights {init.name}: sha256 is not filled in")
        initial = _from(Weights(str(init.local(data_root)), init.sha256))
        check_finite(initial.tensors, init.name)
        return initial
    if isinstance(init, FromTrial):
        if init.trial not in parents:
            raise ValueError(f"starts from trial {init.trial[:8]}, whose weights were not handed over")
        return _from(parents[init.trial])
    if isinstance(init, FromTimm):
        from tasks.backbones.timm_hub import pretrained

        tensors, metadata, digest = pretrained(init)
        return Initial(tensors, metadata["windows"], [f"weights: {init.tag} of timm, SHA-256 {digest}"])
    if isinstance(init, FromStage):
        raise ValueError(f"backbone.init still names stage {init.stage!r}: plan it first")
    return None


def _from(weights: Weights) -> Initial:
    tensors = load_weights(weights)
    return Initial(tensors, safetensors_header.windows(safetensors_header.read(Path(weights.path))))


def check_finite(tensors: Mapping[str, torch.Tensor], name: str) -> None:
    """Raises TrialError (data) for weights that are no numbers, with which a trial would diverge at its first step."""
    wrong = [each for each, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if wrong:
        problem = f"{len(wrong)} of them are not finite (nan or inf), for example {wrong[0]!r}: take other weights"
        raise TrialError(ErrorClass.data, f"weights {name}: {problem}")


def weights_metadata(model: nn.Module) -> dict[str, str] | None:
    """Metadata for a safetensors file of this model's weights: its window sizes; None where it has none."""
    windows = reference_windows(model)
    return safetensors_header.packed({"windows": windows}) if windows else None
