"""Loads initial weights into a backbone and notes every change that they needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tasks.backbones.layouts import fit, fresh_norm, translate
from tasks.backbones.model import head_names
from tasks.backbones.swin_windows import check_same_windows

if TYPE_CHECKING:
    import torch
    from torch import nn

UNTRAINED_NORM = "weights: the final norm"
"""Begins the note on a norm that weights of detection, segmentation and tracking lack."""


def load(model: nn.Module, weights: Mapping[str, torch.Tensor], keep_head: bool = False) -> list[str]:
    """Copies weights of any layout that tasks/backbones/layouts.py knows; the head's too if `keep_head`, else it stays.

    `model`: of `build` or `build_backbone`. Returns a note for whatever was renamed, left out or resized, which the
    model keeps too (`load_notes`). Raises ValueError naming the weights that are missing, left over or of another
    shape; then nothing was copied.
    """
    fitting, notes = fitted(model, weights, keep_head)
    model.load_state_dict(fitting, strict=False)  # `fitted` made sure that nothing but the head is missing
    model.load_notes = tuple(notes)  # type: ignore[assignment]
    return notes


def fitted(
    model: nn.Module, weights: Mapping[str, torch.Tensor], keep_head: bool = False
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors that `load` would copy, and its notes. The model does not change and may be on the meta device.
    Raises ValueError as `load` does."""
    heads = tuple(f"{name}." for name in head_names(model))

    def without_head(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in tensors.items() if keep_head or not name.startswith(heads)}

    own = without_head(model.state_dict())
    notes: list[str] = []
    if without_head(weights).keys() != own.keys():
        named = translate(weights)
        check_same_windows(model, named.windows)
        weights, notes = named.tensors, named.notes
        if named.normless and (norm := fresh_norm(weights, model)):
            weights = {**weights, **norm}
            notes.append(f"{UNTRAINED_NORM}, which these weights were trained without, starts as drawn")
    fitting, changes = fit(without_head(weights), model)
    problems = {
        "missing": [name for name in own if name not in fitting],
        "left over": [name for name in fitting if name not in own],
        "of another shape": [
            f"{name} {tuple(fitting[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in fitting and fitting[name].shape != own[name].shape
        ],
    }
    if any(problems.values()):
        lines = [
            f"{len(names)} {problem}: {', '.join(names[:8])}{', ..' * (len(names) > 8)}"
            for problem, names in problems.items()
            if names
        ]
        raise ValueError(f"initial weights do not fit the backbone: {'; '.join(lines)}")
    return fitting, notes + changes


def load_whole(model: nn.Module, weights: Mapping[str, torch.Tensor], what: str, start_from: str) -> None:
    """Copies the weights of a whole model, its head's too, which must be those of one like `model`.

    Raises ValueError otherwise. `what`, `start_from`: what the model is, and the trial to take weights of, for it.
    """
    own = model.state_dict()
    unlike = sorted(
        name
        for name in own.keys() | weights.keys()
        if name not in own or name not in weights or own[name].shape != weights[name].shape
    )
    if unlike:
        raise ValueError(
            f"task.head keep: {len(unlike)} weights are not those of {what} with this backbone, for example "
            f"{unlike[0]}; start from {start_from}, or set head to fresh"
        )
    model.load_state_dict(dict(weights))


def load_notes(model: nn.Module) -> list[str]:
    """The notes that `load` made about the backbone inside `model`."""
    return [line for part in model.modules() for line in getattr(part, "load_notes", ())]
