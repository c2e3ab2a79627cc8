"""The named schemes of layer decay (how deep each parameter lies) and of weight decay (which parameters have none).

Public code that they follow: timm; microsoft/SimMIM and microsoft/Swin-Transformer (optimizer.py, models/simmim.py);
SwinTransformer/MIM-Depth-Estimation (models/optimizer.py); DingXiaoH/RepLKNet-pytorch (optim_factory.py).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from typing import Any, cast

from torch import nn

from tasks.backbones.dropped_layers import Cut

Depth = tuple[float, ...]
"""Orders the levels from the input on; parameters of the same depth share a level."""
INPUT: Depth = (-1.0,)
HEAD: Depth = (float("inf"),)


def levels(model: nn.Module, scheme: str) -> dict[str, int]:
    """Levels below the head of every parameter of `model`, by its name there; 0: the full learning rate.

    The levels are those of the model's timm backbone: the model itself, or the one part of it that has a
    `group_matcher`. Of what is outside of that, a `mask_token` lies as deep as the patch embedding, as in SimMIM's
    code; the rest (heads, decoders) is at level 0. Of a backbone without its last blocks they are its own, or those of
    the whole model (`CutOptions.decay_levels`). Raises ValueError, with the schemes that fit, when this one does
    not, or when there is not exactly one backbone.
    """
    prefix, backbone = backbone_of(model, "layer decay")
    names = [name for name, _ in model.named_parameters()]
    inside = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    outside = [name for name in names if not name.startswith(prefix)]
    inner = _timm(backbone, bool(outside)) if scheme == "timm" else _by_depth(SCHEMES[scheme](inside))
    if inner is None:
        fitting = ["timm", *(name for name, depths in SCHEMES.items() if _by_depth(depths(inside)) is not None)]
        lost = [name for name, depth in SCHEMES[scheme](inside).items() if depth is None]
        why = (
            f"it has no place for {', '.join(lost[:3])}{', ..' * (len(lost) > 3)}" if lost else "its blocks are missing"
        )
        raise ValueError(
            f"optim.layer_decay_scheme {scheme} does not fit {_title(backbone)}: {why}; "
            f"schemes that fit it: {', '.join(fitting)}"
        )
    cut: Cut | None = getattr(backbone, "cut", None)
    if cut is not None and cut.whole_levels:
        inner = {**inner, **{name: level for name, level in levels(cut.whole, scheme).items() if name in inner}}
    deepest = max(inner.values())
    return {
        **{prefix + name: level for name, level in inner.items()},
        **{name: deepest if name.rpartition(".")[2] == "mask_token" else 0 for name in outside},
    }


def backbone_of(model: nn.Module, wanted_by: str) -> tuple[str, nn.Module]:
    """The timm model inside `model`, and the prefix of its parameters' names. Raises ValueError, which begins with
    `wanted_by`, when there is not exactly one."""
    backbones: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if hasattr(module, "group_matcher") and not any(name.startswith(outer) for outer in backbones):
            backbones[f"{name}." if name else ""] = module
    if len(backbones) != 1:
        what = f"{len(backbones)} ({', '.join(backbones)})" if backbones else "none"
        raise ValueError(
            f"{wanted_by} needs one part of the model with timm's group_matcher, which says what belongs to which "
            f"level; {type(model).__name__} has {what}"
        )
    return next(iter(backbones.items()))


def _title(backbone: nn.Module) -> str:
    """The model's name in timm, as the spec has it, and its class."""
    config = getattr(backbone, "pretrained_cfg", None)
    name = config.get("architecture") if isinstance(config, dict) else None
    return f"{name} ({type(backbone).__name__})" if name else type(backbone).__name__


def _by_depth(depths: dict[str, Depth | None]) -> dict[str, int] | None:
    """Levels below the head; None when a parameter has no depth, or nothing lies between input and head."""
    known = {depth for depth in depths.values() if depth is not None} | {HEAD}
    if None in depths.values() or not known - {INPUT, HEAD}:
        return None
    rank = {depth: level for level, depth in enumerate(sorted(known, reverse=True))}
    return {name: rank[depth] for name, depth in depths.items() if depth is not None}


def _timm(backbone: nn.Module, head_outside: bool) -> dict[str, int]:
    """As timm.optim.param_groups_layer_decay; parameters outside of the backbone make a level of their own above it."""
    from timm.models import group_parameters  # imported late: it takes seconds, and not every model is timm's

    matcher = cast("Any", backbone).group_matcher(coarse=False)
    ordinals: dict[str, int] = group_parameters(backbone, matcher, reverse=True)
    top = max(ordinals.values()) + head_outside
    return {name: top - ordinal for name, ordinal in ordinals.items()}


def _numbered(pattern: str, names: Iterable[str]) -> dict[int, int]:
    """Stage -> number of its blocks, by the pattern's two groups."""
    sizes: dict[int, int] = {}
    for name in names:
        if match := re.match(pattern, name):
            stage, block = int(match[1]), int(match[2])
            sizes[stage] = max(sizes.get(stage, 0), block + 1)
    return sizes


_SWIN_BLOCK = r"layers\.(\d+)\.blocks\.(\d+)\."
_SWIN_HEAD = re.compile(r"(norm|head|fc_norm)\.")


def _swin(names: list[str], merging_is_a_level: bool) -> dict[str, Depth | None]:
    blocks = _numbered(_SWIN_BLOCK, names)

    def depth(name: str) -> Depth | None:
        if name.startswith("patch_embed."):
            return INPUT
        if match := re.match(_SWIN_BLOCK, name):
            return float(match[1]), float(match[2])
        # timm keeps a patch merging with the stage after it (layers.1.downsample), the reference with the one before
        if (match := re.match(r"layers\.(\d+)\.downsample\.", name)) and int(match[1]) - 1 in blocks:
            stage = int(match[1])
            return (float(stage), -1.0) if merging_is_a_level else (stage - 1.0, blocks[stage - 1] - 1.0)
        return HEAD if _SWIN_HEAD.match(name) else None

    return {name: depth(name) for name in names}


def swin26(names: list[str]) -> dict[str, Depth | None]:
    """SimMIM's get_swin_layer: patch embedding, every block, head with the last norm; a patch merging is at the level
    of the block before it. 26 levels for depths 2, 2, 18, 2; in general the number of blocks + 2."""
    return _swin(names, merging_is_a_level=False)


def swin29(names: list[str]) -> dict[str, Depth | None]:
    """The paper's depth and pose code: as `swin26`, but every patch merging is a level of its own. 29 levels for
    depths 2, 2, 18, 2; in general the number of blocks + that of mergings + 2."""
    return _swin(names, merging_is_a_level=True)


def beit(names: list[str]) -> dict[str, Depth | None]:
    """SimMIM's get_vit_layer, from BEiT: tokens, position and patch embedding; every block; the rest (head, last norm,
    and a relative position bias that all blocks share) at the full learning rate. 14 levels for 12 blocks."""
    stem = re.compile(r"(cls_token|reg_token|dist_token|pos_embed|patch_embed\..+|norm_pre\..+)$")
    rest = re.compile(r"(norm|fc_norm|attn_pool|head|head_dist|rel_pos_bias)\.")

    def depth(name: str) -> Depth | None:
        if stem.match(name):
            return INPUT
        if match := re.match(r"blocks\.(\d+)\.", name):
            return (float(match[1]),)
        return HEAD if rest.match(name) else None

    return {name: depth(name) for name in names}


def replknet13(names: list[str]) -> dict[str, Depth | None]:
    """RepLKNet's optim_factory.py: stem; two large-kernel blocks with their feed-forwards a level, in every stage; a
    transition with the level before it; last norm and head. 13 levels and the head's for depths 2, 2, 18, 2; in
    general half the blocks of each stage, rounded up, + 2. The entry of appendix B, which that code lacks, is at the
    stem's level."""
    block = r"stages\.(\d+)\.blocks\.(\d+)\."
    halves = {stage: -(-count // 4) for stage, count in _numbered(block, names).items()}

    def depth(name: str) -> Depth | None:
        if name.startswith(("entry.", "stem.")):
            return INPUT
        if match := re.match(r"stages\.(\d+)\.blocks\.(\d+)\.(prelkb_bn|preffn_bn|pw1|pw2|large_kernel)\.", name):
            return float(match[1]), float(int(match[2]) // 4)
        if (match := re.match(r"transitions\.(\d+)\.", name)) and int(match[1]) in halves:
            return float(match[1]), halves[int(match[1])] - 1.0
        return HEAD if re.match(r"(norm|head)\.", name) else None

    return {name: depth(name) for name in names}


SCHEMES: dict[str, Callable[[list[str]], dict[str, Depth | None]]] = {
    "swin26": swin26, "swin29": swin29, "beit": beit, "replknet13": replknet13,
}  # fmt: skip
"""The schemes other than `timm`: they map names of a backbone's parameters to depths, None where they know none."""

SPARED = {
    "simmim_swin_pretrain": ("absolute_pos_embed", "mask_token"),
    "simmim_vit": ("pos_embed", "cls_token"),
    "one_dimensional": (),
}
"""The schemes other than `timm`: parameters without weight decay, besides those of one dimension and `.bias`."""


def no_weight_decay(model: nn.Module, scheme: str) -> set[str]:
    """Names of the parameters without weight decay; `OptimSpec.no_decay` describes the schemes."""
    if scheme == "none":
        return set()
    parameters = dict(model.named_parameters())
    flat = {name for name, parameter in parameters.items() if parameter.ndim <= 1}
    if scheme == "timm":
        named = _named_by(model)
        return flat | {name for name in parameters if any(fnmatch.fnmatch(name, pattern) for pattern in named)}
    spared = SPARED[scheme]
    return flat | {name for name in parameters if name.endswith(".bias") or name.rpartition(".")[2] in spared}


def _named_by(model: nn.Module) -> set[str]:
    """Parameters that timm's `no_weight_decay` lists: of the model, or else of its outermost parts that have it."""
    listed: dict[str, set[str]] = {}
    for name, module in model.named_modules():
        if hasattr(module, "no_weight_decay") and not any(name.startswith(outer) for outer in listed):
            listed[f"{name}." if name else ""] = cast("Any", module).no_weight_decay()
    return {prefix + name for prefix, names in listed.items() for name in names}
