"""Loads initial weights into a model and notes every change they needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tasks.backbones.layouts import fit, translate
from tasks.backbones.model import head_names
from tasks.backbones.swin_windows import check_same_windows

if TYPE_CHECKING:
    import torch
    from torch import nn


def load(model: nn.Module, weights: Mapping[str, torch.Tensor], keep_head: bool = False) -> list[str]:
    """Copies weights of any layout known to tasks/backbones/layouts.py. The head is left as it was unless `keep_head`.

    A line for whatever was renamed, left out or resized is returned, and kept with the model (`load_notes`). Raises
    ValueError naming what is missing, left over or of another shape; then nothing was copied.
    """
    given, notes = fitted(model, weights, keep_head)
    model.load_state_dict(given, strict=False)  # all but the head is there: `fitted` has seen to it
    model.load_notes = tuple(notes)  # type: ignore[assignment]
    return notes


def fitted(
    model: nn.Module, weights: Mapping[str, torch.Tensor], keep_head: bool = False
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """What `load` copies and notes; the model stays as it is, and may be on the meta device. Raises as `load`."""
    heads = tuple(f"{name}." for name in head_names(model))

    def wanted(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in tensors.items() if keep_head or not name.startswith(heads)}

    own = wanted(model.state_dict())
    notes: list[str] = []
    if wanted(weights).keys() != own.keys():
        named = translate(weights)
        check_same_windows(model, named.windows)
        weights, notes = named.tensors, named.notes
    given, changes = fit(wanted(weights), model)
    problems = {
        "missing": [name for name in own if name not in given],
        "left over": [name for name in given if name not in own],
        "of another shape": [
            f"{name} {tuple(given[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in given and given[name].shape != own[name].shape
        ],
    }
    if any(problems.values()):
        lines = [
            f"{len(names)} {what}: {', '.join(names[:8])}{', ..' * (len(names) > 8)}"
            for what, names in problems.items()
            if names
        ]
        raise ValueError(f"initial weights do not fit the backbone: {'; '.join(lines)}")
    return given, notes + changes


def load_notes(model: nn.Module) -> list[str]:
    """What `load` noted about the backbone inside `model`."""
    return [line for part in model.modules() for line in getattr(part, "load_notes", ())]
