"""Freezes parts of a backbone: their weights take no gradient, and they stay in eval mode while the rest trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from torch import nn

if TYPE_CHECKING:
    from tasks.backbones.spec import BackboneSpec

_NORMS = (
    nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
_STEM_DROPS = ("pos_drop", "patch_drop")
"""Modules of timm's transformers that drop what the stem gives, and have no weights."""


def freeze_parts(model: nn.Module, spec: BackboneSpec) -> None:
    """Freezes in a freshly built timm model what `spec.freeze` names.

    Blocks are the levels above the stem of the model's own `group_matcher`, by which timm's layer decay also counts: a
    block of ViT, BEiT, Swin, SwinV2, ConvNeXt or ResNet, a patch merging with the block after it; of RepLKNet two
    blocks. The final norm is none.
    Raises ValueError when the model has fewer blocks, no norm, or nothing that says what its stem and blocks are.
    """
    wanted = spec.freeze
    if wanted.stem:
        levels = _levels(model, spec.model)
        last = max(levels.values()) - _has_head_level(model, levels)
        if wanted.blocks > last:
            raise ValueError(
                f"backbone.freeze.blocks {wanted.blocks}: {spec.model} has {last} block{'s' * (last != 1)} here; "
                f"use 0 to {last}"
            )
        # timm counts the norm after the last block as a part of that block
        final = {name for name, level in levels.items() if level == last and name.count(".") == 1}
        _freeze(model, {name for name, level in levels.items() if level <= wanted.blocks} - final)
        for name, module in model.named_children():
            if name in _STEM_DROPS:
                _mark(module)
    if wanted.norms:
        norms = [module for module in model.modules() if _is_norm(module)]
        if not norms:
            raise ValueError(f"backbone.freeze.norms: {spec.model} has no norm; set it to false")
        for norm in norms:
            for parameter in norm.parameters(recurse=False):
                parameter.requires_grad_(False)
            _mark(norm)


def freeze_all_but(model: nn.Module, heads: Iterable[str]) -> None:
    """Freezes everything except the modules of these names."""
    kept = tuple(f"{name}." for name in heads)
    _freeze(model, {name for name, _ in model.named_parameters() if not name.startswith(kept)})
    for name, module in model.named_modules():
        outside = not f"{name}.".startswith(kept) and not any(head.startswith(f"{name}.") for head in kept)
        if name and outside:
            _mark(module)


def train_mode(model: nn.Module, switch: Callable[[], object] | None = None) -> None:
    """Puts the model into training mode, except for what is frozen: its batch norm keeps its statistics, and it drops
    nothing. `switch`: does so for all of it, where the model is wrapped."""
    (switch or model.train)()
    for module in model.modules():
        if is_frozen(module):
            module.eval()


def is_frozen(module: nn.Module) -> bool:
    """True for a module that was frozen as a whole."""
    return bool(getattr(module, "frozen", False))


def mark_frozen(model: nn.Module, names: Iterable[str]) -> None:
    """Marks the modules of these names as frozen, whose weights are."""
    for name in names:
        _mark(model.get_submodule(name))


def _freeze(model: nn.Module, names: set[str]) -> None:
    """Freezes parameters, and modules all of whose parameters these are."""
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)
    for path, module in model.named_modules():
        own = [f"{path}.{name}" if path else name for name, _ in module.named_parameters()]
        if own and names.issuperset(own):
            _mark(module)


def _mark(module: nn.Module) -> None:
    cast("Any", module).frozen = True


def _is_norm(module: nn.Module) -> bool:
    """timm's own norms have other classes than torch's, with the word in their name."""
    named = "Norm" in type(module).__name__ and any(True for _ in module.parameters(recurse=False))
    return isinstance(module, _NORMS) or named


def _levels(model: nn.Module, title: str) -> dict[str, int]:
    """Parameter -> its level from the input on; 0: the stem."""
    from timm.models import group_parameters

    if not hasattr(model, "group_matcher"):
        raise ValueError(
            f"backbone.freeze: {title} has no group_matcher (timm), which says what its stem and blocks are; freeze "
            "norms alone, or use another backbone.model"
        )
    matcher = cast("Any", model).group_matcher(coarse=False)
    levels: dict[str, int] = group_parameters(model, matcher, reverse=True)
    return levels


def _has_head_level(model: nn.Module, levels: dict[str, int]) -> bool:
    """True if the last level is no block but the classifier, or the norm after pooling."""
    last = max(levels.values())
    classifier = cast("Any", model).pretrained_cfg["classifier"]
    heads = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    names = [name for name, level in levels.items() if level == last]
    return any(name.startswith(heads) for name in names) or all(name.count(".") == 1 for name in names)
