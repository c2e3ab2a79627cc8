"""Swin as mmpretrain, mmdetection and mmsegmentation name it, under timm's names and in timm's order of channels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.(.+)")
_MERGING = re.compile(r"stages\.(\d+)\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)")
_IN_BLOCK = (("attn.w_msa.", "attn."), ("ffn.layers.0.0.", "mlp.fc1."), ("ffn.layers.1.", "mlp.fc2."))


def timm_name(name: str, last: int | None) -> str:
    """timm's name of one parameter of Swin v1 (mmpretrain/models/backbones/swin_transformer.py), where a merging ends a
    stage; a name that is none of its is returned as it is. `last`: number of the last stage, whose norm is the final
    one.

    Raises ValueError for SwinV2, whose merging is arranged otherwise and which nobody has compared.
    """
    if ".attn.w_msa.cpb_mlp." in name or ".attn.w_msa.logit_scale" in name:
        raise ValueError(
            f"SwinV2 under mmpretrain's names ({name!r}) is not translated; import the checkpoint that it was made "
            "from (microsoft/Swin-Transformer), or take timm's"
        )
    if match := _MERGING.fullmatch(name):
        return f"layers.{int(match[1]) + 1}.downsample.{match[2]}"
    if match := _BLOCK.fullmatch(name):
        part = match[3]
        for theirs, ours in _IN_BLOCK:
            if part.startswith(theirs):
                part = ours + part.removeprefix(theirs)
        return f"layers.{match[1]}.blocks.{match[2]}.{part}"
    if last is not None and name.startswith(f"norm{last}."):
        return "norm." + name.removeprefix(f"norm{last}.")
    return name.replace("patch_embed.projection.", "patch_embed.proj.", 1)


def official_tensor(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor of this name with the channels of a merging in the order of the official code and timm.

    mmcv merges four neighbours with torch's Unfold: channel by channel, and of each its neighbours row by row. Swin's
    code concatenates whole neighbours, column by column (the inverse of correct_unfold_reduction_order and
    correct_unfold_norm_order in mmdetection's swin_converter). Raises ValueError for a merging of other than four.
    """
    if not _MERGING.fullmatch(name):
        return tensor
    channels = tensor.shape[-1] if tensor.ndim else 0
    if channels == 0 or channels % 4:
        raise ValueError(f"{name!r} has shape {tuple(tensor.shape)}: not a merging of 2 x 2 neighbours")
    by_neighbour = tensor.reshape(*tensor.shape[:-1], channels // 4, 4).transpose(-1, -2)
    return by_neighbour[..., [0, 2, 1, 3], :].reshape(tensor.shape)
